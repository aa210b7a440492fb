"""What runs in each process: `python -m bench.gpu.steps NAME ARGUMENTS`, started by `bench.gpu.processes`.

Numbers are written as they come. What is not right raises; `CannotRunError` says why something cannot run here.
"""

import argparse
import ctypes
import dataclasses
import faulthandler
import functools
import hashlib
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.checks import lists, native, photo, smallest
from bench.gpu.part import Part
from bench.gpu.parts import KERNELS, PHOTO_LOSS
from bench.gpu.processes import NOT_HERE

ROUNDS = 5


def about(part: Part) -> None:
    """The machine: what its tools say first, then what JAX sees."""
    query = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,power.limit"
    commands = {
        "gpu": ("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"),
        "nvidia_smi": ("nvidia-smi",),
        "nvcc": ("nvcc", "--version"),
        "ncu": ("ncu", "--version"),
        "sanitizer": ("compute-sanitizer", "--version"),
    }
    for name, command in commands.items():
        if shutil.which(command[0]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
                part.tell(**{name: (done.stdout or done.stderr).strip()[-4000:]})
            except subprocess.TimeoutExpired:
                part.tell(**{name: "no answer within 10 s"})
    part.tell(python=platform.python_version(), cores=os.cpu_count() or 0)

    import jax

    from bench.machine import about as measured

    first = jax.devices()[0]
    part.tell(
        platform=first.platform,
        device=first.device_kind,
        capability=str(getattr(first, "compute_capability", "none")),
        runtime=first.client.platform_version[:200],
        **{key: value for key, value in measured("about").items() if key in ("commit", "versions", "load")},
    )


def in_place(part: Part) -> None:
    """Kernels that step (a) found broken decline; in a rehearsal what runs on processors takes the kernels' place."""
    from jsplat.kernels.blend import IMPLEMENTATIONS
    from jsplat.kernels.blend.cpu import compiled
    from jsplat.kernels.similarity import IMPLEMENTATIONS as PHOTO

    stands_in = "xla" if compiled.problem() else "cpu"
    places = [(kernel, IMPLEMENTATIONS, kernel, stands_in) for kernel in KERNELS]
    for name, table, kernel, other in [*places, (PHOTO_LOSS, PHOTO, "mosaic_gpu", "xla")]:
        if part.rehearse:
            table[kernel] = table[other]
        if (how := part.earlier["broken"].get(name)) and not part.name.startswith(("a.", "c.")):
            declines = functools.partial(lambda how, facts: f"is not used: {how}", how)
            table[kernel] = table[kernel]._replace(declines=declines)


def _measured(part: Part, suite: str, works: Sequence[Any], prepare: Callable[..., Any], ratios: Any = ()) -> None:
    """Times workloads in turns and tells the lines; one that crashed is an error, once all were told."""
    from bench import timing
    from bench.machine import about as where

    if part.rehearse:
        timing.TURN = 0.0
    found = timing.measure(timing.Suite(tuple(works), tuple(ratios)), prepare, 1 if part.rehearse else ROUNDS)
    part.tell(lines=[metric.line(**where(suite)) for metric in found])
    if broken := [f"{metric.name}: {metric.error}" for metric in found if metric.error]:
        raise ValueError("; ".join(broken))


def headline(part: Part, images: str) -> None:
    """Forward and backward of heads of random Gaussians, checked against the float64 reference."""
    from bench import raster
    from bench.workloads import Raster

    work = Raster(
        f"gpu headline {part.sizes.channels}, {images} images",
        images=int(images),
        count=part.sizes.count,
        edge=part.sizes.edge,
        channels=part.sizes.channels,
    )

    def prepare(work):
        job = raster.prepare(work)
        part.tell(**job.accuracy, backend=job.work["backend"], compile_seconds=job.compile_seconds)
        return dataclasses.replace(job, work={**work.described(), **job.work})

    _measured(part, "gpu-headline", [work], prepare)


def stopping(part: Part, kernel: str) -> None:
    """Forward and backward of long lists that stop early, at 22 channels; the sanitizers watch."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jsplat.kernels.blend import IMPLEMENTATIONS
    from jsplat.kernels.blend.cases import headlike

    channels = part.sizes.channels
    module, edge = native(IMPLEMENTATIONS, kernel, channels), 40
    case = headlike(1, 1500, edge, channels)
    case = case._replace(opacities=np.full_like(case.opacities, 0.9)).arrays()
    args, lens = (case, jnp.zeros(1, jnp.int32)), {"size": (edge, edge - 3), "capacity": 1 << 14}
    shown, needed = jax.block_until_ready(module.forward(*args, **lens))
    stopped = int((shown.alpha > 1 - 1e-4).sum())
    part.tell(needed=int(needed[0]), stopped=stopped)
    grads = module.backward(*args, shown, jax.tree.map(jnp.ones_like, shown), **lens, shape_channels=channels)
    finite = all(bool(jnp.isfinite(x).all()) for x in (*shown, *grads))
    if not finite or int(needed[0]) > 1 << 14 or not stopped:
        raise ValueError(f"finite: {finite}, needed: {needed}, or nothing stops early")


def _both(part: Part) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Image and gradients of one view of the headline by the best kernel that works, its arguments, its lens."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jsplat.kernels.blend import blend, tile_of
    from jsplat.kernels.blend.cases import headlike
    from jsplat.kernels.select import Facts, default_device
    from jsplat.kernels.tiling import bin_tiles

    sizes = part.sizes
    case, size = headlike(1, sizes.count, sizes.edge, sizes.channels).arrays(), (sizes.edge, sizes.edge)
    tile = tile_of(Facts(default_device(), np.dtype(np.float32), sizes.channels))
    needed = bin_tiles(*case[:4], size=size, tile=tile, capacity=1).needed
    lens = {"size": size, "capacity": -(-int(needed[0]) // 4096) * 4096}
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(1, *size, sizes.channels)), jnp.float32)

    def both(weights, *arrays):
        image, back = jax.vjp(lambda *x: blend(*x, **lens).channels, *arrays)
        return image, back(weights)

    return jax.jit(both), (weights, *case), {**lens, "tile": tile}


def bits(part: Part) -> None:
    """One view of the headline twice; the second process compares with the first one's digest too."""
    import jax
    import numpy as np

    run, args, _ = _both(part)
    digests = []
    for _ in range(2):
        digest = hashlib.sha256()
        for array in jax.tree.leaves(run(*args)):
            digest.update(np.asarray(array).tobytes())
        digests.append(digest.hexdigest())
    part.tell(digest=digests[0], same_in_one_process=str(digests[0] == digests[1]))
    before = part.earlier["parts"].get("d.first", {}).get("values", {}).get("digest", digests[0])
    if (part.name == "d.second" and digests[0] != before) or len({*digests}) > 1:
        raise ValueError(f"bits differ: {digests}, and {before} in the process before")


def trace(part: Part) -> None:
    """Kernels of forward, forward and backward, and binning by JAX's profiler; whether CUB sorts."""
    import jax

    from bench.gpu.traced import kernels_of
    from jsplat.kernels.blend import blend
    from jsplat.kernels.tiling import bin_tiles

    both, args, how = _both(part)
    _, *case = args
    lens = {k: how[k] for k in ("size", "capacity")}
    programs = {
        "binning": (jax.jit(functools.partial(bin_tiles, **how)), case[:4]),
        "forward": (jax.jit(lambda *x: blend(*x, **lens).channels), case),
        "forward and backward": (both, args),
    }
    for name, (program, arrays) in programs.items():
        part.tell(**{name: kernels_of(lambda p=program, a=arrays: jax.block_until_ready(p(*a)))})
    program, arrays = programs["binning"]
    text = program.lower(*arrays).compile().as_text()
    cub, own = len(re.findall(r'custom_call_target="[^"]*cub', text)), text.count(" sort(")
    part.tell(sorts_by_cub=cub, sorts_by_xla=own)
    if jax.devices()[0].platform == "gpu" and (own or not cub):
        raise ValueError("a sort is not CUB's: XLA's own are slow")


def profiled(part: Part) -> None:
    """One view of the headline once it is compiled; a profiler of the GPU watches that call alone."""
    import jax

    run, args, _ = _both(part)
    jax.block_until_ready(run(*args))
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.cuProfilerStart()
    jax.block_until_ready(run(*args))
    cuda.cuProfilerStop()


def fit_many(part: Part) -> None:
    """The whole fit of many identities (a few people, again and again) and its PSNR on views that were held out."""
    from bench.scenes import captures
    from jsplat.fitting import FitConfig, fit

    sizes = part.sizes
    people = captures(1 if part.rehearse else 2, sizes.views, sizes.fit_edge)
    many = [dataclasses.replace(people[k % len(people)], identity=f"{k:02}") for k in range(sizes.people)]
    config = FitConfig(gaussians=sizes.fit_count, steps=sizes.steps, identities_per_device=sizes.people)
    if part.rehearse:
        config = dataclasses.replace(config, steps_per_call=sizes.steps, relocate_every=0, voxels=24, hold_out=4)
    for run in ("first",) if part.rehearse else ("first", "second"):  # the second one has nothing to compile
        begin = time.perf_counter()
        result = fit(many, config)
        seconds = time.perf_counter() - begin
        part.tell(**{f"{run}_seconds": seconds, "psnr": float(result.psnr.mean()), "diverged": len(result.failed)})


def compare(part: Part, suite: str, pattern: str) -> None:
    """A suite of ours and a peer's, in turns; a peer that is not there is a line that says so."""
    from bench.run import prepare
    from bench.timing import chosen
    from bench.workloads import SUITES

    one = chosen(SUITES["tiny"], "gsplat") if part.rehearse else chosen(SUITES[suite], pattern)
    _measured(part, suite, one.workloads, prepare, one.ratios)


def alone(part: Part, suite: str) -> None:
    """Our workloads of a suite, one after the other: each is told before the next begins."""
    from bench.run import prepare
    from bench.workloads import SUITES

    broken = []
    for work in SUITES[suite].workloads:
        if work.implementation == "jsplat":
            try:
                _measured(part, suite, [work], prepare)
            except ValueError as error:
                broken.append(str(error))
    if broken:
        raise ValueError("; ".join(broken))


def step_by_step(part: Part) -> None:
    """A step of the fit, part by part (`bench.profile`)."""
    from bench.profile import profile

    part.tell(profile=profile(1, part.sizes.count, part.sizes.edge, ROUNDS))


def tests(part: Part, names: str) -> None:
    """The kernels' tests on the device; the shape checks of the tests on processors need a package more."""
    what = ["tests/kernels/test_select.py", "-k", "older_gpus"] if part.rehearse else ["tests/kernels", "-k", names]
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", *what]
    command += ["--override-ini", "addopts=", "--override-ini", "faulthandler_timeout=60"]
    environment = {**os.environ, **({} if part.rehearse else {"JSPLAT_DEVICE_TESTS": "1"})}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    part.tell(tests=(done.stdout.strip().splitlines() or ["nothing was said"])[-1])
    if done.returncode:
        raise ValueError(f"pytest: {(done.stdout.strip().splitlines() or ['nothing'])[-1]}")


def hang(part: Part) -> None:
    """For rehearsals."""
    part.tell(begun="yes")
    while True:
        time.sleep(60)


def crash(part: Part) -> None:
    """For rehearsals."""
    part.tell(begun="yes")
    os.kill(os.getpid(), signal.SIGSEGV)


RUNS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        about, smallest, photo, lists, headline, stopping, bits, trace, profiled, fit_many, compare, alone,
        step_by_step, tests, hang, crash,
    )
}  # fmt: skip
WITHOUT_KERNELS = ("about", "hang", "crash", "tests")


def main() -> int:
    """Runs one part; what is wrong is raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("args", nargs="*")
    for name, kind in {"values": Path, "earlier": Path, "limit": float, "name": str}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of all memory would take longer than the part
    faulthandler.enable()
    faulthandler.dump_traceback_later(0.9 * given.limit)  # also if nobody is left to ask for it
    part = Part(given)
    if given.run not in WITHOUT_KERNELS:
        in_place(part)
    try:
        RUNS[given.run](part, *given.args)
    except Exception as error:
        if type(error).__name__ != "CannotRunError":
            raise
        part.tell(skipped=str(error))
        return NOT_HERE
    return 0


if __name__ == "__main__":
    sys.exit(main())
