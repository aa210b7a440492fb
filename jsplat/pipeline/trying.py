"""A little of every stage on the first person of a run, to see what it takes, with the run's own programs."""

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from jsplat.captures.capture import Capture
from jsplat.captures.index import Listed
from jsplat.captures.own_pixels import own_pixels
from jsplat.errors import InputError
from jsplat.fitting import Tried, try_fit
from jsplat.labels import EVIDENCE, bytes_of_lift
from jsplat.labels.opinions import Logits, Maps, Voter
from jsplat.parser import opinions, try_training
from jsplat.pipeline.elsewhere import Other, others_in
from jsplat.pipeline.first_labels import first_labels, voter_arrays
from jsplat.pipeline.packing import unpacked
from jsplat.pipeline.settling import Settled
from jsplat.pipeline.stages.label import label_capture
from jsplat.pipeline.stages.own import OwnMasks, write_overlay
from jsplat.pipeline.stages.render import render_novel, tables_of
from jsplat.pipeline.work_folder import load_arrays, save_arrays
from jsplat.raster.capacity import SharedCapacity
from jsplat.runtime.cost import Cost, Stopwatch, cost_of
from jsplat.runtime.view_blocks import VIEWS
from jsplat.training_sets.auxiliary import from_captures

PICTURES = 16  # that the parser looks at at a time
OWN = 2  # pictures whose masks are made in their own pixels


@dataclasses.dataclass(frozen=True)
class Measured:
    """What parts of the stages cost, and bytes that each needs on a device.

    Attributes:
        person: who was measured.
        costs: "parse", "label", "masks", "overlays": of a picture; "look": of the parser at one; "fit": of a step;
            "start": of a person's starting scene; "render": of a novel view; "student": of a step.
        memory: of "fit", "label" (a person each) and "student".
    """

    person: str
    costs: dict[str, Cost]
    memory: dict[str, int]


