"""Settings: the defaults of frozen dataclasses, then a TOML file, then `--set stage.field=value`; the last one counts.

The settings of a whole run are one dataclass with a field per stage, each of them a frozen dataclass that lives beside
its stage. This file knows none of them: it works on any dataclass whose fields all have defaults.
"""

import dataclasses
import difflib
import fnmatch
import inspect
import json
import math
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsplat.errors import InputError

T = typing.TypeVar("T")
_ALL = "`jsplat settings` prints all of them, to begin a file with"


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
        config = _merge(config, _read_toml(toml_path), f"{toml_path.name}: ", "", _known(config))
    for text in overrides:
        config = _merge(config, _changes(text), "--set ", "", _known(config))
    return config


def named(overrides: Sequence[str]) -> list[str]:
    """Dotted names of the settings that overrides give a value.

    Raises:
        InputError: a text that is no override.
    """

    def names(changes: dict, prefix: str) -> list[str]:
        each = (names(v, f"{prefix}{k}.") if isinstance(v, dict) else [prefix + k] for k, v in changes.items())
        return [name for found in each for name in found]

    return [name for text in overrides for name in names(_changes(text), "")]


def to_toml(config: typing.Any, notes: Mapping[str, str] | None = None, only: str | None = None) -> str:
    """Every setting as TOML that `load` reads back, under what its docstring ("Attributes") says of it.

    Args:
        notes: more to say of a table, by its name.
        only: the one table to write, with all within it.
    """
    lines = (
        _toml_lines(config, "", notes or {}) if only is None else _toml_lines(getattr(config, only), only, notes or {})
    )
    return "\n".join(lines).strip() + "\n"


def _toml_lines(config: typing.Any, name: str, notes: Mapping[str, str]) -> list[str]:
    summary, about = _documented(type(config))
    lines, tables, documented = [*_comment(summary), *_comment(notes.get(name, ""))], [], set()
    lines += [f"[{name}]"] if name else [""]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        names, text = next((a for a in about if any(fnmatch.fnmatch(field.name, n) for n in a[0])), ((), ""))
        table = dataclasses.is_dataclass(value)
        alone = names == (field.name,) and not table
        comment = _comment(text if alone else f"{', '.join(names)}: {text}") if text else []
        if table:
            tables += ["", *comment, *_toml_lines(value, f"{name}.{field.name}".lstrip("."), notes)]
        else:
            lines += [] if names in documented else comment
            lines.append(f"{field.name} = {_toml_value(value)}")
        documented.add(names)
    return lines + tables


def _documented(cls: type) -> tuple[str, list[tuple[tuple[str, ...], str]]]:
    """The first paragraph of a docstring, and what it and those of its bases say under "Attributes" of which fields."""
    entries, summary = [], ""
    for of in cls.__mro__:
        text = inspect.cleandoc(of.__dict__.get("__doc__") or "")
        if not dataclasses.is_dataclass(of) or text.startswith(f"{of.__name__}("):
            continue  # dataclasses write that where nobody wrote anything
        head, _, attributes = text.partition("\nAttributes:\n")
        summary = summary or head.partition("\n\n")[0]
        entries += re.findall(r"^    ([\w*, ]+): (.*(?:\n     +.*)*)", attributes, re.MULTILINE)
    return summary, [(tuple(n.strip() for n in names.split(",")), text) for names, text in entries]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 118, initial_indent="# ", subsequent_indent="# ")


