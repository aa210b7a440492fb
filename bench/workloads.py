"""What is measured, as data. `bench/{raster,fits,networks}.py` make an entry run."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

from bench.timing import Ratio, Suite
from jsplat.kernels.blend import BACKENDS

CORES = os.cpu_count() or 1
_HISTORY = {"count": "gaussians", "images": "identities", "batch": "images", "size": "edge"}


@dataclasses.dataclass(frozen=True)
class Work:
    """What all workloads have.

    Attributes:
        implementation: "jsplat" (the best backend that works on the device), a name in `jsplat.kernels.blend.BACKENDS`,
            or what the kind of workload knows besides.
        mode: the implementation's own, see its module.
    """

    name: str
    implementation: str = "jsplat"
    mode: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether jsplat runs it, on whichever backend."""
        return self.implementation in ("jsplat", *BACKENDS)

    def ours(self) -> Self:
        """The same as we run it, without a name."""
        return replace(self, name="", implementation="jsplat", mode="")

    def described(self) -> dict[str, Any]:
        """Its kind and numbers, under the names that the history has."""
        fields = {_HISTORY.get(key, key): value for key, value in dataclasses.asdict(self).items() if key != "name"}
        return {"kind": type(self).__name__.lower(), **fields}


@dataclasses.dataclass(frozen=True)
class Raster(Work):
    """Blending projected Gaussians.

    Attributes:
        implementation: also "dense" (the reference in float32), or a peer: "torch", "gsplat", "opensplat".
        mode: of ours "two passes" (colours, then all other channels), "scatter" (gradients summed by atomics: not the
            same bits on every run) or "one core" (all threads of the process on one).
        scene: "headlike" (random, on an ellipsoid) or "fitted" (heads that the project's fit made).
        gradient: forward and backward, or forward alone.
        edge: of the square images, in pixels.
    """

    scene: str = "headlike"
    images: int = 1
    count: int = 8000
    edge: int = 128
    channels: int = 3
    gradient: bool = True


@dataclasses.dataclass(frozen=True)
class Step(Work):
    """One step of Adam on colours and labels of fitted heads: render, L1 + SSIM + cross-entropy, backward, update."""

    identities: int = 1
    count: int = 6000
    edge: int = 96
    channels: int = 22


@dataclasses.dataclass(frozen=True)
class Fit(Work):
    """Whole fits of procedural heads, starting points included; PSNR is measured on held-out views.

    Ours fits all identities at once; "two_models" one after the other, colours and colour-coded labels apart.
    """

    identities: int = 8
    count: int = 2000
    size: int = 64
    views: int = 20
    steps: int = 100


@dataclasses.dataclass(frozen=True)
class Lift(Work):
    """What every view says about every Gaussian of one fitted head: 19 channels, one backward pass a view."""

    count: int = 6000
    edge: int = 96
    views: int = 16
    channels: int = 19


@dataclasses.dataclass(frozen=True)
class Network(Work):
    """BiSeNet on random pictures: inference, or one training step (three losses, AdamW)."""

    batch: int = 1
    edge: int = 128
    training: bool = False
    depth: int = 18
    width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Product(Work):
    """A product of square matrices: how fast a library multiplies on this machine when nothing else limits it."""

    edge: int = 1024


# The modes of the plain PyTorch rasterizer; what is compared is the fastest of them in the same run.
ONE_THREAD, ALL_THREADS = "1 threads", f"{CORES} threads"
TORCH_MODES = tuple(dict.fromkeys((f"batched, {ONE_THREAD}", f"batched, {ALL_THREADS}")))
_LOOPS = tuple(mode.replace("batched", "loop") for mode in TORCH_MODES)
TWO_MODELS = TORCH_MODES[0]
_CPU_MODES = (f"{ONE_THREAD}, channels_last", ALL_THREADS, f"{ALL_THREADS}, channels_last")
_CPU_MODES += tuple(f"{_CPU_MODES[-1]}, {more}" for more in ("bf16", "compiled"))
_GPU_MODES = ("cuda, channels_last, bf16", "cuda, channels_last, bf16, compiled", "cuda, channels_last")
_CPU_CENTRE = {"count": 8000, "edge": 128, "channels": 22}
_GPU_CENTRE = {"count": 50_000, "edge": 512, "channels": 22, "scene": "fitted"}


