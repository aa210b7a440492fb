"""Where a training step of the fit spends its time, part by part, each timed apart on the same heads.

python -m bench.profile                             # prints the table, writes bench/history/<device>.profile.json
python -m bench.profile --count 50000 --edge 512 --identities 8 --out profile.json

A part's time on a processor is that of the whole process, all threads together (core-ms); on a GPU it is wall time.
Forward is a call of the part alone, backward what its gradient takes beyond that. "rest" is what the step takes beyond
all parts: random numbers, the pull towards few and small Gaussians, the check that all is finite.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.history import HERE
from bench.machine import about, device_name
from bench.metric import slug
from bench.scenes import VIEWS, captures, fitted, one_of
from bench.tables import markdown, number
from bench.timing import Job, Suite, measure
from bench.workloads import Work
from jsplat.fitting import FitConfig
from jsplat.fitting.adam import adam, factors_of, first_moments
from jsplat.fitting.loss import label_loss
from jsplat.fitting.photos import photos_of
from jsplat.fitting.step import first_capacity, first_state, steps
from jsplat.kernels.blend import blend
from jsplat.kernels.tiling import bin_tiles
from jsplat.raster.capacity import backend_tile, capacity_for
from jsplat.raster.projection import project
from jsplat.raster.similarity import photo_loss
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.programs import configure_xla

STEPS = 10  # of the fit in one call
STEP, BINNING, BLEND = "the whole step", "binning", "blend"
FORWARD, BOTH = "forward", "forward and backward"


def _pieces(name: str, function: Callable[..., Any], *args: Any, gradient: bool = True) -> dict[str, Callable]:
    """A function alone, and together with the gradient of a weighted sum with respect to all of its arguments."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(function, *args)
    weights = jax.tree.map(lambda s: jnp.asarray(random.normal(size=s.shape), s.dtype), shapes) if gradient else None

    def with_gradient(weights, *args):
        value, back = jax.vjp(function, *args)
        return value, back(weights)

    alone, both = jax.jit(function), jax.jit(with_gradient)
    found = {f"{name}, {FORWARD}": lambda: jax.block_until_ready(alone(*args))}
    return found | ({f"{name}, {BOTH}": lambda: jax.block_until_ready(both(weights, *args))} if gradient else {})


def pieces(identities: int, count: int, edge: int) -> dict[str, Callable[[], Any]]:
    """The step as the fit runs it, and its parts on the first view of the same scenes."""
    config = FitConfig(gaussians=count, steps=1 << 20, steps_per_call=STEPS, relocate_every=0)
    scene, people = fitted(identities, count), captures(identities, VIEWS, edge)
    photos = [photos_of(person, config, k) for k, person in enumerate(people)]
    photos = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *photos)
    needed = [capacity_for(one_of(scene, k).gaussians, person.cameras) for k, person in enumerate(people)]
    classes = scene.attributes.label_logits.shape[-1]
    capacity = max(first_capacity(config.hits_per_gaussian, count, classes, config), *needed)  # as the fit has it
    state = [jax.tree.map(jnp.array, first_state(scene))]

    def step():
        state[0] = steps(state[0], photos, np.int32(config.steps), config=config, capacity=capacity)
        return jax.block_until_ready(state[0].loss)

    camera = jax.tree.map(lambda x: x[:, 0], photos.cameras)
    lens = {"size": (camera.width, camera.height), "capacity": capacity}
    tile = backend_tile(3 + classes)

    def colours(sh, logits, means):
        return sh_colors(sh, means, camera), jax.nn.softmax(logits, -1)

    def projection(gaussians):
        seen = project(gaussians, camera)
        return seen.means2d, seen.conic_roots, seen.opacities

    paint = (scene.attributes.sh, scene.attributes.label_logits, scene.gaussians.means)
    features = jnp.concatenate(colours(*paint), -1)
    rows, depths = projection(scene.gaussians), project(scene.gaussians, camera).depths

    def binning(means2d, conic_roots, opacities):
        return bin_tiles(means2d, conic_roots, opacities, depths, tile=tile, **lens)

    def blending(means2d, conic_roots, opacities, features):
        return blend(means2d, conic_roots, opacities, depths, features, shape_channels=3, **lens).channels

    image = jax.jit(blending)(*rows, features)
    photo, labels = photos.images[:, 0].astype(jnp.float32) / 255, photos.labels[:, 0]
    factors = factors_of(jnp.zeros(identities, jnp.int32), config)

    def update(gradients, moments):
        updates, moments = adam(gradients, moments, factors, config)
        return optax.apply_updates(gradients, updates), moments

    return {
        STEP: step,
        **_pieces("colours", colours, *paint),
        **_pieces("projection", projection, scene.gaussians),
        **_pieces(BINNING, binning, *rows, gradient=False),
        **_pieces(BLEND, blending, *rows, features),
        **_pieces("photo loss", lambda x: photo_loss(x, photo, config.ssim_weight), image[..., :3]),
        **_pieces("label loss", lambda x: label_loss(x, labels), image[..., 3:]),
        **_pieces("optimizer", update, scene, first_moments(scene), gradient=False),
    }


