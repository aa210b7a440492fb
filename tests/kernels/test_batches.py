"""What an image shows does not depend on what else is in the batch, to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsplat.kernels.blend import blend
from jsplat.kernels.blend.cases import headlike

EDGE, COUNT, CAPACITY = 48, 600, 4000  # several blocks an image, none of them full


@pytest.mark.as_users
def test_an_image_in_a_batch_has_the_bits_it_has_alone():
    batch = headlike(3, COUNT, EDGE, 4).arrays()
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(EDGE, EDGE, 6)), jnp.float32)

    @jax.jit
    def run(*args):
        def loss(*args):
            out = blend(*args, size=(EDGE, EDGE), capacity=CAPACITY, backend="xla")
            image = jnp.concatenate([out.channels, out.depth[..., None], out.alpha[..., None]], -1)
            return (image * weights).sum(), image

        return jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True)(*args)

    together = run(*batch)
    for k in range(3):
        alone = run(*(x[k : k + 1] for x in batch))
        jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[0], b[k]), alone, together)