def try_stages(settled: Settled) -> Measured:
    """Measures the stages of a run on its first person; what is written lies in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        return _Trial(settled, Path(folder)).measured()


class _Trial:
    def __init__(self, settled: Settled, folder: Path):
        self.settled, self.config, self.folder = settled, settled.config, folder
        self.one: Listed = settled.listed[0]
        self.costs: dict[str, Cost] = {}
        self.memory: dict[str, int] = {}
        self.shared = SharedCapacity()

    def measured(self) -> Measured:
        stages, capture = self.settled.plan.stages, self.one.read()
        self._parse(capture.with_labels(None, None))
        if "fit" in stages:
            tried = self._fit(capture)
            if "label" in stages:
                views = np.unique(np.linspace(0, len(capture.images) - 1, VIEWS).astype(int))
                shown = capture.only(views)
                known = self._label(shown, views, tried)
                self._masks(shown, views, known, tried)
                if "render" in stages:
                    self._render(shown, known, tried)
                if "student" in stages:
                    self._student(shown, known)
        return Measured(self.one.identity, self.costs, self.memory)

    def _parse(self, capture: Capture) -> None:
        """First labels of all views, as the run has them."""
        voters, parser, flip = self.settled.voters, self.settled.voters.parser, self.config.flip
        watch, looks = Stopwatch(), Cost()
        if parser is None:
            first = voters.first_of(capture)
        else:
            first = Voter("parser", parser.labelset, opinions(parser, capture.images, flip=flip))
            some = capture.images[:PICTURES]
            looks = cost_of(lambda: opinions(parser, some, flip=flip)) * (1 / len(some))
            self.costs["look"] = looks * (1 / (1 + flip) / self.config.enlarge**2)
            watch = Stopwatch()
        save_arrays(self.folder / f"{capture.identity}.npz", **voter_arrays([first]), **voters.others_of(capture))
        self.costs["parse"] = looks + watch.cost() * (1 / len(capture.images))

    def _fit(self, capture: Capture) -> Tried:
        first = first_labels(self.folder, capture)
        seen = capture.with_labels(first.labels(), self.settled.classes)
        tried = try_fit(seen, self.config.fit, self.config.seed)
        self.costs |= {"start": tried.start, "fit": tried.step}
        self.memory["fit"] = tried.memory
        return tried

    def _label(self, shown: Capture, views: np.ndarray, tried: Tried) -> dict[str, np.ndarray]:
        """What the label stage finds from some of the views."""
        capture = self.one.unlabelled().read()
        first = jax.tree.map(lambda x: x[views], first_labels(self.folder, capture).opinions)
        others = [_some(other, views) for other in others_in(self.folder, capture)]
        path = self.folder / "label.npz"

        def label() -> None:
            scene, classes = tried.scene, self.settled.classes
            save_arrays(path, **label_capture(shown, scene, first, classes, self.config, self.shared, (), others))

        self.costs["label"] = _again([label], len(views))
        self.memory["label"] = self._bytes_of_label(shown, first, tried, len(capture.images))
        return unpacked(load_arrays(path))

    def _bytes_of_label(self, shown: Capture, first: Logits | Maps, tried: Tried, count: int) -> int:
        gaussians, classes = tried.scene.gaussians, len(self.settled.classes)
        capacity = self.shared.for_views(gaussians, shown.cameras)
        block = bytes_of_lift(gaussians, shown.cameras, first, capacity=capacity)
        # Evidence as long as it is voted on; the oracle's comes after.
        return block + 2 * min(EVIDENCE, 4 * count * gaussians.means.shape[0] * (classes + 1))

    def _masks(self, shown: Capture, views: np.ndarray, known: dict[str, np.ndarray], tried: Tried) -> None:
        own, masks = (
            own_pixels(self.one.path),
            OwnMasks(shown, known, tried.scene, self.settled.classes, self.config.mask),
        )
        few = list(enumerate(views.tolist()))[:OWN]

        def write(i: int, view: int) -> None:
            masks.write(self.folder / f"{i}.png", i, own[view], None)

        def draw(i: int, view: int) -> None:
            write_overlay(self.folder / f"{i}.jpg", own[view], self.folder / f"{i}.png", self.settled.classes)

        self.costs["masks"] = _again([lambda of=of: write(*of) for of in few], len(few))
        try:
            self.costs["overlays"] = _again([lambda of=of: draw(*of) for of in few], len(few))
        except InputError:  # the pictures are no longer there: the run names them, and draws none
            self.costs["overlays"] = Cost()

    def _render(self, shown: Capture, known: dict[str, np.ndarray], tried: Tried) -> None:
        views = dataclasses.replace(self.config.views, layout="random", count=VIEWS, min_coverage=0.0)
        config = dataclasses.replace(self.config, views=views)
        probabilities = tables_of(known)

        def render() -> None:
            novel = render_novel(
                shown, tried.scene, known["seen"], probabilities, self.settled.classes, config, self.shared
            )
            save_arrays(self.folder / "render.npz", images=novel.images, **novel.masks)

        self.costs["render"] = _again([render], VIEWS)

    def _student(self, shown: Capture, known: dict[str, np.ndarray]) -> None:
        teacher = self.settled.teacher
        assert teacher is not None  # without a parser no student is planned
        data = from_captures([shown.with_labels(known["refined"], self.settled.classes)])
        tried = try_training(teacher, data, self.config.finetune, self.config.seed)
        self.costs["student"], self.memory["student"] = tried.step, tried.memory


def _some(other: Other, views: np.ndarray) -> Other:
    return dataclasses.replace(other, labels=other.labels[views])


def _again(calls: Iterable, count: int) -> Cost:
    """Of one of `count` things that the calls do, the second time: the first time they compile."""
    calls = list(calls)
    for call in calls:
        call()
    return sum((cost_of(call) for call in calls), Cost()) * (1 / count)