def _by(peer: str, base: Work, modes: Iterable[str]) -> tuple[Any, ...]:
    """The workload as a peer runs it, in each mode."""
    return tuple(replace(base, name=f"{base.name}/{peer} {m}", implementation=peer, mode=m) for m in modes)


def _against(
    peer: str, modes: tuple[str, ...], *bases: Any, bounds: Mapping[str, float] | None = None, rounds: int = 7
) -> Suite:
    """Workloads beside the same on a peer, and how many times faster ours is than the best mode of the peer."""
    works, ratios = [], []
    for base in bases:
        peers = _by(peer, base, (m for m in modes if m != "split" or base.channels == 22))
        over, bound = tuple(work.name for work in peers), (bounds or {}).get(base.name)
        works += [base, *peers]
        ratios.append(Ratio(f"{base.name}: {peer} over jsplat", over, base.name, "higher", bound))
    return Suite(tuple(works), tuple(ratios), rounds)


_torch, _torch_alone = (functools.partial(_against, "torch", modes) for modes in (TORCH_MODES, TORCH_MODES[:1]))
_gsplat = functools.partial(_against, "gsplat", ("padded", "split"))  # split where 22 is no size of its kernels


def _line(axis: str, values: tuple[int, ...], **centre) -> list[Raster]:
    """Forward and backward along one axis through the centre."""
    return [Raster(f"scaling {axis} {v}", **{**centre, axis: v}) for v in values]


def _with_xla(*bases: Any) -> tuple[Any, ...]:
    """Workloads on the best backend of the device, and the same on XLA's loop."""
    return tuple(work for b in bases for work in (b, replace(b, name=f"{b.name}/xla", implementation="xla")))


def _networks(batch: int, edge: int, training: bool, modes: tuple[str, ...], products: str | None = None) -> Suite:
    """A network in all modes; `products` names the matrix products beside it, whose modes need no layout."""
    base = Network(
        f"bisenet {'training' if training else 'inference'} {batch}x{edge}", batch=batch, edge=edge, training=training
    )
    suite = _against("torch", modes, base, bounds={base.name: 1.0}, rounds=5)
    if products is None:
        return suite
    product = Product(f"{products} {Product.edge}")
    plain = dict.fromkeys(m.replace(", channels_last", "") for m in modes if "compiled" not in m)
    return replace(suite, workloads=(*suite.workloads, product, *_by("torch", product, plain)))


def _step(identities: int, implementation: str) -> str:
    return f"gpu step, {identities} identities/{implementation}"


def _fits(*fits: Fit) -> Suite:
    """Whole fits once each, ours first; `bench.run` adds the ratios to the same PSNR."""
    peers = (replace(f, name=f"{f.name}/two models", implementation="two_models", mode=TWO_MODELS) for f in fits)
    return Suite((*fits, *peers), rounds=1)