def _toml_value(value: typing.Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, (str, Path)) or value is None:
        return json.dumps("none" if value is None else str(value), ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def to_json(config: typing.Any) -> dict:
    """The settings as nested dicts of JSON values: tuples become lists, paths and infinity (JSON has none) texts."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_json(cls: type[T], data: dict, where: str) -> T:
    """The settings that `to_json` wrote, of a class without fields that may be None.

    Raises:
        InputError: (`where`: the file and the table) an unknown key, as of another version, or a value of a wrong type.
    """
    config = cls()
    try:
        return _merge(config, data, f"{where}: ", "", _known(config))
    except InputError as error:
        hint = "another version of jsplat wrote it; the command that made this folder makes it again"
        raise InputError(**{**error.parts, "hint": hint}) from error


def _plain(value: typing.Any) -> typing.Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) or value == math.inf else value


def _read_toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(str(path), wanted="a TOML file", got="no such file", hint=_ALL) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), wanted="a TOML file", got=error) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(str(path), wanted="a TOML file", got=error, hint=_ALL) from error


def _changes(override: str) -> dict:
    """What one "stage.field=value" changes, as the tables of a TOML file."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        got = "no key" if equals else "no '='"
        raise InputError(f"--set {override}", wanted="stage.field=value, as fit.steps=1000", got=got, hint=_ALL)
    changes: typing.Any = _parse(value.strip())
    for part in reversed(key.strip().split(".")):
        changes = {part: changes}
    return changes


def _parse(text: str) -> typing.Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _known(config: typing.Any) -> dict[str, str]:
    """Dotted names of all settings, and the new names of those that are called otherwise now (`MOVED` of the class)."""
    return dict.fromkeys(_leaves(config), "") | getattr(type(config), "MOVED", {})


def _leaves(config: typing.Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        names += _leaves(value, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return names


def _merge(config: typing.Any, changes: dict, source: str, prefix: str, known: Mapping[str, str]) -> typing.Any:
    hints = typing.get_type_hints(type(config), include_extras=True)
    new = {}
    for key, value in changes.items():
        name = prefix + key
        if key not in {f.name for f in dataclasses.fields(config)}:
            nearest = known.get(name) or _nearest(name, [key for key, moved in known.items() if not moved])
            wanted = f"{nearest}, as it is called now" if name in known else f"a known key (nearest: {nearest})"
            raise InputError(f"{source}{name}", wanted=wanted, got=repr(name), hint=_those_of(nearest))
        old = getattr(config, key)
        if not dataclasses.is_dataclass(old):
            new[key] = _coerce(value, hints[key], source + name)
        elif isinstance(value, dict):
            new[key] = _merge(old, value, source, f"{name}.", known)
        else:
            field = dataclasses.fields(old)[0].name
            wanted = f"one of its fields, as {name}.{field}"
            raise InputError(f"{source}{name}", wanted=wanted, got=repr(value), hint=_those_of(f"{name}.{field}"))
    try:
        return dataclasses.replace(config, **new)
    except InputError as error:  # of values that do not fit: said by the names they are set under
        raise error.at(source + re.sub(rf"^{type(config).__name__}\b\.?(: )?", prefix, error.what)) from error


def _those_of(name: str) -> str:
    """Where to read what the settings of a stage are."""
    stage = name.rpartition(".")[0].partition(".")[0]
    return f"`jsplat settings {stage}` prints them with what they are" if stage else _ALL


def _nearest(name: str, known: list[str]) -> str:
    """The right field in the wrong stage is nearer than a similar field in the right one."""
    field = name.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == field]
    return difflib.get_close_matches(name, same or known, 1, 0.0)[0]


def _coerce(value: typing.Any, wanted: typing.Any, where: str) -> typing.Any:
    """`value` as the annotated type; exact, except that an int may stand for a float and a list for a tuple."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        for option in sorted(options, key=lambda o: o is not type(None)):  # "none" is a text too
            try:
                return _coerce(value, option, where)
            except InputError:
                continue
    elif origin is typing.Literal:
        if any(value == o and type(value) is type(o) for o in options):
            return value
    elif origin is typing.Annotated:  # [float, math.inf]: may be infinite
        if value in (math.inf, "inf"):
            return math.inf
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
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
    if origin is typing.Annotated:
        return f"{_describe(options[0])} or {options[1]}"
    if origin is tuple and options[-1] is Ellipsis:
        return f"a list, each {_describe(options[0])}"
    if origin is tuple:
        return f"a list [{', '.join(_describe(o) for o in options)}]"
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", Path: "a path"}
    names[type(None)] = "none"
    return names[wanted]
