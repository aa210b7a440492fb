"""What the results of an identity depend on, stage by stage: with an equal fingerprint none is made again.

Nobody's results depend on who else is there, nor on where or when files were written.
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jsplat.captures.capture import inside, read_json
from jsplat.captures.index import Listed
from jsplat.config import to_json
from jsplat.errors import InputError, Stopped
from jsplat.fitting.scenes_on_disk import shards
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import Digests
from jsplat.pipeline.first_labels import FORMAT
from jsplat.pipeline.work_folder import fingerprint
from jsplat.runtime.devices import broadcast_from_first
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP

LABEL_KEYS = ("labelset", "classes")  # of transforms.json: what its labels mean
READERS = 16  # files on a network are waited for together


@dataclasses.dataclass(frozen=True)
class Content:
    """What a capture holds.

    Attributes:
        photos: pictures, masks of what is valid, cameras, name.
        labels: they score, and give the oracle; None where they are not to be used.
    """

    photos: str
    labels: str | None


def contents(listed: Sequence[Listed], digests: Digests) -> dict[str, Content]:
    """What each capture holds; the first host reads them, for all.

    Raises:
        Stopped: the process was asked to end.
    """

    def read() -> list[tuple[str, str | None]]:
        progress, found = Progress("captures looked at", len(listed)), []
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            for one in pool.map(lambda one: _content(one, digests), listed):
                found.append(one)
                progress.advance()
        return found

    found = broadcast_from_first(read)
    return {one.identity: Content(*of) for one, of in zip(listed, found)}


def _content(one: Listed, digests: Digests) -> tuple[str, str | None]:
    if STOP.is_set():
        raise Stopped(f"stopped looking at the captures, at {one.identity}")
    data = read_json(one.path / "transforms.json")
    meaning = {key: data.pop(key, None) for key in LABEL_KEYS}
    paths = [frame.pop("label_path", None) for frame in data["frames"]]
    shown = [frame.get(key) for frame in data["frames"] for key in ("file_path", "mask_path")]
    photos = fingerprint(one.identity, data, digests.of(one.path, "photos", _files(one.path, shown)))
    if one.labelset is None:
        return photos, None
    return photos, fingerprint(meaning, paths, digests.of(one.path, "labels", _files(one.path, paths)))


def _files(folder: Path, names: Sequence[object]) -> dict[str, Path]:
    found = {}
    for name in names:
        try:
            found[str(name)] = inside(folder, name, "")
        except InputError:  # refused when the capture is read
            continue
    return found


def of_parse(content: Content, parser: str, config: RunConfig) -> str:
    """First labels, by the parser with this digest."""
    return fingerprint(content.photos, parser, config.size, config.looks, FORMAT)


def of_fit(content: Content, first: str | None, config: RunConfig) -> str:
    """A scene, from these first labels."""
    return fingerprint(content.photos, first, config.size, config.fit, config.seed)


def of_label(content: Content, first: str, fitted: str, config: RunConfig) -> str:
    """Refined masks, from first labels and scene; the oracle's from the capture's own."""
    settings = [config.vote, config.sharpen, config.mask, config.palette]
    about = [config.size, config.fit.label_weight, "ablation" if config.ablation and content.labels else "", "packed"]
    about += ["plain rows"] if "plain" in config.baselines and content.labels else []
    return fingerprint(content.photos, content.labels, first, fitted, about, *settings)


def of_render(content: Content, fitted: str, labelled: str, edits: str, config: RunConfig) -> str:
    """Novel views, from scene and refined masks, with what a person corrected."""
    return fingerprint(content.photos, fitted, labelled, edits, config.size, config.seed, config.views, config.mask)


def own_pictures(one: Listed, digests: Digests) -> str:
    """What is known of the pictures that a capture was made from."""
    return digests.of(one.path, "import", {"import.json": one.path / "import.json"})


def of_masks(content: Content, fitted: str, labelled: str, edits: str, pictures: str, config: RunConfig) -> str:
    """Masks in the pixels of the original pictures, from scene and refined masks, with what a person corrected."""
    return fingerprint(content.photos, fitted, labelled, edits, pictures, config.size, config.mask)


def of_set(files: str, config: RunConfig) -> str:
    """A training set, of files with this digest, as it is read; how much memory it may take changes nothing."""
    how = {name: value for name, value in to_json(config.dataset).items() if name != "max_gigabytes"}
    return fingerprint(files, config.size, how)


def of_all_identities(each: dict[str, str], *more: object) -> str:
    """The fingerprint of a stage: of all its identities, in their order, and of what concerns them together."""
    return fingerprint(list(each.items()), *more)


def edits_of(run: Path, identity: str, digests: Digests) -> str:
    """What a person corrected of an identity, and the vote on it."""
    folder = run / "edits"
    drawn = {f"{identity}/{path.name}": path for path in sorted((folder / identity).glob("[0-9]*.png"))}
    return digests.of(folder / identity, "edits", drawn | {f"{identity}.npz": folder / f"{identity}.npz"})


def arrays_of(folder: Path, listed: Sequence[Listed], digests: Digests) -> dict[str, str]:
    """What the folder of `parse` or `label` holds for each identity, and what its labels mean."""
    _check_there(folder)
    names = {one.identity: f"{one.identity}.npz" for one in listed}
    meaning = {"labelset.json": folder / "labelset.json"}
    return {
        name: digests.of(folder / file, "labels", {"arrays": folder / file} | meaning) for name, file in names.items()
    }


def scenes_of(folder: Path, listed: Sequence[Listed], digests: Digests) -> dict[str, str]:
    """What the folder of `fit` holds for each identity: its shard's arrays, and its row of them."""
    _check_there(folder)
    found = {}
    for shard, about in shards(folder).items():
        arrays = digests.path(shard / "arrays")
        found |= {name: fingerprint(arrays, i) for i, name in enumerate(about["identities"]) if name is not None}
    return {one.identity: found.get(one.identity, "") for one in listed}


def _check_there(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(str(folder), wanted="a folder to read", got="nothing there")