SUITES = {
    "cpu-small": Suite(
        workloads=(
            Raster("forward_rgb", gradient=False),
            Raster("forward_22", channels=22, gradient=False),
            Raster("train_rgb"),
            Raster("train_22", channels=22),
            Raster("train_22_identities_8", channels=22, images=8),
            Raster("train_4000", count=4000),
            Raster("dense_4000", count=4000, implementation="dense"),
        ),
        ratios=(
            Ratio("channels_22_over_3", "train_22", "train_rgb", "lower", 2.0),
            Ratio("identities_8_over_1", "train_22_identities_8", "train_22", "lower", 8.5),
            Ratio("dense_over_xla", "dense_4000", "train_4000", "higher", 20.0),
        ),
    ),
    "tiny": Suite(  # seconds: that everything runs, on any machine
        workloads=(
            Raster("train_rgb", count=40, edge=24),
            Raster("tiny two passes", count=40, edge=24, channels=5, mode="two passes"),
            Raster("tiny scatter", count=40, edge=24, mode="scatter"),
            Raster("dense", count=40, edge=24, implementation="dense"),
            Raster("torch", count=40, edge=24, implementation="torch", mode="batched, 1 threads"),
            Raster("gsplat", count=40, edge=24, implementation="gsplat", mode="padded"),
        ),
        ratios=(Ratio("dense_over_xla", "dense", "train_rgb", "higher"),),
        rounds=5,
    ),
    "cpu-raster": _torch(
        Raster("cpu forward 3", gradient=False),
        Raster("cpu forward 22", channels=22, gradient=False),
        Raster("cpu train 3"),
        Raster("cpu train 22", channels=22),
        Raster("cpu train 22, fitted", channels=22, scene="fitted", count=6000),
        Raster("cpu train 22, 8 identities", channels=22, images=8),
        bounds={"cpu train 22": 3.0},
    ),
    "cpu-modes": Suite(  # which form of the plain PyTorch rasterizer is the one to compare with
        workloads=tuple(
            Raster(f"torch {mode}", channels=22, implementation="torch", mode=mode)
            for mode in (*TORCH_MODES, *_LOOPS, f"{TORCH_MODES[-1]}, compiled")
        ),
        rounds=5,
    ),
    "cpu-scaling": _torch_alone(
        *_line("count", (2000, 8000, 32000), **_CPU_CENTRE),
        *_line("channels", (3, 32), **_CPU_CENTRE),
        *_line("edge", (64, 256), **_CPU_CENTRE),
        *_line("images", (3, 8), **_CPU_CENTRE),
        rounds=5,
    ),
    "cpu-step": _torch_alone(
        Step("cpu step"),
        Step("cpu step, 8 identities", identities=8),
        Lift("cpu lift of 16 views"),
        rounds=5,
    ),
    "cpu-kernel": Suite(  # what the C++ kernel gives over XLA's loop, PyTorch, and one core
        workloads=(
            *_with_xla(
                Raster("kernel train 22", channels=22),
                Raster("kernel train 22, 8 identities", channels=22, images=8),
                Raster("kernel train 3"),
                Step("kernel step"),
                Step("kernel step, 8 identities", identities=8),
                Lift("kernel lift of 16 views"),
            ),
            Raster("kernel train 22, 8 identities/one core", channels=22, images=8, mode="one core"),
            *_by("torch", Raster("kernel train 22", channels=22), TORCH_MODES),
            Raster("kernel train 3/opensplat", implementation="opensplat"),
        ),
        ratios=(
            *(
                Ratio(f"{name}: xla over cpu", f"{name}/xla", name, "higher", bound)
                for name, bound in (
                    ("kernel train 22", 3.5),
                    ("kernel train 22, 8 identities", 3.5),
                    ("kernel train 3", None),
                    ("kernel step", 2.0),
                    ("kernel step, 8 identities", 2.0),
                    ("kernel lift of 16 views", None),
                )
            ),
            Ratio(
                "kernel train 22: torch over cpu",
                tuple(f"kernel train 22/torch {mode}" for mode in TORCH_MODES),
                "kernel train 22",
                "higher",
                10.0,
            ),
            Ratio("kernel train 3: opensplat over cpu", "kernel train 3/opensplat", "kernel train 3", "higher"),
            Ratio(
                "kernel: one core over two",
                "kernel train 22, 8 identities/one core",
                "kernel train 22, 8 identities",
                "higher",
                1.8,
            ),
        ),
    ),
    "cpu-kernel-fit": Suite(
        _with_xla(Fit("kernel fit of 8, 100 steps", steps=100)),
        (
            Ratio(
                "kernel fit of 8, 100 steps: xla over cpu",
                "kernel fit of 8, 100 steps/xla",
                "kernel fit of 8, 100 steps",
                "higher",
                2.0,
            ),
        ),
        rounds=3,
    ),
    "cpu-fit": _fits(*(Fit(f"fit of 8, {n} steps", steps=n) for n in (50, 100))),
    "cpu-parser": _networks(4, 128, False, _CPU_MODES, "matrix product"),
    "cpu-parser-training": _networks(4, 128, True, _CPU_MODES),
    "cpu-parser-512": replace(_networks(2, 512, True, _CPU_MODES[2:3]), rounds=3),
    "gpu-raster": _gsplat(
        *(
            Raster(f"gpu {kind} {c}", gradient=kind == "train", **{**_GPU_CENTRE, "channels": c})
            for kind in ("forward", "train")
            for c in (3, 8, 22, 32)
        ),
        bounds={"gpu forward 3": 1.3, "gpu forward 22": 1.8, "gpu train 3": 1.5, "gpu train 22": 2.5},
    ),
    "gpu-own": Suite(  # against ourselves
        workloads=(
            Raster("gpu own 22", **_GPU_CENTRE),
            Raster("gpu own 22, 32 identities", images=32, **_GPU_CENTRE),
            Raster("gpu own 3", **{**_GPU_CENTRE, "channels": 3}),
            Raster("gpu own 22, two passes", mode="two passes", **_GPU_CENTRE),
            Raster("gpu own 22, scatter", mode="scatter", **_GPU_CENTRE),
        ),
        ratios=(
            Ratio("gpu 22 channels over 3", "gpu own 22", "gpu own 3", "lower", 1.6),
            Ratio("gpu two passes over one", "gpu own 22, two passes", "gpu own 22", "higher", 1.5),
            Ratio("gpu 32 identities over 1", "gpu own 22, 32 identities", "gpu own 22", "lower", 16.0),
            Ratio("gpu deterministic over scatter", "gpu own 22", "gpu own 22, scatter", "lower", 1.3),
        ),
    ),
    "gpu-scaling": _gsplat(
        *_line("count", (30_000, 150_000), **_GPU_CENTRE),
        *_line("edge", (256, 512, 1024), **_GPU_CENTRE),
        *_line("images", (8, 32), **_GPU_CENTRE),
    ),
    "gpu-step": Suite(
        tuple(Step(_step(b, i), i, "", b, 50_000, 512) for b in (1, 8, 32) for i in ("jsplat", "gsplat")),
        tuple(
            Ratio(f"gpu step, {b}: gsplat over jsplat", _step(b, "gsplat"), _step(b, "jsplat"), "higher", 2.0)
            for b in (1, 8, 32)
        ),
    ),
    "gpu-lift": Suite((Lift("gpu lift of 55 views", count=50_000, edge=512, views=55),)),
    "gpu-parser": _networks(64, 512, False, _GPU_MODES, "gpu matrix product"),
    "gpu-parser-1": _networks(1, 512, False, _GPU_MODES),
    "gpu-parser-training": _networks(64, 512, True, _GPU_MODES),
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """The most milliseconds of a workload, divided by `each`; or the least share of its floor (`bench.floor`)."""

    name: str
    workload: str
    bound: float
    each: int = 1
    floor: bool = False


LIMITS = (
    Limit("forward + backward, one view, ms", "gpu own 22", 0.6),
    Limit("training step of 32 identities, ms each", "gpu step, 32 identities/jsplat", 0.8, each=32),
    Limit("label lift of 55 views, ms", "gpu lift of 55 views", 50.0),
    Limit("share of the floor, 32 identities", "gpu own 22, 32 identities", 0.1, floor=True),
)
# Of the GPU that the limits are meant for: float32 operations and bytes a second (one H200, by its makers).
PEAK_OPERATIONS, PEAK_BYTES = 67e12, 4.8e12