def parts_of(times: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """Part -> milliseconds forward and backward, from those of the pieces; the blend's without the binning in it.

    Each pass of the blend bins for itself, so binning is counted in both.
    """
    parts = [name.removesuffix(f", {FORWARD}") for name in times if name.endswith(f", {FORWARD}")]
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        alone, both = times[f"{part}, {FORWARD}"], times.get(f"{part}, {BOTH}")
        found[part] = {"forward": alone, "backward": None if both is None else both - alone}
    found[BINNING]["backward"] = found[BINNING]["forward"]
    found[BLEND] = {way: x - found[BINNING][way] for way, x in found[BLEND].items()}
    parts = sum(x or 0.0 for part in found.values() for x in part.values())
    return found | {"rest": {"forward": times[STEP] - parts, "backward": None}}


def profile(identities: int, count: int, edge: int, rounds: int) -> dict[str, Any]:
    """The record of one run: where and with what, "parts" as `parts_of`, and "step" in milliseconds."""
    record = {k: v for k, v in about("profile").items() if k != "suite"}
    calls = pieces(identities, count, edge)
    measured = measure(Suite(tuple(map(Work, calls)), rounds=rounds), lambda work: Job(calls[work.name]))
    if broken := [metric for metric in measured if metric.error]:
        raise RuntimeError(f"{broken[0].name}: {broken[0].error}")
    core = jax.devices()[0].platform == "cpu"
    times = {metric.name: metric.processor if core else metric.value for metric in measured}
    times[STEP] /= STEPS
    sizes = {"identities": identities, "gaussians": count, "edge": edge, "channels": 22}
    return record | sizes | {"unit": "core-ms" if core else "ms", "step": times[STEP], "parts": parts_of(times)}


def section(record: dict[str, Any]) -> str:
    """The record as a page shows it."""
    rows, unit = [], record["unit"]
    for name, part in record["parts"].items():
        fraction = sum(x or 0.0 for x in part.values()) / record["step"]
        rows.append([name, *(number(part[way], ".2f") for way in ("forward", "backward")), f"{fraction:.0%}"])
    rows.append([STEP, number(record["step"], ".2f"), "", "100%"])
    return (
        f"Measured on {record['device']}, commit {record['commit']}, jax {record['versions']['jax']}, load"
        f" {record['load']:.1f}: identities: {record['identities']}, {record['gaussians']:,} Gaussians each,"
        f" {record['edge']}x{record['edge']} pixels, {record['channels']} channels.\n\n"
        + markdown(["part of a training step", f"forward, {unit}", f"backward, {unit}", "of the step"], rows)
    )


def main() -> None:
    """The command line."""
    configure_xla()  # as `bench.run` does, and before a device is asked for
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"identities": 1, "count": 8000, "edge": 128, "rounds": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=HERE / "history" / f"{slug(device_name())}.profile.json")
    given = vars(parser.parse_args())
    out = given.pop("out")
    record = profile(**given)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(section(record))


if __name__ == "__main__":
    main()
