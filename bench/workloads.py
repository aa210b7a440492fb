"""What is measured, as data. `bench/{raster,fits,networks}.py` make an entry run."""

import dataclasses
import os

from bench.timing import Ratio, Suite

CORES = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Raster:
    """Blending projected Gaussians.

    Attributes:
        implementation: "jsplat" (the best backend that works on the device), a name in `jsplat.kernels.blend.BACKENDS`,
            "dense" (the reference in float32), or a peer.
        mode: of a peer, see its module; of ours "two passes" (colours, then all other channels) or "scatter" (gradients
            summed by atomics: not the same bits on every run).
        scene: "headlike" (random, on an ellipsoid) or "fitted" (heads that the project's fit made).
        gradient: forward and backward, or forward alone.
        edge: of the square images, in pixels.
    """

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    scene: str = "headlike"
    images: int = 1
    count: int = 8000
    edge: int = 128
    channels: int = 3
    gradient: bool = True


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of Adam on colours and labels of fitted heads: render, L1 + SSIM + cross-entropy, backward, update."""

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    identities: int = 1
    count: int = 6000
    edge: int = 96


@dataclasses.dataclass(frozen=True)
class Fit:
    """Whole fits of procedural heads, starting points included; PSNR is measured on held-out views.

    Attributes:
        implementation: "jsplat" (all identities at once) or "two_models" (one after the other, colours and colour-coded
            labels apart, see `bench/peers/two_models.py`).
    """

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    identities: int = 8
    count: int = 2000
    size: int = 64
    views: int = 20
    steps: int = 100


@dataclasses.dataclass(frozen=True)
class Lift:
    """What every view says about every Gaussian of one fitted head: 19 channels, one backward pass a view."""

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    count: int = 6000
    edge: int = 96
    views: int = 16


@dataclasses.dataclass(frozen=True)
class Network:
    """BiSeNet on random pictures: inference, or one training step (three losses, AdamW)."""

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    batch: int = 1
    edge: int = 128
    training: bool = False
    depth: int = 18
    width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of square matrices: how fast a library multiplies on this machine when nothing else limits it."""

    name: str
    implementation: str = "jsplat"
    mode: str = ""
    edge: int = 1024


# The modes of the plain PyTorch rasterizer; what is compared is the fastest of them in the same run.
TORCH_MODES = tuple(dict.fromkeys(("batched, 1 threads", f"batched, {CORES} threads")))


def _pair(base: Raster | Step | Lift, modes: tuple[str, ...] = TORCH_MODES):
    """A workload and the same on the torch rasterizer, in all modes."""
    return (base, *(dataclasses.replace(base, name=n, implementation="torch", mode=m) for n, m in _named(base, modes)))


def _named(base, modes: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(f"{base.name}/torch {mode}", mode) for mode in modes]


def _faster(base, bound: float | None = None, modes: tuple[str, ...] = TORCH_MODES) -> Ratio:
    """How many times faster ours is than the best mode of the peer."""
    return Ratio(
        f"{base.name}: torch over jsplat", tuple(n for n, _ in _named(base, modes)), base.name, "higher", bound
    )


def _against_torch(*bases, bounds: dict[str, float] | None = None, modes=TORCH_MODES, rounds: int = 7) -> Suite:
    works = tuple(w for base in bases for w in _pair(base, modes))
    return Suite(works, tuple(_faster(b, (bounds or {}).get(b.name), modes) for b in bases), rounds)


def _against_gsplat(*bases: Raster, bounds: dict[str, float] | None = None) -> Suite:
    works, ratios = [], []
    for base in bases:
        modes = ("padded", "split") if base.channels == 22 else ("padded",)
        names = [f"{base.name}/gsplat {mode}" for mode in modes]
        works += [
            base,
            *(dataclasses.replace(base, name=n, implementation="gsplat", mode=m) for n, m in zip(names, modes)),
        ]
        bound = (bounds or {}).get(base.name)
        ratios.append(Ratio(f"{base.name}: gsplat over jsplat", tuple(names), base.name, "higher", bound))
    return Suite(tuple(works), tuple(ratios))


def _line(axis: str, values: tuple[int, ...], **centre) -> list[Raster]:
    """Forward and backward along one axis through the centre."""
    return [Raster(f"scaling {axis} {v}", **{**centre, axis: v}) for v in values]


_CPU_CENTRE = {"count": 8000, "edge": 128, "channels": 22}
_GPU_CENTRE = {"count": 50_000, "edge": 512, "channels": 22, "scene": "fitted"}


