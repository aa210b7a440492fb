"""The command line: every command reads folders or files and writes one, with a run.json where it is a stage."""

from jsplat.cli import data, exchange, loop, show, weights
from jsplat.cli.group import main

__all__ = ["data", "exchange", "loop", "main", "show", "weights"]
