"""Parsers on disk: orbax for the arrays, JSON for what they mean."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from jsplat.errors import InputError
from jsplat.files.arrays import read_arrays, write_arrays
from jsplat.files.atomic import new_folder, write_json
from jsplat.files.ownership import MADE_AGAIN
from jsplat.labelsets.labelset import LabelSet
from jsplat.parser.bisenet import Architecture
from jsplat.parser.model import Parser, variable_shapes

_WANTED = "a parser (parser.json, variables)"
_HINT = "`jsplat convert` makes one of weights, and `jsplat train-parser` trains one"
FORMAT = "jsplat parser 1"


def describe(parser: Parser) -> dict:
    """What the variables of a parser mean, JSON-ready."""
    architecture = dataclasses.asdict(parser.architecture)
    return {"format": FORMAT, "architecture": architecture, "labelset": parser.labelset.to_json()}


def read_description(data: Any, where: str) -> tuple[Architecture, LabelSet]:
    """The inverse of `describe`.

    Raises:
        InputError: naming `where`.
    """
    try:
        if data["format"] != FORMAT:
            raise InputError(f"{where}: format", wanted=repr(FORMAT), got=repr(data["format"]))
        return Architecture(**data["architecture"]), LabelSet.from_json(data["labelset"])
    except (KeyError, TypeError) as error:
        raise InputError(where, wanted="format, architecture, labelset", got=error) from error


def save_parser(path: Path, parser: Parser) -> None:
    """Writes a parser, its architecture and its label set, whole or not at all."""
    with new_folder(path) as folder:
        write_arrays(folder / "variables", parser.variables)
        write_json(folder / "parser.json", describe(parser))


def load_parser(path: Path, labelset: LabelSet | None = None) -> Parser:
    """Reads a parser.

    Args:
        path: the folder that `save_parser` wrote.
        labelset: when given, the classes the parser must speak of.

    Raises:
        InputError: no parser lies there, or its arrays or classes are not the ones announced.
    """
    try:
        data = json.loads((path / "parser.json").read_text())
    except OSError as error:
        raise InputError(str(path), wanted=_WANTED, got=error, hint=_HINT) from error
    except ValueError as error:
        raise InputError(str(path), wanted=_WANTED, got=error, hint=MADE_AGAIN) from error
    architecture, stored = read_description(data, f"{path}/parser.json")
    if labelset is not None and stored != labelset:
        what, wanted, got = f"{path}/parser.json: labelset", ", ".join(labelset.names), ", ".join(stored.names)
        raise InputError(what, wanted=wanted, got=got)
    shapes = variable_shapes(architecture, len(stored))
    like = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    return Parser(read_arrays(path / "variables", like), architecture, stored)
