"""Captures, masks and scenes of other programs in, ours out."""

from pathlib import Path

import click

from jsplat.cli.group import FOLDER, main, settings


@main.command("import")
@click.argument("folder", type=FOLDER)
@click.argument("out", type=FOLDER)
@settings("size", "seed", "capture")
def import_(folder: Path, out: Path, config) -> None:
    """Brings photographs with cameras in FOLDER into a capture OUT: FaceScape, NeRSemble, VHAP, nerfstudio, Blender,
    COLMAP, plain photographs or a video (extra `sfm`). Undoes lens distortion and finds the head's frame.

    \b
    jsplat import facescape/12/1_neutral captures/12
    jsplat import nersemble/030 captures/030 --set capture.sequence=EXP-1-head --set capture.timestep=20
    jsplat import talk.mp4 captures/ada --set capture.frames=100
    jsplat import photos captures/ada --set size=1024 --set capture.front=IMG_0042.jpg
    """
    from jsplat.pipeline import importing

    importing.import_one(folder, out, config)
