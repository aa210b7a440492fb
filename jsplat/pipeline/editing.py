"""A finished run, opened for edits: which heads it has, and what the editor needs of each."""

import contextlib
import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np

from jsplat.captures.capture import Capture, capture_folders, identity_of, read_capture, read_json
from jsplat.captures.index import Listed
from jsplat.config import from_json
from jsplat.edit import (
    EditConfig,
    HeadViews,
    QueueConfig,
    QueueInputs,
    Ready,
    Server,
    Session,
    Settings,
    SimulationConfig,
    Source,
    Subject,
    edit_all,
    edits_on_disk,
    expected_gains,
    prepare,
    simulate,
)
from jsplat.errors import InputError, Stopped
from jsplat.files.foreign import some_of
from jsplat.files.ownership import ABOUT
from jsplat.fitting.scenes_on_disk import load_scenes
from jsplat.labels import MaskConfig, SharpenConfig, VoteConfig, pose_prior
from jsplat.labels.opinions import Masked
from jsplat.labelsets.labelset import LabelSet
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.elsewhere import others_in
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.packing import load_labelled
from jsplat.pipeline.status import A_RUN
from jsplat.pipeline.work_folder import load_arrays, wait_until_visible
from jsplat.raster.spherical_harmonics import sh_colors
from jsplat.runtime.devices import shard_of_host, wait_for_hosts
from jsplat.runtime.progress import Progress, log
from jsplat.runtime.stop import STOP


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder and what was decided in it.

    Attributes:
        captures: identity -> the capture's folder.
        size: longer side in pixels of the run's pictures.
    """

    path: Path
    captures: dict[str, Path]
    size: int
    vote: VoteConfig
    settings: Settings


def open_run(path: Path, captures: Path | None, config: EditConfig) -> Run:
    """A run whose stages `parse`, `fit` and `label` are done.

    Args:
        path: the folder of `jsplat run`, or one in which `parse`, `fit` and `label` wrote folders of these names.
        captures: the captures it was made from; those that it names if None.

    Raises:
        InputError: naming what is not there.
    """
    try:
        about = json.loads((path / "label" / "run.json").read_text())["config"]
        labelset = LabelSet.from_json(json.loads((path / "label" / "labelset.json").read_text()))
        where = str(path / "label" / "run.json")
        vote = from_json(VoteConfig, about["vote"], f"{where}: vote")
        sharpen = from_json(SharpenConfig, about["sharpen"], f"{where}: sharpen")
        mask = from_json(MaskConfig, about["mask"], f"{where}: mask")
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        wanted, hint = "a run, or a folder with what `parse`, `fit` and `label` wrote, called so", A_RUN
        raise InputError(str(path), wanted=wanted, got=error, hint=hint) from error
    captures = captures or _captures_of(path, about)
    done = {p.stem for p in (path / "label").glob("*.npz")}
    found = {}
    for folder in capture_folders(captures):
        with contextlib.suppress(InputError):  # who cannot be read was left out of the run too
            name = identity_of(read_json(folder / "transforms.json"), folder, f"{folder.name}/transforms.json")
            if name in done:
                found[name] = folder
    if not found:
        wanted, hint = f"captures of {some_of(sorted(done))}", "`--captures` names those that this run was made from"
        raise InputError(str(captures), wanted=wanted, got="none of them", hint=hint)
    size = max(load_arrays(path / "label" / f"{next(iter(found))}.npz", "refined")["refined"].shape[1:])
    return Run(path, found, size, vote, Settings(labelset, sharpen, mask, config))


def _captures_of(path: Path, about: dict) -> Path:
    """Where the captures of a run lie: as it says itself, or its stage `label` (`about`) made alone, or beside it."""
    try:
        captures = json.loads((path / ABOUT).read_text())["captures"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        captures = about.get("captures")
    places = [path.parent / "captures"] if captures is None else [Path(captures), path.parent / "captures"]
    if (found := next((place for place in places if place.is_dir()), None)) is None:
        hint = "`--captures` says where they are now"
        raise InputError(str(places[0]), wanted="the captures of this run", got="no such folder", hint=hint)
    return found


def _trust(run: Run, capture: Capture) -> np.ndarray:
    return np.asarray(pose_prior(capture.yaw.astype(np.float32), capture.pitch.astype(np.float32), run.vote))


def read(run: Run, identity: str) -> tuple[Capture, QueueInputs]:
    """The photographs of one head, and what the queue looks at."""
    capture = read_capture(run.captures[identity], run.size)
    known = load_labelled(run.path / "label", identity)
    first, trust = first_labels(run.path / "parse", capture).opinions, _trust(run, capture)
    others = [other.voter_labels(trust) for other in others_in(run.path / "parse", capture)]
    return capture, QueueInputs(
        known["refined"], known["confidence"], first, known["depth"], capture.cameras, trust, others
    )


def ready(run: Run, identity: str, capture: Capture) -> Ready:
    """One head, ready for edits; takes a while."""
    (scene,) = load_scenes(run.path / "fit", [capture.identity]).values()
    known = load_labelled(run.path / "label", identity)
    first, trust = first_labels(run.path / "parse", capture).opinions, _trust(run, capture)
    first = first if capture.valid is None else Masked(first, capture.valid)
    others = [other.voter_labels(trust) for other in others_in(run.path / "parse", capture)]
    head = prepare(scene, capture.cameras, first, known, trust, run.settings, others)

    def render(view: int) -> np.ndarray:
        rgb = np.asarray(sh_colors(scene.attributes.sh, scene.gaussians.means, capture.cameras[view]))
        transmittance = (1 - head.alpha[view])[..., None]
        shown = (head.weights[view] @ rgb).reshape(*transmittance.shape[:2], 3) + transmittance * capture.behind
        return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)

    return Ready(head, render)


def session(run: Run, queue: QueueConfig) -> Session:
    """The run under edit, for the page's server."""

    def look(name: str) -> HeadViews:
        capture, looks = read(run, name)
        gains = expected_gains(looks, queue)
        angles = (capture.yaw, capture.pitch)
        return HeadViews(capture.images, looks.labels, looks.confidence, capture.cameras, *angles, gains)

    def make(name: str) -> Ready:
        return ready(run, name, read_capture(run.captures[name], run.size))

    sources = {name: Source(lambda n=name: look(n), lambda n=name: make(n)) for name in run.captures}
    return Session(run.path, sources, run.settings.labelset, run.settings.edit, queue)


