"""What a run will take, by arithmetic: pictures, disk, memory of the host."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from jsplat.captures.index import Listed
from jsplat.errors import InputError
from jsplat.parser.resize import network_size
from jsplat.pipeline.config import RunConfig
from jsplat.raster.rasterizer import default_backend
from jsplat.runtime.devices import host_memory

_STRIDE = 8  # of the network's logits


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes that a run needs, as far as shapes say it.

    Attributes:
        first_labels, scenes: on disk; neither shrinks much when it is compressed.
        training: in memory, the pictures and masks that the students learn from, on the host and on the device.
    """

    first_labels: int
    scenes: int
    training: int


def needs(
    shapes: Sequence[tuple[int, int, int]], classes: int, config: RunConfig, student_people: int, input_size: int | None
) -> Needs:
    """Arithmetic alone.

    Args:
        shapes: views, height and width of each capture, as it is used.
        classes: of the parser.
        config: with nothing left open (`RunConfig.for_side`).
        student_people: how many of the captures the students learn from; 0 where none is trained.
        input_size: of the parser's network, whose logits are kept; None where there are label maps alone.
    """

    def first(height: int, width: int) -> int:
        if input_size is None:
            return height * width
        _, (down, across) = network_size(height, width, input_size)
        return (1 + config.flip) * classes * 2 * (down // _STRIDE) * (across // _STRIDE)

    sh = 3 * (config.fit.sh_degree + 1) ** 2
    pictures = (
        sum(v for v, _, _ in shapes) * student_people // max(len(shapes), 1) + student_people * config.views.wanted
    )
    return Needs(
        first_labels=sum(v * first(h, w) for v, h, w in shapes),
        scenes=len(shapes) * config.fit.gaussians * 4 * (11 + sh + classes),
        training=2 * 4 * pictures * config.size**2,
    )


def check_resources(need: Needs, free: int, memory: int, size: int) -> None:
    """InputError, naming what would fit, where disk or memory of this host cannot hold a run.

    Args:
        free: bytes on the disk of OUT; both as `available` counts them.
        memory: bytes of this host.
        size: at which pictures are used.
    """
    disk = need.first_labels + need.scenes
    if disk > free:
        fits = int(size * (free / disk) ** 0.5)
        hint = f"`--set size={fits}` fits, and so do fewer captures, or an OUT on another disk"
        raise InputError("OUT: disk", wanted=f"at least {gigabytes(disk)} free", got=gigabytes(free), hint=hint)
    if need.training > memory:
        fits = int(size * (memory / need.training) ** 0.5)
        hint = f"`--set size={fits}` fits, and so do fewer people to learn from (`--set student_people=N`)"
        wanted = f"at least {gigabytes(need.training)} for what the students learn from"
        raise InputError("memory", wanted=wanted, got=gigabytes(memory), hint=hint)


def available(out: Path) -> tuple[int, int]:
    """Bytes on the disk of OUT that are free or hold its first labels and scenes already, and memory of this host."""
    there = next(above for above in (out.resolve(), *out.resolve().parents) if above.exists())
    held = sum(p.stat().st_size for name in ("parse", "fit") for p in out.glob(f"*{name}*/**/*") if p.is_file())
    return shutil.disk_usage(there).free + held, host_memory()


def describe(listed: Sequence[Listed], stages: Sequence[str], config: RunConfig, need: Needs, free: int) -> list[str]:
    """Lines for people: who, how many pictures of what size, which stages, how much disk and memory."""
    kinds: dict[tuple[int, int], int] = {}
    for one in listed:
        kinds[one.shape[2], one.shape[1]] = kinds.get((one.shape[2], one.shape[1]), 0) + one.shape[0]
    pictures = ", ".join(f"{count} pictures of {w}x{h}" for (w, h), count in kinds.items())
    return [
        f"{len(listed)} people, {pictures}",
        f"stages: {', '.join(stages)}",
        f"rasterizer: {default_backend()}",
        f"fit: {config.fit.gaussians:,} Gaussians and {config.fit.steps:,} steps for each of them",
        f"disk: {gigabytes(need.first_labels)} for first labels and {gigabytes(need.scenes)} for scenes of"
        f" {gigabytes(free)} free; masks and renders come on top",
        f"memory: {gigabytes(need.training)} for what the students learn from",
    ]


def gigabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.3g} GB"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
