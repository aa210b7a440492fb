"""Captures of other programs: one brought in by `import`, or all those of a run on its way."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from jsplat.captures.capture import capture_folders, read_json
from jsplat.captures.importers import detect, fill_import, is_video, read_source, used_files
from jsplat.config import to_json
from jsplat.errors import InputError
from jsplat.files.foreign import log_once, some_of, without_litter
from jsplat.files.ownership import ABOUT
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import Digests, digests_in
from jsplat.pipeline.out import claim_whole
from jsplat.pipeline.work_folder import fingerprint, finished, stage
from jsplat.runtime.devices import broadcast_from_first, is_first_host

FOLDER = "captures"  # of a run: what it imported
_OURS = {"identity", "head_from_world", "classes", "labelset"}  # in transforms.json; nerfstudio's has none of them


def import_one(source: Path, out: Path, config: RunConfig) -> None:
    """A capture in another layout, as one of ours; all hosts call it. Skipped when it is there, from the same files.

    Raises:
        InputError: naming the file and field that is wrong.
    """
    with digests_in(out) as digests:
        wanted, outside = broadcast_from_first(lambda: _wanted(source, out, config, digests))
        if finished(out, wanted) is None:
            about = to_json(config.capture) | {"size": config.size, "outside": outside}
            with stage(out, wanted, about, config.seed, command="import") as folder:
                if is_first_host():
                    fill_import(folder, source, config.capture, config.size)


def _wanted(source: Path, out: Path, config: RunConfig, digests: Digests) -> list:
    """The fingerprint of an import, and which files beside its source it reads."""
    claim_whole(out, "import", source)

    def of(outside: list[str]) -> str:
        outside_digest = digests.of(source, "outside", {path: Path(path) for path in outside})
        return fingerprint(digests.path(source), outside_digest, config.capture, config.size)

    outside = _read_outside(out)
    if finished(out, of(outside)) is None:
        video = is_video(source)  # which reads nothing but itself
        used = {source.resolve()} if video else used_files(source.resolve(), read_source(source, config.capture))
        claim_whole(out, "import", *used)
        outside = sorted(str(path) for path in used if not path.is_relative_to(source.resolve()))
    return [of(outside), outside]


def _read_outside(imported: Path) -> list[str]:
    """Which files beside its source an import has read."""
    try:
        return [str(path) for path in json.loads((imported / ABOUT).read_text())["config"]["outside"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def foreign(path: Path) -> dict[str, Path]:
    """What has to be imported before a run can use a folder or video: by name, itself or the folders and videos in it.

    Nothing where it is a capture of ours or holds some. A folder in which no layout is known is passed over, and named.

    Raises:
        InputError: neither a capture, nor a layout that `import` knows, nor a folder of such.
    """
    if is_video(path):
        return {path.stem: path}
    entries = [p for p in without_litter(path.glob("*")) if not p.name.startswith(".")]
    folders, videos = [p for p in entries if p.is_dir()], [p for p in entries if is_video(p)]
    if any(_is_ours(folder) for folder in [path, *folders]):
        return {}
    if _layout(path):
        return {path.resolve().name: path}
    found = {folder.name: folder for folder in folders if _layout(folder)}
    for video in videos:
        if video.stem in found:
            got = f"{found[video.stem].name} and {video.name}"
            raise InputError(str(path), wanted="captures of different names", got=got, hint="rename one of them")
        found[video.stem] = video
    if not found:
        capture_folders(path)  # says what was wanted
    if others := [folder.name for folder in folders if folder not in found.values()]:
        line = f"passed over folders that are no captures: {len(others)} ({some_of(others)})"
        log_once("passed over", str(path), line, folders=others)
    return found


def _is_ours(folder: Path) -> bool:
    try:
        return not _OURS.isdisjoint(read_json(folder / "transforms.json"))
    except InputError:
        return False


def _layout(folder: Path) -> bool:
    try:
        return bool(detect(folder))
    except InputError:
        return False


def import_all(sources: Mapping[str, Path], place: Path, config: RunConfig, refused: dict[str, str]) -> list[Path]:
    """The sources as captures of ours in the folder `place`.

    Args:
        sources: as of `foreign`.
        refused: gets, by name, why one cannot be imported, which stops nobody else.

    Returns:
        their folders.

    Raises:
        InputError: none of them can be imported.
    """
    if is_first_host():
        for name, source in sources.items():
            claim_whole(place / name, "import", source)
    done, last = [], None
    for name, source in sources.items():
        try:
            import_one(source, place / name, config)
            done.append(place / name)
        except InputError as error:
            last, refused[name] = error, str(error)
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
    if last is not None and not done:
        raise last
    return done
