"""Programs of later stages are compiled while earlier ones work, on a thread of their own.

Shapes and settings say which programs these will be. Where compiling alone would need to know too much of a stage, the
stage itself works on a stand-in of the same shape, of whom nothing is to be seen.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.fitting import compile_fit
from jsplat.labels.opinions import Logits
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Architecture, compile_training, enlarged, new_parser, opinions
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.settling import Settled
from jsplat.pipeline.stages.label import label_capture, shared_capacity
from jsplat.raster.camera import Camera
from jsplat.raster.scene import Attributes, Gaussians, Scene
from jsplat.runtime.progress import log
from jsplat.runtime.stop import STOP
from jsplat.runtime.view_blocks import VIEWS

PICTURES = 16  # of a batch that the parser looks at


@dataclasses.dataclass(frozen=True)
class Expected:
    """What stages will work on.

    Attributes:
        pictures: of each capture, views, height and width.
        labelled: whether the captures have labels.
        classes, architecture: of the parser.
        config: nothing left open.
    """

    pictures: tuple[tuple[int, int, int], ...]
    labelled: bool
    classes: LabelSet
    architecture: Architecture
    config: RunConfig


class Ahead:
    """Compiles what stages will need, in their order, as long as the block lasts.

    A stage that begins says so (`needed`): what is being compiled for it is waited for, and what is not begun is left
    to the stage itself. That nothing could be compiled ahead stops nobody: the stage will say what is wrong.

    Args:
        stages: those that will come; nothing is compiled for those without a function here.
        expected: what they will work on.
    """

    def __init__(self, stages: Iterable[str], expected: Expected):
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "compiles")
        wanted = [name for name in stages if name in _possible()]
        self._coming = {name: self._pool.submit(_compile, name, expected) for name in wanted}

    def needed(self, stage: str) -> None:
        """Returns when nobody else compiles for a stage."""
        if (coming := self._coming.get(stage)) is not None and not coming.cancel():
            coming.result()

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def of_run(settled: Settled) -> Ahead:
    """For the stages of a run that are not there yet, but the first, which begins at once."""
    teacher, voters, config = settled.teacher, settled.voters, settled.config
    coming = [name for name in settled.plan.stages[1:] if not (settled.out / name).exists()]
    if teacher is None:
        coming = [name for name in coming if name == "fit"]
    elif voters.others:
        coming = [name for name in coming if name != "label"]
    network = config.teacher.architecture if teacher is None else teacher.architecture
    pictures = tuple(one.shape for one in settled.listed)
    labelled = settled.listed[0].labelset is not None
    return Ahead(coming, Expected(pictures, labelled, voters.classes, network, config))


def _possible() -> tuple[str, ...]:
    """For which stages this process compiles ahead.

    XLA chooses among an accelerator's convolutions by timing them, which work beside it would mislead; and what a
    stand-in takes of its memory nobody has planned for. Several processes must compile in the same order.
    """
    if jax.process_count() > 1:
        return ()
    return tuple(_PROGRAMS) if jax.default_backend() == "cpu" else ("fit",)


def compile_for(stage: str, expected: Expected) -> None:
    """Compiles what one stage will need; what was compiled once is there as long as the process is."""
    _PROGRAMS[stage](expected)


def _compile(stage: str, expected: Expected) -> None:
    if STOP.is_set():
        return
    try:
        compile_for(stage, expected)
    except Exception as error:  # whatever it is, the stage itself meets it again
        log("nothing is compiled ahead", stage=stage, error=repr(error))


def _training(part: str, expected: Expected) -> None:
    """`part` of the settings, "teacher" or "finetune", says how."""
    start, config = new_parser(expected.architecture, expected.classes, 0), expected.config
    compile_training(start, getattr(config, part), config.size)


@functools.lru_cache(1)
def _opinions(expected: Expected) -> Logits:
    """Of a parser that has learnt nothing, on as many pictures as it looks at at a time."""
    parser = enlarged(new_parser(expected.architecture, expected.classes, 0), expected.config.enlarge)
    views, *size = expected.pictures[0]
    pictures = np.zeros((min(views, PICTURES), *size, 3), np.uint8)
    return opinions(parser, pictures, flip=expected.config.flip)


def _fit(expected: Expected) -> None:
    compile_fit(expected.pictures, len(expected.classes), expected.config.fit)


def _label(expected: Expected) -> None:
    config, classes = expected.config, expected.classes
    capture, scene = _nobody(expected)
    first = jax.tree.map(lambda x: x[: len(capture.images)], _opinions(expected))
    label_capture(capture, scene, first, classes, config, shared_capacity(classes, config))


def _nobody(expected: Expected) -> tuple[Capture, Scene]:
    """A stand-in, in one block of views, whose Gaussians lie behind all cameras: large programs are those of blocks."""
    (views, height, width), classes = expected.pictures[0], expected.classes
    views = min(views, VIEWS)
    pose, lens = np.eye(4), np.diag([width, width, 1.0])
    pose[2, 3], lens[:2, 2] = 2, (width / 2, height / 2)
    poses, lenses = (jnp.asarray(np.tile(x, (views, 1, 1)), jnp.float32) for x in (pose, lens))
    cameras = Camera(poses, lenses, width, height)
    shape = views, height, width
    labels, known = (np.zeros(shape, np.uint8), classes) if expected.labelled else (None, None)
    capture = Capture("nobody", np.zeros((*shape, 3), np.uint8), labels, cameras, known, np.eye(4), (0, 0, 0))
    count, sh = expected.config.fit.gaussians, (expected.config.fit.sh_degree + 1) ** 2
    means = jnp.tile(jnp.asarray([0.0, 0.0, -9.0]), (count, 1))
    quats = jnp.tile(jnp.asarray([1.0, 0.0, 0.0, 0.0]), (count, 1))
    gaussians = Gaussians(means, quats, jnp.full((count, 3), -6.0, jnp.float32), jnp.zeros(count))
    return capture, Scene(gaussians, Attributes(jnp.zeros((count, sh, 3)), jnp.zeros((count, len(classes)))))


_PROGRAMS: dict[str, Callable[[Expected], object]] = {
    "teacher": functools.lru_cache(8)(functools.partial(_training, "teacher")),
    "student": functools.lru_cache(8)(functools.partial(_training, "finetune")),
    "parse": _opinions,
    "fit": functools.lru_cache(8)(_fit),
    "label": functools.lru_cache(8)(_label),
}
