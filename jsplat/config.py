"""Settings: the defaults of frozen dataclasses, then a TOML file, then `--set stage.field=value`; the last one counts.

The settings of a whole run are one dataclass with a field per stage, each of them a frozen dataclass that lives beside
its stage. This file knows none of them: it works on any dataclass whose fields all have defaults.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from jsplat.errors import InputError

T = typing.TypeVar("T")


def load(cls: type[T], toml_path: Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Settings of type `cls`: its defaults, changed by a TOML file, changed by overrides.

    Args:
        cls: a dataclass; a field that is itself a dataclass is a table in TOML.
        toml_path: holds differences from the defaults only.
        overrides: "stage.field=value", the value written as in TOML; quotes around a text may be left out.
            "none" (here and in TOML, which has no null) unsets a field that may be None.

    Raises:
        InputError: for an unknown key (naming the nearest one), a value of the wrong type, or an unreadable file.
    """
    config = cls()
    if toml_path is not None:
        config = _merge(config, _read_toml(toml_path), f"{toml_path.name}: ", "", _leaves(config))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {text}", wanted="stage.field=value", got="no key" if equals else "no '='")
        changes: object = _parse(value.strip())
        for part in reversed(key.strip().split(".")):
            changes = {part: changes}
        config = _merge(config, typing.cast(dict, changes), "--set ", "", _leaves(config))
    return config


def to_json(config: typing.Any) -> dict:
    """The settings as nested dicts of JSON values: tuples become lists, paths become texts."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: typing.Any) -> typing.Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _read_toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(str(path), wanted="a TOML file", got="no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(str(path), wanted="a TOML file", got=error) from error


def _parse(text: str) -> typing.Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _leaves(config: typing.Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        names += _leaves(value, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return names


def _merge(config: typing.Any, changes: dict, source: str, prefix: str, known: list[str]) -> typing.Any:
    hints = typing.get_type_hints(type(config))
    new = {}
    for key, value in changes.items():
        name = prefix + key
        if key not in {f.name for f in dataclasses.fields(config)}:
            raise InputError(
                f"{source}{name}", wanted=f"a known key (nearest: {_nearest(name, known)})", got=repr(name)
            )
        old = getattr(config, key)
        if not dataclasses.is_dataclass(old):
            new[key] = _coerce(value, hints[key], source + name)
        elif isinstance(value, dict):
            new[key] = _merge(old, value, source, f"{name}.", known)
        else:
            fields = ", ".join(f.name for f in dataclasses.fields(old))
            raise InputError(f"{source}{name}", wanted=f"one of its fields ({fields})", got=repr(value))
    return dataclasses.replace(config, **new)


def _nearest(name: str, known: list[str]) -> str:
    """The right field in the wrong stage is nearer than a similar field in the right one."""
    field = name.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == field]
    return difflib.get_close_matches(name, same or known, 1, 0.0)[0]


def _coerce(value: typing.Any, wanted: typing.Any, where: str) -> typing.Any:
    """`value` as the annotated type; exact, except that an int may stand for a float and a list for a tuple."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return _coerce(value, option, where)
            except InputError:
                continue
    elif origin is typing.Literal:
        if any(value == o and type(value) is type(o) for o in options):
            return value
    elif origin is tuple:
        if isinstance(value, list) and (options[-1] is Ellipsis or len(options) == len(value)):
            each = [options[0]] * len(value) if options[-1] is Ellipsis else options
            return tuple(_coerce(v, t, f"{where}[{i}]") for i, (v, t) in enumerate(zip(value, each)))
    elif wanted is type(None):
        if value == "none":
            return None
    elif wanted is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif wanted is Path:
        if isinstance(value, str):
            return Path(value)
    elif wanted in (int, bool, str):
        if type(value) is wanted:
            return value
    else:
        raise TypeError(f"{where}: settings of type {wanted} cannot be read from text")
    raise InputError(where, wanted=_describe(wanted), got=f"{value!r} ({type(value).__name__})")


def _describe(wanted: typing.Any) -> str:
    """A type in words a user knows."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(o) for o in options)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(o) for o in options)
    if origin is tuple and options[-1] is Ellipsis:
        return f"a list of {_describe(options[0])}"
    if origin is tuple:
        return f"a list [{', '.join(_describe(o) for o in options)}]"
    names = {int: "int", float: "finite float", bool: "true or false", str: "text", Path: "a path", type(None): "none"}
    return names[wanted]
