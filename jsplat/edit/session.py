"""What is open for edits and what was said so far, in the run (`jsplat.edit.edits_on_disk`): a kill loses nothing.

A drawing is written first. Masks and lines of the log, `edits/edits.jsonl` (one per saved edit), that a kill kept from
being written are made up for at the next start, and so are votes on another geometry than today's.
Nothing here is written for looking at a run: its later stages are done again when these files change.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jsplat.edit import edits_on_disk
from jsplat.edit.evidence import Outcome, edit, edit_all
from jsplat.edit.head import UNTOUCHED, EditConfig, Head
from jsplat.edit.queue import QueueConfig, rank
from jsplat.errors import InputError
from jsplat.files.atomic import write_bytes
from jsplat.files.lock import NAME, ONE_RUN, held
from jsplat.labelsets.labelset import IGNORE, LabelSet
from jsplat.raster.camera import Camera

HEADS_IN_MEMORY = 2  # a head of 56 views at 256 pixels takes about 0.7 GB


@dataclasses.dataclass(frozen=True)
class HeadViews:
    """What the page shows of a head before anything is voted on again.

    Attributes:
        gains: `expected_gains` of its views.
    """

    images: UInt8[np.ndarray, "v h w 3"]
    labels: UInt8[np.ndarray, "v h w"]
    confidence: Float[np.ndarray, "v h w"]
    cameras: Camera
    yaw: Float[np.ndarray, " v"]
    pitch: Float[np.ndarray, " v"]
    gains: Float[np.ndarray, " v"]


@dataclasses.dataclass(frozen=True)
class Ready:
    """A head that can be voted on, and its colours as the geometry shows them (view -> sRGB "h w 3")."""

    head: Head
    render: Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """How a head is read: quickly to be looked at, slowly to be edited."""

    look: Callable[[], HeadViews]
    ready: Callable[[], Ready]


class Outdated(Exception):
    """Somebody else saved this view in the meantime."""


class Session:
    """The heads of a run under edit; safe to use from many threads.

    Args:
        folder: the run; everything is written below its `edits`, but for the run's lock, held until `close`.
        sources: by identity.

    Raises:
        InputError: another process works on the run, or an identity that is no file name.
    """

    def __init__(
        self,
        folder: Path,
        sources: dict[str, Source],
        labelset: LabelSet,
        config: EditConfig,
        queue: QueueConfig,
    ):
        self.names, self.labelset, self.config, self.queue_config = tuple(sources), labelset, config, queue
        self.run, self.folder = folder, edits_on_disk.inside_run(folder, edits_on_disk.FOLDER)
        self._sources, self._lock = sources, threading.RLock()
        self._sights: dict[str, HeadViews] = {}
        self.failed: dict[str, str] = {}  # heads that could not be read, and why
        self._ready: dict[str, concurrent.futures.Future[Ready]] = {}
        self._looker = concurrent.futures.ThreadPoolExecutor(1)
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._unwritten: dict[str, Head] = {}  # heads whose latest vote is not on disk yet
        self._bases: dict[str, str] = {}  # `label_stamp` of the heads that were read
        self._refused: dict[str, InputError] = {}  # heads whose drawings cannot be used
        self._revisions: dict[tuple[str, int], int] = {}
        self.log = self.folder / "edits.jsonl"
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(folder / NAME, ONE_RUN))
            self._layers = {name: self._read_layers(name) for name in self.names}
            # As the last vote had them: a save that waits for its head must not be taken for voted on already.
            self._voted = {name: dict(layers) for name, layers in self._layers.items()}
            self._recover_log()
            self._alone = stack.pop_all()
        for name in self.names:
            self._looker.submit(self._look_at, name)
            if name not in self._refused and not edits_on_disk.is_voted_on(folder, name, self._layers[name]):
                self.ready(name)

    def close(self) -> None:
        """Writes what is not written yet, and lets others open the run."""
        self._looker.shutdown(cancel_futures=True)
        self._worker.shutdown(cancel_futures=True)
        for name in list(self._unwritten):
            self._write_masks(name)
        self._alone.close()

    def _read_layers(self, name: str) -> dict[int, np.ndarray]:
        edits_on_disk.inside_run(self.folder, name)
        try:
            return edits_on_disk.layers_of(self.run, name, self.labelset)
        except InputError as error:  # the other heads can be edited
            self._refused[name] = error
            return {}

    def _recover_log(self) -> None:
        """Drops a torn last line, and adds lines for saved edits whose line was never written."""
        data = self.log.read_bytes() if self.log.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            write_bytes(self.log, whole)
        known = {}
        for line in whole.decode().splitlines():
            entry = json.loads(line)
            known[entry["identity"], entry["view"]] = entry["digest"]
        for name in self.names:
            drawn = {} if name in self._refused else edits_on_disk.read_layers(self.run, name, self.labelset)
            for view, layer in drawn.items():
                if known.get((name, view)) != edits_on_disk.digest(layer):
                    self._write_line(name, view, layer, {"recovered": True})

    def _look_at(self, name: str) -> None:
        try:
            self.sight(name)
        except Exception as error:  # whatever it is, the other heads can be edited
            self.failed[name] = str(error)

    def sight(self, name: str) -> HeadViews:
        """A head to look at; read once."""
        with self._lock:
            found = self._sights.get(name)
        if found is None:
            if name in self._refused:
                raise self._refused[name]
            found = self._sources[name].look()
            edits_on_disk.check_pictures(self.run, name, found.images)
            with self._lock:
                self._sights[name] = found
        return found

    def sights(self) -> dict[str, HeadViews]:
        """The heads that have been read so far."""
        with self._lock:
            return dict(self._sights)

    def ready(self, name: str) -> "concurrent.futures.Future[Ready]":
        """A head to vote on; being made ready in the background."""
        with self._lock:
            if name not in self._ready:
                while len(self._ready) >= HEADS_IN_MEMORY:
                    self._ready.pop(next(iter(self._ready)))
                self._ready[name] = self._worker.submit(self._make_ready, name)
            self._ready[name] = self._ready.pop(name)  # the most recent one last
            return self._ready[name]

    def _make_ready(self, name: str) -> Ready:
        if name in self._refused:
            raise self._refused[name]
        if self._layers[name]:
            self.sight(name)  # which looks whether the photographs are still those that were drawn on
        self._bases[name] = edits_on_disk.label_stamp(self.run, name)
        made = self._sources[name].ready()
        with self._lock:
            layers = dict(self._voted[name])
        edit_all(made.head, layers)
        if not edits_on_disk.is_voted_on(self.run, name, layers):  # a kill came between, or another fit
            self._unwritten[name] = made.head
            self._write_masks(name)
        return made

    def picture(self, name: str, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Automatic mask, what the person said, confidence in 0..255 (all "h w") and revision of a view."""
        sight = self.sight(name)
        with self._lock:
            future = self._ready.get(name)
            mask, sure = sight.labels[view], sight.confidence[view]
            if future is not None and future.done() and future.exception() is None:
                head = future.result().head
                mask, sure = head.masks[view], head.confidence[view]
            layer = self._layers[name].get(view)
            layer = np.full_like(mask, UNTOUCHED) if layer is None else layer
            sure = np.where(layer == UNTOUCHED, np.round(255 * np.clip(sure, 0, 1)), 255).astype(np.uint8)
            return mask.copy(), layer, sure, self._revision(name, view)

    def _revision(self, name: str, view: int) -> int:
        return self._revisions.get((name, view), 0)

    def edited(self) -> dict[str, list[int]]:
        """Views in which a person has said something."""
        with self._lock:
            return {name: sorted(layers) for name, layers in self._layers.items()}

    def queue(self) -> list[tuple[str, int, float]]:
        """What to look at next, of the heads that have been read so far."""
        seen = self.sights()
        gains = {name: seen[name].gains for name in self.names if name in seen}
        cameras = {name: seen[name].cameras for name in gains}
        return list(rank(gains, cameras, self.edited(), self.queue_config))

    def save(self, name: str, view: int, layer: UInt8[np.ndarray, "h w"], revision: int, seconds: float) -> dict:
        """Keeps what a person says about a view, then votes again.

        Args:
            layer: all of it, not a difference; UNTOUCHED everywhere takes it back.
            revision: of the view as the person saw it.
            seconds: spent on it.

        Returns:
            the line of the log.

        Raises:
            Outdated: somebody saved the view in the meantime; nothing is written.
            InputError: a layer that does not fit.
        """
        shape = self.sight(name).labels.shape
        if not 0 <= view < shape[0] or layer.shape != shape[1:] or not 0 <= seconds < 1e7:
            raise InputError("edit", wanted=f"a view of {shape}, some seconds", got=(view, layer.shape, seconds))
        self.labelset.check(layer, "edit: layer")
        with self._lock:
            if revision != self._revision(name, view):
                raise Outdated(f"{name}, view {view}")
            self._write_layer(name, view, layer)
            self._revisions[name, view] = revision + 1
        made = self.ready(name).result()
        with self._lock:
            latest = self._layers[name].get(view, np.full_like(layer, UNTOUCHED))
            before = made.head.masks[view].copy()
            outcome = edit(made.head, view, latest)
            self._voted[name] = dict(made.head.layers)
            self._unwritten[name] = made.head
            self._worker.submit(self._write_masks, name)
            about = {"seconds": round(seconds, 1)} | _effect(latest, before, outcome, self.labelset)
            return self._write_line(name, view, latest, about)

    def _write_layer(self, name: str, view: int, layer: np.ndarray) -> None:
        edits_on_disk.write_layer(self.run, name, view, layer, self.sight(name).images[view], self.labelset)
        if (layer == UNTOUCHED).all():
            self._layers[name].pop(view, None)
        else:
            self._layers[name][view] = layer

    def _write_masks(self, name: str) -> None:
        with self._lock:
            head = self._unwritten.pop(name, None)
            if head is None:  # a later vote was written in its place
                return
            vote = edits_on_disk.vote_of(head, self._bases[name])
        edits_on_disk.write_vote(self.run, name, vote)

    def _write_line(self, name: str, view: int, layer: np.ndarray, about: dict) -> dict:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"time": now, "identity": name, "view": view, "pixels": int((layer != UNTOUCHED).sum())}
        entry |= about | {"digest": edits_on_disk.digest(layer)}
        with self.log.open("ab") as file:
            file.write((json.dumps(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        return entry


def _effect(layer: np.ndarray, before: np.ndarray, outcome: Outcome, labelset: LabelSet) -> dict:
    touched = layer != UNTOUCHED

    def counts(labels: np.ndarray) -> dict[str, int]:
        ids, number = np.unique(labels, return_counts=True)
        return {"ignored" if i == IGNORE else labelset.names[i]: int(n) for i, n in zip(ids, number)}

    return {
        "before": counts(before[touched]),
        "after": counts(layer[touched]),
        "others": outcome.others,
        "changed": {str(v): n for v, n in outcome.changed.items()},
        "gaussians": outcome.gaussians,
        "revote_seconds": round(outcome.seconds, 3),
    }
