"""A parser on anybody's pictures: masks and overlays in the pictures' own pixels, streamed from disk to disk."""

import collections
import concurrent.futures
import dataclasses
import glob
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.captures import label_png
from jsplat.captures.films import VIDEOS, about_film, frames_of, write_film
from jsplat.captures.importers.source import unconverted
from jsplat.captures.pictures import picture_header
from jsplat.captures.upright import ENDINGS, read_upright
from jsplat.errors import InputError, Stopped
from jsplat.exchange import indexed
from jsplat.files.atomic import link_files, write_bytes, write_json
from jsplat.files.foreign import kinds_of, log_skipped, some_of, without_litter
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser import Parser, enlarged
from jsplat.parser.any_size import labels_of_any_size
from jsplat.pipeline.config import RunConfig
from jsplat.pipeline.digests import digests_in
from jsplat.pipeline.out import claim_whole
from jsplat.pipeline.parsers import open_parser, parser_folder
from jsplat.pipeline.work_folder import fingerprint, finished, stage
from jsplat.report.gallery import overlay
from jsplat.runtime.devices import cores, workers
from jsplat.runtime.progress import Progress, log, narrate
from jsplat.runtime.stop import STOP

S = TypeVar("S")
T = TypeVar("T")
Picture = UInt8[np.ndarray, "_ _ 3"]
Mask = UInt8[np.ndarray, "_ _"]

BATCH = 8
LONGEST_JPEG = 65_500  # pixels, of libjpeg
AHEAD = 4  # pictures that are read, or written, while the parser works
FAILED = "failed.json"
MADE_FROM = "pictures.json"  # in OUT: name of a result -> fingerprint of its picture, the parser and the settings
_ROWS = 256  # of an overlay at a time: it is blended in floating point
_WANTED = "a picture, a folder of pictures, a pattern in quotes, or a video"


@dataclasses.dataclass(frozen=True)
class Input:
    """What a parser is to look at.

    Attributes:
        root: what names are relative to.
        pictures: by relative name, sorted; a video is the only one.
        passed_over: other files there, by kind.
        reads: what OUT must lie apart from.
    """

    root: Path
    pictures: dict[str, Path]
    passed_over: dict[str, int]
    reads: tuple[Path, ...]

    @property
    def video(self) -> bool:
        """Whether it is one."""
        return len(self.pictures) == 1 and _is_video(*self.pictures.values())


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def find_input(given: Path) -> Input:
    """The pictures that INPUT names: a file, all of a folder and below it, or those that match a pattern; maybe none.

    What systems leave and hidden files are no pictures. Photographs that cannot be read and that nobody has converted
    count, so that they are named.

    Raises:
        InputError: nothing lies there.
    """
    if given.is_file():
        return Input(given.parent, {given.name: given}, {}, (given,))
    if given.is_dir():
        root, found, reads = given, list(given.rglob("*")), (given,)
    else:
        fixed = tuple(itertools.takewhile(lambda part: not glob.has_magic(part), given.parts))
        if fixed == given.parts:
            raise InputError(str(given), wanted=_WANTED, got="nothing there")
        root = Path(*fixed)
        found = [Path(name) for name in glob.glob(str(given), recursive=True)]
        # A pattern that goes down would find the overlays of an OUT below.
        reads = (root,) if "**" in given.parts else tuple(found)
    files = [p for p in without_litter(found, root) if p.is_file()]
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    pictures = sorted({*(p for p in files if p.suffix.lower() in ENDINGS), *unconverted(files)})
    kinds = kinds_of(p.relative_to(root) for p in files if p not in set(pictures))
    return Input(root, {p.relative_to(root).as_posix(): p for p in pictures}, kinds, reads)


def output_names(names: Iterable[str]) -> dict[str, str]:
    """Name of a picture -> of its results: without its ending, unless another one differs in that (or case) only."""
    names = list(names)
    stems = {name: name[: len(name) - len(Path(name).suffix)] for name in names}
    often = collections.Counter(stem.casefold() for stem in stems.values())
    chosen = {name: stem if often[stem.casefold()] == 1 else name for name, stem in stems.items()}
    twice = [n for n, count in collections.Counter(c.casefold() for c in chosen.values()).items() if count > 1]
    if twice:
        got, hint = some_of(sorted(twice)), "rename some of them, or predict them into different folders"
        raise InputError("pictures", wanted="names that differ in more than case", got=got, hint=hint)
    return chosen


