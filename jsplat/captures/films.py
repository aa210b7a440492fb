"""Films: frames of a video one after the other, and an MP4 of pictures, as OpenCV reads and writes them."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jsplat.errors import InputError
from jsplat.files.atomic import new_file
from jsplat.files.foreign import log_once

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".ogv")  # in small letters
_HINT = "convert it to MP4 with H.264, as `ffmpeg -i IN OUT.mp4` does, or to pictures"
_USUAL = 25.0  # frames a second, where a video does not say


def about_film(path: Path) -> tuple[int, float]:
    """How many frames a video says it has (0: it does not say), and frames a second.

    Raises:
        InputError: not a video, or one that this OpenCV cannot decode.
    """
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.grab():
            got = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
            raise InputError(str(path), wanted="a video that this OpenCV can decode", got=got, hint=_HINT)
        count, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    finally:
        video.release()
    return int(count) if 0 < count < 1e9 else 0, fps if math.isfinite(fps) and 0 < fps <= 1000 else _USUAL


def frames_of(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames of a video in sRGB, upright, one in memory; fewer than it says are told on stderr."""
    stated, video, found = about_film(path)[0], cv2.VideoCapture(str(path)), 0
    try:
        while True:
            there, frame = video.read()
            if not there:
                break
            found += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        video.release()
    if found < stated:
        log_once("video ends early", path.name, f"{found} of {stated} frames can be decoded", frames=found, said=stated)


def write_film(out: Path, fps: float, pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]]) -> int:
    """Writes an MP4 (MPEG-4 part 2) into a new file, whole or not at all; returns the number of frames.

    Pictures of odd size get one more row or column like the last: the format stores colour for two by two pixels. All
    get the size of the first, which is told once on stderr if it is not theirs: some videos change theirs on the way.

    Raises:
        InputError: something lies there, no pictures, or this OpenCV cannot write one.
    """
    with new_file(out) as temporary:
        film, frames, size = None, 0, (0, 0, 3)
        try:
            for picture in pictures:
                odd = picture.shape[0] % 2, picture.shape[1] % 2
                even = np.pad(picture, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else picture
                if film is None:
                    size = even.shape
                    film = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, even.shape[1::-1])
                    if not film.isOpened():
                        wanted, hint = "an OpenCV that writes MPEG-4 (mp4v)", "the one of PyPI does"
                        raise InputError(str(out), wanted=wanted, got="one that does not", hint=hint)
                if even.shape != size:
                    log_once(
                        "size changes", out.name, f"frames are scaled to {size[1]}x{size[0]}, the size of the first"
                    )
                    even = cv2.resize(even, size[1::-1], interpolation=cv2.INTER_AREA)
                film.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
                frames += 1
        finally:
            if film is not None:
                film.release()
        if not frames:
            raise InputError(str(out), wanted="at least one picture to film", got="none")
    return frames