def serve(path: Path, captures: Path | None, port: int, config: EditConfig, queue: QueueConfig) -> None:
    """Serves the page of a run until it is interrupted, and prints its address; port 0: any free one."""
    opened = session(open_run(path, captures, config), queue)
    try:
        with Server(opened, port) as server:
            print(f"edit: {server.address}  (this machine only; Ctrl+C ends it)", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        opened.close()


def check_drawn(out: Path, listed: list[Listed], labelset: LabelSet) -> None:
    """InputError, before anything is done, where people drew what cannot be used on the views as they will be read."""
    touched = edits_on_disk.edited_names(out)
    for one in (one for one in listed if one.identity in touched):
        drawn = edits_on_disk.read_layers(out, one.identity, labelset)
        where = str(out / edits_on_disk.FOLDER / one.identity)
        for view, layer in edits_on_disk.resized_layers(drawn, one.shape, where).items():
            if layer.shape != drawn[view].shape:
                (high, wide), (h, w) = drawn[view].shape, layer.shape
                print(f"{one.identity}, view {view}: drawn at {wide}x{high} pixels, used at {w}x{h}", file=sys.stderr)


def vote_again(out: Path, listed: list[Listed], labelset: LabelSet, config: RunConfig) -> None:
    """Votes on what people drew wherever the vote on disk is not one on that and on the run's stage "label".

    Hosts share the heads; returns when all votes are there.
    """
    touched = edits_on_disk.edited_names(out)
    listed = [one for one in listed if one.identity in touched]
    names = {one.identity: one.path for one in listed}
    run = Run(out, names, config.size, config.vote, Settings(labelset, config.sharpen, config.mask, config.edit))

    def waits(one: Listed) -> bool:
        return not edits_on_disk.is_voted_on(out, one.identity, edits_on_disk.layers_of(out, one.identity, labelset))

    waiting = [one for one in shard_of_host(listed) if waits(one)]
    progress = Progress("votes on edits", len(waiting))
    for one in waiting:
        if STOP.is_set():
            raise Stopped(f"stopped before the vote on the edits of {one.identity}")
        base = edits_on_disk.label_stamp(out, one.identity)
        layers = edits_on_disk.layers_of(out, one.identity, labelset)
        capture = one.read()
        edits_on_disk.check_pictures(out, one.identity, capture.images)
        head = ready(run, one.identity, capture).head
        edit_all(head, layers)
        edits_on_disk.write_vote(out, one.identity, edits_on_disk.vote_of(head, base))
        log("edits voted on again", identity=one.identity, views=sorted(layers))
        progress.advance()
    wait_for_hosts(f"{out}: edits are voted on")
    for one in listed:
        wait_until_visible(out / edits_on_disk.FOLDER / f"{one.identity}.npz", lambda one=one: not waits(one))


def edits_of(run: Run, identities: list[str], config: SimulationConfig) -> dict:
    """`simulate` on heads whose truth is known: what the report keeps under "edits"."""

    def subject(name: str) -> Subject:
        capture, looks = read(run, name)
        if capture.labels is None:
            raise InputError(f"edits: {name}", wanted="a capture with labels to reveal", got="none")
        return Subject(lambda: ready(run, name, capture).head, looks, capture.labels, capture.yaw, capture.pitch)

    subjects = {name: functools.partial(subject, name) for name in identities}
    return simulate(subjects, run.settings.labelset, config)
