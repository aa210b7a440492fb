"""The command line: every command reads folders or files and writes one, with a run.json where it is a stage."""

from jsplat.cli import convert, data, loop, masks, settings, show
from jsplat.cli.group import main

__all__ = ["convert", "data", "loop", "main", "masks", "settings", "show"]