def _networks(batch: int, edge: int, training: bool, modes: tuple[str, ...]) -> Suite:
    kind = "training" if training else "inference"
    base = Network(f"bisenet {kind} {batch}x{edge}", batch=batch, edge=edge, training=training)
    peers = [dataclasses.replace(base, name=f"{base.name}/torch {m}", implementation="torch", mode=m) for m in modes]
    ratio = Ratio(f"{base.name}: torch over jsplat", tuple(p.name for p in peers), base.name, "higher", 1.0)
    products = ()
    if not training and batch > 1:  # once for each kind of device
        there = "gpu " if modes[0].startswith("cuda") else ""
        product = Product(f"{there}matrix product {PRODUCT}", edge=PRODUCT)
        plain = dict.fromkeys(m.replace(", channels_last", "") for m in modes if "compiled" not in m)
        others = [
            dataclasses.replace(product, name=n, implementation="torch", mode=m)
            for n, m in _named(product, tuple(plain))
        ]
        products = (product, *others)
    return Suite((base, *peers, *products), (ratio,), 5)


PRODUCT = 1024  # edge of the matrices
_CPU_MODES = (
    "1 threads, channels_last", f"{CORES} threads", f"{CORES} threads, channels_last",
    f"{CORES} threads, channels_last, bf16", f"{CORES} threads, channels_last, compiled",
)  # fmt: skip
_GPU_MODES = ("cuda, channels_last, bf16", "cuda, channels_last, bf16, compiled", "cuda, channels_last")
TWO_MODELS = "batched, 1 threads"


def _fits(*fits: Fit) -> Suite:
    """Whole fits once each, ours first; `bench.run` adds the ratios to the same PSNR."""
    peers = (
        dataclasses.replace(f, name=f"{f.name}/two models", implementation="two_models", mode=TWO_MODELS) for f in fits
    )
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
    "cpu-raster": _against_torch(
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
            for mode in (
                "batched, 1 threads",
                f"batched, {CORES} threads",
                "loop, 1 threads",
                f"loop, {CORES} threads",
                f"batched, {CORES} threads, compiled",
            )
        ),
        rounds=5,
    ),
    "cpu-scaling": _against_torch(
        *_line("count", (2000, 8000, 32000), **_CPU_CENTRE),
        *_line("channels", (3, 32), **_CPU_CENTRE),
        *_line("edge", (64, 256), **_CPU_CENTRE),
        *_line("images", (3, 8), **_CPU_CENTRE),
        modes=TORCH_MODES[:1],
        rounds=5,
    ),
    "cpu-step": _against_torch(
        Step("cpu step"),
        Step("cpu step, 8 identities", identities=8),
        Lift("cpu lift of 16 views"),
        modes=TORCH_MODES[:1],
        rounds=5,
    ),
    "cpu-fit": _fits(*(Fit(f"fit of 8, {n} steps", steps=n) for n in (50, 100))),
    "cpu-parser": _networks(4, 128, False, _CPU_MODES),
    "cpu-parser-training": _networks(4, 128, True, _CPU_MODES),
    "gpu-raster": _against_gsplat(
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
    "gpu-scaling": _against_gsplat(
        *_line("count", (30_000, 150_000), **_GPU_CENTRE),
        *_line("edge", (256, 512, 1024), **_GPU_CENTRE),
        *_line("images", (8, 32), **_GPU_CENTRE),
    ),
    "gpu-step": Suite(
        tuple(
            Step(f"gpu step, {b} identities/{i}", i, "", b, 50_000, 512)
            for b in (1, 8, 32)
            for i in ("jsplat", "gsplat")
        ),
        tuple(
            Ratio(
                f"gpu step, {b}: gsplat over jsplat",
                f"gpu step, {b} identities/gsplat",
                f"gpu step, {b} identities/jsplat",
                "higher",
                2.0,
            )
            for b in (1, 8, 32)
        ),
    ),
    "gpu-lift": Suite((Lift("gpu lift of 55 views", count=50_000, edge=512, views=55),)),
    "gpu-parser": _networks(64, 512, False, _GPU_MODES),
    "gpu-parser-1": _networks(1, 512, False, _GPU_MODES),
    "gpu-parser-training": _networks(64, 512, True, _GPU_MODES),
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a workload must reach by itself.

    Attributes:
        each: what its time is divided by.
        bound: most milliseconds; or, of `floor`, the least share of the floor.
        floor: compare with the floor of `bench.floor` on this machine instead.
    """

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