def predict(parser: Path, given: Path, out: Path, config: RunConfig) -> dict[str, str]:
    """Masks and overlays of pictures, or of a video's frames; returns which could not be read, and why.

    OUT/labels holds indexed PNGs with class names and colours inside, OUT/overlays JPEGs (PNGs of pictures too long for
    JPEG), or an MP4 of a video, all under the names of the pictures and of their size. What is there of the
    same pictures, parser and settings, in OUT or from a killed attempt, is not done again.

    Raises:
        InputError: no parser, no pictures, none that can be read, an OUT that is not free.
    """
    source = find_input(given)
    claim_whole(out, "predict", parser, *source.reads)
    if not source.pictures:
        got = some_of([f"{count} {kind}" for kind, count in source.passed_over.items()]) or "no files"
        raise InputError(str(given), wanted=_WANTED, got=got)
    about = {"parser": str(parser.resolve()), "input": str(given), **config.looks}
    with digests_in(out) as digests:
        known = digests.path(parser_folder(parser))
        log_skipped(given.name, source.passed_over)
        names = output_names(source.pictures)
        each = {
            names[name]: fingerprint(known, digests.of(path.absolute(), "picture", {name: path}), config.looks)
            for name, path in source.pictures.items()
        }
        wanted = fingerprint(each)
        if finished(out, wanted) is None:
            opened = enlarged(open_parser(parser), config.enlarge)
            about |= {"input_size": opened.architecture.input_size}
            with stage(out, wanted, about, config.seed, command="predict") as folder:
                _take_over(folder, each, out)
                failed = (_film if source.video else _pictures)(opened, source, folder, config.flip)
                write_json(folder / "labelset.json", opened.labelset.to_json())
                write_json(folder / FAILED, failed)
        else:
            narrate(f"{out}: made before, of the same pictures and parser")
    return json.loads((out / FAILED).read_text())


def _take_over(folder: Path, each: Mapping[str, str], out: Path) -> None:
    """Begins with what OUT, and attempts that were killed, hold of the same pictures, parser and settings."""
    for older in (out, *sorted(out.parent.glob(f".{out.name}.{'?' * 16}"))):
        try:
            theirs = json.loads((older / MADE_FROM).read_text()) if older.name != folder.name else {}
        except (OSError, ValueError):
            continue
        for name, made_from in each.items():
            label = _label_file(older, name)
            if theirs.get(name) == made_from and _is_whole(label) and not _label_file(folder, name).exists():
                for path in (*(older / "overlays" / f"{name}{ending}" for ending in (".jpg", ".png")), label):
                    if path.is_file():
                        link_files(
                            path, folder / path.relative_to(older)
                        )  # the label last: it says that both are there
    write_json(folder / MADE_FROM, each)


def _ahead(function: Callable[[S], T], items: Iterable[S], pool: concurrent.futures.Executor) -> Iterator[T]:
    """`map` in order by other threads, at most `AHEAD` in advance."""
    coming = collections.deque()
    for item in items:
        coming.append(pool.submit(function, item))
        if len(coming) > AHEAD:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _masks(
    parser: Parser, pictures: Iterable[tuple[str, Picture]], count: int, flip: bool
) -> Iterator[tuple[str, Picture, Mask]]:
    """The pictures with their masks."""
    waiting: collections.deque[tuple[str, Picture]] = collections.deque()

    def photographs() -> Iterator[Picture]:
        for name, picture in pictures:
            if STOP.is_set():
                raise Stopped(f"stopped in predict, at {name}")
            waiting.append((name, picture))
            yield picture

    # Few sizes of batches, so that programs on disk serve the next folder.
    batch = min(BATCH, 1 << max(count - 1, 0).bit_length())
    for mask in labels_of_any_size(parser, photographs(), batch, flip=flip, devices=workers(1)[0]):
        yield (*waiting.popleft(), mask)


class _Rate:
    """A progress line that says pictures a second."""

    def __init__(self, total: int, done: int):
        if done:
            narrate(f"predict: {done} of {total + done} were made before, of the same pictures and parser")
        self.progress, self.start, self.done = Progress("predict", total), time.monotonic(), 0

    def advance(self, masks: int = 1) -> None:
        """Counts a picture, and its mask if it got one."""
        self.done += masks
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        self.progress.advance(1, **{"pictures a second": rate})


