"""Captures as others leave them (FaceScape, NeRSemble, VHAP, COLMAP, nerfstudio, Blender, plain photographs), brought
into the project's own format: one small file for every layout, chosen by what lies in the folder."""

from jsplat.readers.account import used_files
from jsplat.readers.importing import LAYOUTS, detect, import_capture, read_import, read_source, write_import
from jsplat.readers.source import ImportConfig

__all__ = ["LAYOUTS", "ImportConfig", "detect", "import_capture", "read_import", "read_source", "used_files"]
__all__ += ["write_import"]
