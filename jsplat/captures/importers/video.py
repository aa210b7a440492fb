"""A video of a head: its sharpest frames, evenly spread, are written as photographs, whose cameras are then found."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jsplat.captures.films import VIDEOS, about_film, frames_of
from jsplat.errors import InputError, Stopped
from jsplat.files.atomic import write_bytes
from jsplat.files.foreign import log_once
from jsplat.runtime.progress import Progress
from jsplat.runtime.stop import STOP

LOOKS_FOR = f"a video ({', '.join(VIDEOS)})"
LEAST = 3  # frames, as of photographs
_QUALITY = 95  # of JPEG: the video is compressed more than that


def is_video(path: Path) -> bool:
    """Whether a path is a file that is called as videos are."""
    return path.suffix.lower() in VIDEOS and path.is_file()


def write_frames(video: Path, folder: Path, count: int) -> list[Path]:
    """Writes the sharpest frame of each of `count` equal parts of a video into a folder, upright, as NUMBER.jpg.

    The frames are numbered as `jsplat predict` numbers them, from 0. A video of fewer frames gives all of them. It is
    decoded twice, so that the parts are equal whatever number of frames it claims to have.

    Raises:
        InputError: not a video, one that cannot be decoded, or one of fewer than 3 frames.
    """
    sharp = np.asarray([sharpness(frame) for _, frame in _frames(video, "sharpness")])
    if len(sharp) < LEAST:
        hint = "film the head from several sides"
        raise InputError(str(video), wanted=f"a video of at least {LEAST} frames", got=len(sharp), hint=hint)
    chosen, files = set(sharpest(sharp, count)), []
    for i, frame in _frames(video, "frames"):
        if i in chosen:
            bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            files.append(folder / f"{i:06d}.jpg")
            write_bytes(files[-1], cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
    line = f"{len(files)} of {len(sharp)} frames are used, the sharpest of each part (--set capture.frames=N)"
    log_once("frames", video.name, line, frames=sorted(chosen), of=len(sharp))
    return files


def sharpness(frame: UInt8[np.ndarray, "h w 3"]) -> float:
    """The variance of the Laplacian of a picture's brightness, in levels squared: low where it is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def sharpest(sharp: Float[np.ndarray, " n"], count: int) -> list[int]:
    """The index of the largest number in each of `count` parts of equal length (to one); all, where there are fewer."""
    ends = np.linspace(0, len(sharp), min(count, len(sharp)) + 1).round().astype(int)
    return [int(a + np.argmax(sharp[a:b])) for a, b in itertools.pairwise(ends)]


def _frames(video: Path, what: str) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    stated = about_film(video)[0]
    progress = Progress(f"{video.name}: {what}", stated)
    for i, frame in enumerate(frames_of(video)):
        if STOP.is_set():
            raise Stopped(f"stopped in import, at frame {i} of {video.name}")
        yield i, frame
        if i < stated:  # what a video says of its length may be wrong
            progress.advance()
