"""How long the rest of a run will take, told as it goes on: from what is done, and proportions for what is not."""

import datetime
from collections.abc import Mapping

import jax

from jsplat.labels import METHODS
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.estimate import duration
from jsplat.pipeline.forecast import seconds
from jsplat.pipeline.settling import Settled
from jsplat.pipeline.students import is_student
from jsplat.runtime.cost import Cost
from jsplat.runtime.devices import is_first_host
from jsplat.runtime.progress import Progress, log, narrate

# Proportions of the runs in bench/history, on processors: over a step of the fit, a render of all classes or its
# backward pass, and a novel view with its masks; over a look at a picture, that picture in a training step.
PASS, VIEW, TAUGHT = 0.43, 3.0, 3.0
_MEASURED = 2  # lines of progress, before which compiling counts


class Outlook:
    """Tells people, at the first steps of the fit and before each stage after it, how long the rest will take.

    Args:
        done: seconds of each stage that is done; it grows.
    """

    def __init__(self, settled: Settled, done: Mapping[str, float]):
        self._settled, self._done = settled, done
        self._step: float | None = None
        self._lines: list[tuple[int, float]] = []

    def begins(self, stage: str) -> None:
        """A stage that is not done yet."""
        if stage not in ("parse", "fit", "masks", "overlays"):
            self._tell()

    def watch(self, progress: Progress) -> None:
        """Listens to the fit."""
        if progress.what != "fit" or self._step is not None or progress.done >= progress.total:
            return
        self._lines.append((progress.done, progress.last - progress.start))
        if len(self._lines) == _MEASURED:
            (done, begun), (more, now) = self._lines
            fit = (now - begun) / (more - done) * progress.total
            self._step = self._each(fit)
            self._tell()

    def _each(self, fit: float) -> float:
        """Seconds of a step of one person, alone on a device."""
        people = len(self._settled.listed)
        return fit * min(jax.local_device_count(), people) / (self._settled.config.fit.steps * people)

    def _tell(self) -> None:
        found = seconds(self._settled, self._costs())
        rest = {name: of for name, of in found.items() if name not in self._done}
        if not rest or not is_first_host():
            return
        whole = sum(rest.values())
        ends = (datetime.datetime.now() + datetime.timedelta(seconds=whole)).strftime("%a %H:%M")
        parts = ", ".join(f"{name} {duration(of)}" for name, of in rest.items())
        log("run foretells", seconds={name: round(of, 1) for name, of in rest.items()})
        narrate(f"run: about {duration(whole)} more, until {ends}: {parts}")

    def _costs(self) -> dict[str, Cost]:
        """What is known by now of a picture, a step or a view; the wait for others at work is in it."""
        settled, config, done = self._settled, self._settled.config, self._done
        pictures = sum(one.shape[0] for one in settled.listed)
        costs: dict[str, Cost] = {}
        if "parse" in done and settled.teacher is not None:
            look = done["parse"] / pictures / (1 + config.flip) / config.enlarge**2
            costs |= {"look": Cost(look), "student": Cost(TAUGHT * config.finetune.batch * look)}
        step = self._step
        if step is None and "fit" in done:
            step = self._each(done["fit"])
        if step is not None:
            passes = sum(_passes(config, one.labelset is not None) * one.shape[0] for one in settled.listed) / pictures
            costs |= {"fit": Cost(step), "label": Cost(PASS * passes * step), "render": Cost(VIEW * step)}
        taught = [done[name] for name in done if is_student(name)]
        if taught:
            costs["student"] = Cost(taught[-1] / config.finetune.steps)
        return costs


def _passes(config: RunConfig, truth: bool) -> int:
    """Renders of all classes, forward or backward, of a picture in the label stage."""
    sharpened = 1 + 2 * config.sharpen.rounds
    count = 1 + sharpened + 2
    if truth:
        count += 1 + sharpened + 1
    if truth and config.ablation:
        count += len(METHODS) - 1 + sharpened + 1 + 2 + (config.fit.label_weight > 0)
    return count
