"""Peak memory of the label stage for one head of any size: `python -m bench.memory SIZE VIEWS GAUSSIANS [ROUNDS]`.

The head is a shell of random Gaussians, its first labels random logits at a stride of 8 with a mirrored look: memory
depends on sizes alone. Prints the process's peak before and after the stage in MB, processor seconds, and what the
results take on disk (random labels pack worse than a head's).
"""

import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.labels import SharpenConfig
from jsplat.labels.opinions import Logits, Voter, quantised
from jsplat.labelsets.labelset import CELEBAMASK_HQ
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.first_labels import voter_arrays
from jsplat.pipeline.stages.label import label_capture
from jsplat.pipeline.work_folder import save_arrays
from jsplat.raster.camera import orbit
from jsplat.raster.capacity import SharedCapacity
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.runtime.kept_views import KeptViews
from jsplat.runtime.programs import configure_xla


def shell(count: int) -> Scene:
    """Gaussians on a sphere of 0.1, as large as their distances."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(count, 3))
    means *= 0.1 / np.linalg.norm(means, axis=-1, keepdims=True)
    gaussians = Gaussians(
        jnp.asarray(means, jnp.float32),
        jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        jnp.full((count, 3), np.log(0.2 / count**0.5), jnp.float32),
        jnp.full(count, 2.0, jnp.float32),
    )
    return Scene(gaussians, Attributes(jnp.zeros((count, 1, 3)), jnp.zeros((count, len(CELEBAMASK_HQ)))))


def pictures(size: int, views: int) -> tuple[Capture, Logits]:
    """Cameras all around, and what a parser might say."""
    focal = size / 0.3
    lens = np.asarray([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    yaw, still = np.linspace(-120, 120, views), np.zeros(views)
    cameras = orbit(yaw, still, still, still + 1, lens, (size, size))
    blank = np.zeros((views, size, size, 3), np.uint8)
    rng, native = np.random.default_rng(0), size // 8
    start, step = 0.5 / 8 - 0.5, 1 / 8
    columns = [(start, step), (start + (size - 1) * step, -step)]
    looks = [
        quantised(rng.normal(0, 4, (views, native, native, len(CELEBAMASK_HQ))).astype(np.float32), (start, step), axis)
        for axis in columns
    ]
    return Capture("shell", blank, None, cameras, None, np.eye(4), None), Logits(tuple(looks), (size, size))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts kilobytes


def _megabytes(arrays: Mapping[str, np.ndarray | KeptViews]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        save_arrays(path, **arrays)
        return path.stat().st_size / 1e6


def main(size: int, views: int, gaussians: int, rounds: int = 1) -> None:
    """Measures, and prints one line; memory does not depend on the rounds of sharpening, time does."""
    configure_xla()
    scene, (capture, opinions) = shell(gaussians), pictures(size, views)
    config = RunConfig(ablation=False, sharpen=SharpenConfig(rounds=rounds))
    before, start = _peak(), time.process_time()
    out = label_capture(capture, scene, opinions, CELEBAMASK_HQ, config, SharedCapacity())
    seconds, after = time.process_time() - start, _peak()
    first = _megabytes(voter_arrays([Voter("parser", CELEBAMASK_HQ, opinions)]))
    print(
        f"label {size} px, {views} views, {gaussians} Gaussians: peak {after:.0f} MB ({before:.0f} before), "
        f"{seconds:.0f} processor s; on disk: first labels {first:.1f} MB, labels {_megabytes(out):.1f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
