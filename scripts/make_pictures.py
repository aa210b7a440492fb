"""Writes the README's pictures from a finished run with truth: a profile of a person nobody trained on, and a film.

python scripts/make_pictures.py out/demo/run out/demo/teacher   # docs/profile.png, turntable.gif, pictures.json
"""

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jsplat.captures.capture import read_capture
from jsplat.captures.films import frames_of
from jsplat.edit import EditConfig
from jsplat.parser import predict_labels
from jsplat.pipeline.editing import Run, open_run
from jsplat.pipeline.parsers import open_parser
from jsplat.pipeline.showing import TurntableConfig, turntable
from jsplat.pipeline.work_folder import load_arrays
from jsplat.report.gallery import overlay

DOCS = Path(__file__).resolve().parent.parent / "docs"
EDGE, CAPTION = 288, 26  # pixels of a panel, and of the line above it
FILM = TurntableConfig(seconds=4.0, fps=9, size=224)


def strangers(run: Run) -> list[str]:
    """The people of a run whom no parser was trained on."""
    count = json.loads((run.path / "report.json").read_text())["people"]["unseen"]["all"]
    return sorted(run.captures)[len(run.captures) - count :]


def profile(run: Run, teacher: Path, identity: str) -> tuple[Image.Image, dict]:
    """The photograph nearest to a yaw of 90 degrees, and beside it what teacher, vote and student make of it."""
    capture = read_capture(run.captures[identity], run.size)
    view = int(np.argmin(np.abs(np.abs(capture.yaw) - 90) + np.abs(capture.pitch)))
    photo, labelset = capture.images[view], run.settings.labelset
    parsers = {"teacher": open_parser(teacher), "student": open_parser(run.path / "student")}
    masks = {name: predict_labels(parser, photo[None])[0] for name, parser in parsers.items()}
    masks["refined"] = load_arrays(run.path / "label" / f"{identity}.npz", "refined")["refined"][view]
    panels = {"photograph": photo} | {
        name: overlay(photo, masks[name], labelset) for name in ("teacher", "refined", "student")
    }
    sheet = Image.new("RGB", (EDGE * len(panels), EDGE + CAPTION), "white")
    for i, (name, pixels) in enumerate(panels.items()):
        high, wide = pixels.shape[:2]
        scale = EDGE / max(high, wide)
        panel = cv2.resize(pixels, (round(wide * scale), round(high * scale)), interpolation=cv2.INTER_CUBIC)
        sheet.paste(Image.fromarray(panel), (i * EDGE, CAPTION))
        ImageDraw.Draw(sheet).text((i * EDGE + 8, 4), name, fill="black", font_size=16)
    return sheet, {"identity": identity, "yaw": round(float(capture.yaw[view])), "pixels": int(max(photo.shape[:2]))}


def film(run: Run, identity: str) -> list[Image.Image]:
    """The frames of the head turning: colours beside classes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.mp4"
        turntable(run.path, path, FILM, identity=identity)
        return [
            Image.fromarray(frame).quantize(224, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            for frame in frames_of(path)
        ]


def main() -> None:
    """Makes the pictures of one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("teacher", type=Path)
    given = parser.parse_args()
    run = open_run(given.run, None, EditConfig())
    who = strangers(run)[-1]
    sheet, about = profile(run, given.teacher, who)
    sheet.save(DOCS / "profile.png")
    first, *others = film(run, who)
    milliseconds = round(1000 / FILM.fps)
    first.save(DOCS / "turntable.gif", save_all=True, append_images=others, duration=milliseconds, loop=0)
    report = json.loads((run.path / "report.json").read_text())
    about |= {key: report[key] for key in ("commit", "seed", "device")}
    (DOCS / "pictures.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
