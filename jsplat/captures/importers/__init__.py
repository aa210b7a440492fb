"""Captures as others leave them (FaceScape, NeRSemble, VHAP, COLMAP, nerfstudio, Blender, plain photographs, videos),
brought into the project's own format: one small file for every layout, chosen by what lies in the folder."""

from jsplat.captures.importers.account import used_files
from jsplat.captures.importers.importing import LAYOUTS, detect, fill_import, import_capture, read_source
from jsplat.captures.importers.source import ImportConfig
from jsplat.captures.importers.video import is_video

__all__ = ["LAYOUTS", "ImportConfig", "detect", "fill_import", "import_capture", "is_video", "read_source"]
__all__ += ["used_files"]
