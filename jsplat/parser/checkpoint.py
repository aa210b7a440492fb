"""Parsers and unfinished trainings on disk: orbax for the arrays, JSON for what they mean."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jsplat.errors import InputError
from jsplat.folder import new_folder, write_json
from jsplat.labelset import LabelSet
from jsplat.parser.bisenet import Architecture
from jsplat.parser.model import Parser, variable_shapes

FORMAT = "jsplat parser 1"
T = TypeVar("T")


def save_arrays(path: Path, arrays: dict[str, jax.Array]) -> None:
    """Writes named arrays into a new folder and waits until they are there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), arrays)


def load_arrays(path: Path, like: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads what `save_arrays` wrote; names, shapes and types must be those of `like`.

    Raises:
        InputError: something else lies there.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path.absolute()).item_metadata
            found = {name: tuple(value.shape) for name, value in (stored or {}).items()}
            wanted = {name: value.shape for name, value in like.items()}
            if found != wanted:
                name = next(n for n in sorted(found.keys() | wanted.keys()) if found.get(n) != wanted.get(n))
                raise InputError(f"{path}: {name}", wanted=f"shape {wanted.get(name)}", got=found.get(name))
            restored = checkpointer.restore(path.absolute(), like)
            # Orbax pins its arrays to a device, for which every jitted function would be compiled a second time.
            return {name: jnp.array(np.array(value)) for name, value in restored.items()}
    except InputError:
        raise
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(str(path), wanted="arrays written by orbax", got=error) from error


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
        save_arrays(folder / "variables", parser.variables)
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
    except (OSError, ValueError) as error:
        raise InputError(str(path), wanted="a parser (parser.json, variables)", got=error) from error
    architecture, stored = read_description(data, f"{path}/parser.json")
    if labelset is not None and stored != labelset:
        raise InputError(f"{path}/parser.json: labelset", wanted=f"{labelset.names}", got=stored.names)
    shapes = variable_shapes(architecture, len(stored))
    like = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    return Parser(load_arrays(path / "variables", like), architecture, stored)


def save_run(folder: Path, fingerprint: str, step: int, state: object, curves: dict) -> None:
    """Saves an unfinished training as `folder/<step>`, then removes the one before it.

    Args:
        folder: belongs to one training run.
        fingerprint: tells runs apart.
        step: steps done.
        state: any tree of arrays.
        curves: JSON-ready.
    """
    older = _saved(folder)
    with new_folder(folder / f"{step:08d}") as path:
        save_arrays(path / "state", _numbered(state))
        write_json(path / "run.json", {"fingerprint": fingerprint, "step": step, "curves": curves})
    for path in older:
        if path.name != f"{step:08d}":
            shutil.rmtree(path)


def load_run(folder: Path, fingerprint: str, like: T) -> tuple[int, T, dict] | None:
    """The steps done, the state and the curves of the training saved in `folder`; None when there is none.

    Raises:
        InputError: another training lies there.
    """
    if not (saved := _saved(folder)):
        return None
    data = json.loads((saved[-1] / "run.json").read_text())
    if data["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}", wanted="a checkpoint of this training (data, config, seed, start)", got="one of another"
        )
    shapes = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in _numbered(like).items()}
    leaves = load_arrays(saved[-1] / "state", shapes)
    return (
        data["step"],
        jax.tree.unflatten(jax.tree.structure(like), [leaves[n] for n in sorted(leaves)]),
        data["curves"],
    )


def _numbered(tree: object) -> dict[str, jax.Array]:
    return {f"{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def _saved(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("[0-9]*/run.json"))
