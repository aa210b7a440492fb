"""Fits three people, and labels one, on so many forced CPU devices.

Run by test_fitting_devices.py, because a process has its devices once.

python -m tests.fit_on_devices COUNT OUT.npz
"""

import re
import sys

import jax

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

import jax.numpy as jnp
import numpy as np

from jsplat.fitting import FitConfig, fit
from jsplat.fitting.photos import photos_of
from jsplat.fitting.start import starting_scene
from jsplat.fitting.step import first_state, steps
from jsplat.labels import SharpenConfig, lift, paint, sharpen
from jsplat.parser import Architecture, new_parser, predict
from jsplat.runtime.view_blocks import to_blocks
from tests import ball

CONFIG = FitConfig(gaussians=200, steps=8, steps_per_call=4, relocate_every=4, dead_opacity=0.5, hold_out=4, voxels=24)
NAMES = ("ada", "bob", "eve")
VIEWS = 21  # three blocks, the last one not full
COLLECTIVE = re.compile(r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\b")


def people():
    """Three captures, of 8, 8 and 9 views."""
    return [ball.capture(name, turn=float(i)) for i, name in enumerate(NAMES)]


def compiled_step(device):
    """The steps of one identity."""
    capture = people()[0]
    scene = jax.tree.map(lambda x: x[None], starting_scene(capture, CONFIG, jax.random.key(0), 3))
    photos = jax.tree.map(lambda x: np.asarray(x)[None], photos_of(capture, CONFIG, 0))
    placed = jax.device_put((first_state(scene), photos), device)
    return steps.lower(*placed, jnp.int32(4), config=CONFIG, capacity=4096).compile()


def labels_of(devices) -> dict[str, np.ndarray]:
    """What the stages after the fit find about one person whose views these devices share."""
    seen = ball.capture(yaw=np.arange(VIEWS) * 360 / VIEWS)
    gaussians, truth = ball.gaussians(150), np.eye(len(ball.SIDES), dtype=np.float32)[seen.labels]
    where = {"capacity": 4096, "devices": devices}
    evidence, weight = lift(gaussians, seen.cameras, truth, **where)
    probabilities = evidence.sum(0) / jnp.maximum(weight.sum(0), 1e-6)[:, None]
    probabilities = sharpen(
        gaussians, probabilities, seen.cameras, truth, jnp.ones(VIEWS), config=SharpenConfig(rounds=2), **where
    )
    render = paint(gaussians, probabilities, seen.cameras, **where)
    parser = new_parser(Architecture(18, 0.125, 32), ball.SIDES, 0)
    first = predict(parser, seen.images, 4, flip=True, devices=devices)
    return {
        "evidence": evidence,
        "rows": probabilities,
        "channels": render.channels,
        "depth": render.depth,
        "first": first,
    }


def main(out: str) -> None:
    """Writes every leaf of the fitted scenes, the scores, and what the compiled steps cost on a device."""
    result = fit(people(), CONFIG, seed=1)
    program = compiled_step(jax.local_devices()[-1])
    found = {f"leaf{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(result.scene))}
    cost = program.cost_analysis()
    np.savez(
        out,
        **found,
        **{name: np.asarray(x) for name, x in labels_of(jax.local_devices()).items()},
        psnr=result.psnr,
        losses=np.asarray(result.losses),
        flops=cost["flops"],
        bytes=cost["bytes accessed"],
        collectives=len(COLLECTIVE.findall(program.as_text())),
        devices=len(jax.local_devices()),
        working=len({next(iter(b.devices())) for b in to_blocks(jnp.zeros(VIEWS), jax.local_devices())}),
    )


if __name__ == "__main__":
    main(sys.argv[2])
