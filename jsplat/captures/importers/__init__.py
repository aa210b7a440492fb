"""Captures as others leave them (FaceScape, NeRSemble, VHAP, COLMAP, nerfstudio, Blender, plain photographs), brought
into the project's own format: one small file for every layout, chosen by what lies in the folder."""

from jsplat.captures.importers.account import used_files
from jsplat.captures.importers.importing import LAYOUTS, detect, import_capture, read_import, read_source, write_import
from jsplat.captures.importers.source import ImportConfig

__all__ = ["LAYOUTS", "ImportConfig", "detect", "import_capture", "read_import", "read_source", "used_files"]
__all__ += ["write_import"]