def _pictures(parser: Parser, source: Input, folder: Path, flip: bool) -> dict[str, str]:
    """Fills the folder; what a killed attempt has finished stays. Returns which could not be read, and why."""
    names, failed, files = output_names(source.pictures), {}, source.pictures
    remaining = [name for name in files if not _is_whole(_label_file(folder, names[name]))]
    rate = _Rate(len(remaining), len(files) - len(remaining))

    def read(name: str) -> tuple[str, Picture | InputError]:
        try:
            return name, read_upright(files[name], name)
        except InputError as error:
            return name, error

    def readable(found: Iterable[tuple[str, Picture | InputError]]) -> Iterator[tuple[str, Picture]]:
        for name, picture in found:
            if isinstance(picture, InputError):
                failed[name] = str(picture)
                log("picture left out", name=name, why=str(picture))
                print(f"{name} is left out: {picture}", file=sys.stderr, flush=True)
                rate.advance(0)
            else:
                yield name, picture

    def write(of: tuple[str, Picture, Mask]) -> None:
        name, picture, mask = of
        _write_overlay(folder / "overlays" / names[name], _overlaid(picture, mask, parser.labelset))
        _write_label(folder, names[name], mask, parser.labelset)  # last: it says that both are there

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        for _ in _ahead(write, _masks(parser, readable(_ahead(read, remaining, pool)), len(remaining), flip), pool):
            rate.advance()
    if len(failed) == len(files):
        raise InputError("predict", wanted="a picture that can be read", got=some_of([*failed.values()]))
    return failed


def _film(parser: Parser, source: Input, folder: Path, flip: bool) -> dict[str, str]:
    """Fills the folder; frames whose masks a killed attempt has written are only decoded again, for the film."""
    ((name, path),) = source.pictures.items()
    (count, fps), name = about_film(path), Path(name).stem
    done = sum(map(_is_whole, (folder / "labels" / name).glob("[0-9]*.png")))
    film, rate = folder / "overlays" / f"{name}.mp4", _Rate(count - done, done)
    film.unlink(missing_ok=True)  # of an attempt that was killed

    def known(of: tuple[int, Picture]) -> tuple[str, Picture, Mask | None]:
        number = f"{name}/{of[0]:06d}"
        return number, of[1], _mask_before(_label_file(folder, number), of[1].shape[:2])

    def write(of: tuple[str, Picture, Mask]) -> tuple[str, Picture, Mask]:
        _write_label(folder, of[0], of[2], parser.labelset)
        return of

    def seen(pool: concurrent.futures.Executor) -> Iterator[tuple[str, Picture, Mask]]:
        for made, group in itertools.groupby(_ahead(known, enumerate(frames_of(path)), pool), lambda of: of[2] is None):
            if not made:
                yield from ((number, frame, mask) for number, frame, mask in group if mask is not None)
                continue
            frames = ((number, frame) for number, frame, _ in group)
            for of in _ahead(write, _masks(parser, frames, count or BATCH, flip), pool):
                rate.advance()
                yield of

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        write_film(film, fps, _ahead(lambda of: _overlaid(of[1], of[2], parser.labelset), seen(pool), pool))
    return {}


def _label_file(folder: Path, name: str) -> Path:
    return folder / "labels" / f"{name}.png"


def _is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end: machines that stop may leave files without what was written."""
    return path.is_file() and picture_header(path.read_bytes()) is not None


def _mask_before(path: Path, size: tuple[int, int]) -> Mask | None:
    """The mask that an attempt before has written of a frame of that size, if it is whole."""
    try:
        ids = label_png.decode(path.read_bytes(), path.name).ids
    except (InputError, FileNotFoundError):
        return None
    return ids if ids.shape == size else None


def _write_label(folder: Path, name: str, mask: Mask, labelset: LabelSet) -> None:
    write_bytes(_label_file(folder, name), indexed.write({name: mask}, labelset)[f"{name}.png"])


def _overlaid(picture: Picture, mask: Mask, labelset: LabelSet) -> Picture:
    starts: Sequence[int] = range(0, len(picture), _ROWS)
    return np.concatenate([overlay(picture[i : i + _ROWS], mask[i : i + _ROWS], labelset) for i in starts])


def _write_overlay(place: Path, shown: Picture) -> None:
    """Writes a picture under a name that gets its ending here."""
    bgr = cv2.cvtColor(shown, cv2.COLOR_RGB2BGR)
    fits = max(shown.shape) <= LONGEST_JPEG
    ending, how = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]) if fits else (".png", [])
    write_bytes(place.with_name(place.name + ending), cv2.imencode(ending, bgr, how)[1].tobytes())
