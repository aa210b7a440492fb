"""Settings: what wins over what, and what an error says."""

import ast
import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest

from jsplat.config import from_json, load, named, to_json, to_toml
from jsplat.errors import InputError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


@dataclasses.dataclass(frozen=True)
class Fit:
    steps: int = 100
    rate: float = 0.5
    antialias: bool = True
    name: str = "plain"
    loss: Literal["l1", "l2"] = "l1"
    size: tuple[int, int] = (3, 4)
    rates: tuple[float, ...] = (1.0,)
    seed: int | None = None
    mask: Path | None = None
    front: str | None = None
    sigma: Annotated[float, math.inf] = 40.0


@dataclasses.dataclass(frozen=True)
class Views:
    yaw: tuple[float, float] = (-90.0, 90.0)
    number: int = 7

    def __post_init__(self):
        if self.number < 1:
            raise InputError("views.number", wanted="at least 1", got=self.number)


@dataclasses.dataclass(frozen=True)
class Run:
    fit: Fit = Fit()
    views: Views = Views()


def test_defaults_are_beaten_by_toml_and_toml_by_overrides(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text("[fit]\nsteps = 5\nrate = 2\n[views]\nyaw = [0, 30]\n")
    config = load(Run, path, ["fit.steps=6", "fit.steps=7"])
    assert config == Run(fit=Fit(steps=7, rate=2.0), views=Views(yaw=(0.0, 30.0)))
    assert type(config.fit.rate) is float
    assert load(Run) == Run()


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("fit.steps=1_000", "steps", 1000),
        ("fit.rate=1e-3", "rate", 1e-3),
        ("fit.rate = 3", "rate", 3.0),
        ("fit.antialias=false", "antialias", False),
        ("fit.name=a b = c", "name", "a b = c"),
        ('fit.name="12"', "name", "12"),
        ("fit.loss=l2", "loss", "l2"),
        ("fit.size=[8, 9]", "size", (8, 9)),
        ("fit.rates=[]", "rates", ()),
        ("fit.rates=[1, 2.5, 3]", "rates", (1.0, 2.5, 3.0)),
        ("fit.seed=4", "seed", 4),
        ("fit.seed=none", "seed", None),
        ("fit.mask=a/b.png", "mask", Path("a/b.png")),
        ("fit.mask=none", "mask", None),
        ("fit.front=none", "front", None),
        ("fit.front=IMG_1.jpg", "front", "IMG_1.jpg"),
    ],
)
def test_values_are_read_with_the_type_of_the_field(text, field, value):
    got = getattr(load(Run, None, [text]).fit, field)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fit.step=1",
            "--set fit.step: wanted a known key (nearest: fit.steps), got 'fit.step'; `jsplat settings fit` prints",
        ),
        ("fit.number=1", "--set fit.number: wanted a known key (nearest: views.number), got 'fit.number'"),
        ("steps=1", "--set steps: wanted a known key (nearest: fit.steps), got 'steps'"),
        ("fit.steps.x=1", "--set fit.steps: wanted a whole number, got {'x': 1} (dict)"),
        ("fit.steps=1.0", "--set fit.steps: wanted a whole number, got 1.0 (float)"),
        ("fit.steps=true", "--set fit.steps: wanted a whole number, got True (bool)"),
        ("fit.rate=nan", "--set fit.rate: wanted a finite number, got nan (float)"),
        ("fit.rate=inf", "--set fit.rate: wanted a finite number, got inf (float)"),
        ("fit.sigma=-inf", "--set fit.sigma: wanted a finite number or inf, got -inf (float)"),
        ("fit.rate=fast", "--set fit.rate: wanted a finite number, got 'fast' (str)"),
        ("fit.antialias=1", "--set fit.antialias: wanted true or false, got 1 (int)"),
        ("fit.name=3", "--set fit.name: wanted a text, got 3 (int)"),
        ("fit.loss=l3", "--set fit.loss: wanted one of 'l1', 'l2', got 'l3' (str)"),
        ("fit.size=[1]", "--set fit.size: wanted a list [a whole number, a whole number], got [1] (list)"),
        ("fit.size=[1, 2.5]", "--set fit.size[1]: wanted a whole number, got 2.5 (float)"),
        ("fit.rates=1", "--set fit.rates: wanted a list, each a finite number, got 1 (int)"),
        ("fit.seed=no", "--set fit.seed: wanted a whole number or none, got 'no' (str)"),
        ("fit.steps=none", "--set fit.steps: wanted a whole number, got 'none' (str)"),
        ("fit=3", "--set fit: wanted one of its fields, as fit.steps, got 3; `jsplat settings fit` prints them"),
        ("fit.steps", "--set fit.steps: wanted stage.field=value, as fit.steps=1000, got no '='"),
        ("=1", "--set =1: wanted stage.field=value, as fit.steps=1000, got no key"),
        ("views.number=0", "--set views.number: wanted at least 1, got 0"),
    ],
)
def test_what_is_wrong_with_an_override_is_said(text, message):
    with pytest.raises(InputError) as error:
        load(Run, None, [text])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fits]\nsteps = 1", "run.toml: fits: wanted a known key (nearest: fit."),
        ("[fit]\nstep = 1", "run.toml: fit.step: wanted a known key (nearest: fit.steps)"),
        ("fit = 1", "run.toml: fit: wanted one of its fields, as fit.steps, got 1"),
        ("fit = [", "run.toml: wanted a TOML file, got "),
        (None, "run.toml: wanted a TOML file, got no such file; `jsplat settings` prints all"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, message):
    path = tmp_path / "run.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        load(Run, path)
    assert message in str(error.value)


def test_a_field_that_no_text_can_fill_is_the_programmers_error():
    @dataclasses.dataclass(frozen=True)
    class Bad:
        table: dict = dataclasses.field(default_factory=dict)

    with pytest.raises(TypeError, match="--set table: settings of type"):
        load(Bad, None, ["table=1"])


def test_settings_become_json():
    config = Run(fit=Fit(mask=Path("a/b"), rates=(1.0, 2.0), sigma=math.inf))
    data = to_json(config)
    assert data["fit"]["mask"] == "a/b"
    assert data["fit"]["rates"] == [1.0, 2.0]
    assert data["fit"]["seed"] is None
    assert data["views"] == {"yaw": [-90.0, 90.0], "number": 7}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_infinity_where_a_field_may_be_infinite(tmp_path):
    config = load(Run, None, ["fit.sigma=inf"])
    assert config.fit.sigma == math.inf
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert load(Run, tmp_path / "run.toml") == config
    stored = json.dumps(to_json(config) | {"fit": {"sigma": to_json(config)["fit"]["sigma"]}}, allow_nan=False)
    assert from_json(Run, json.loads(stored), "run.json") == config


def test_names_of_what_is_overridden():
    assert named(["fit.steps=1", "views = {yaw = [0, 1], number = 2}", "seed=none"]) == [
        "fit.steps",
        "views.yaw",
        "views.number",
        "seed",
    ]


@dataclasses.dataclass(frozen=True)
class Told:
    """What a stage is,
    in two lines.

    No part of that.

    Attributes:
        lr_*: rates: of both.
        one, two: of them
            in two lines.
        fit: of the fit.
    """

    lr_means: float = 1e-7
    lr_quats: float = 2.0
    fit: Fit = Fit()
    two: str = 'a "b"\n\\'
    one: tuple[int, ...] = ()
    bare: bool = False


def test_settings_become_toml_with_what_their_docstrings_say():
    text = to_toml(Told(fit=Fit(mask=Path("ä/b"), front="x", seed=3)), {"fit": "Read by somebody."})
    assert text.split("[fit]")[0].splitlines() == [
        "# What a stage is, in two lines.",
        "",
        "# lr_*: rates: of both.",
        "lr_means = 1e-07",
        "lr_quats = 2.0",
        "# one, two: of them in two lines.",
        'two = "a \\"b\\"\\n\\\\"',
        "one = []",
        "bare = false",
        "",
        "# fit: of the fit.",
        "# Read by somebody.",
    ]
    assert tomllib.loads(text)["fit"]["mask"] == "ä/b"


@pytest.mark.parametrize(
    "config", [Told(), Told(lr_means=3e22, one=(1, 2), fit=Fit(mask=Path("ä/b"), front="x", seed=3))]
)
def test_toml_of_settings_loads_back(config, tmp_path):
    (tmp_path / "all.toml").write_text(to_toml(config), encoding="utf-8")
    assert load(Told, tmp_path / "all.toml") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_committed_file_is_valid_and_differs_from_the_defaults(path):
    from jsplat.pipeline import RunConfig

    assert load(RunConfig, path) != load(RunConfig)


def test_settings_that_pages_and_messages_name_exist():
    from jsplat.pipeline import RunConfig

    config, root = RunConfig(), Path(__file__).parent.parent
    tables = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    known = {"stage.field", "capture.images", *tables, *RunConfig.MOVED}  # the second: an argument in a message
    known |= {f"{t}.{f.name}" for t, c in tables.items() if dataclasses.is_dataclass(c) for f in dataclasses.fields(c)}
    texts = {path.name: path.read_text() for path in [root / "README.md", *(root / "docs").glob("*.md")]}
    for path in (root / "jsplat").rglob("*.py"):
        parts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        texts[f"{path.parent.name}/{path.name}"] = "\n".join(part for part in parts if isinstance(part, str))
    word = re.compile(rf"(?<![\w./])(?:{'|'.join(tables)})\.[a-z_]+(?![\w.])|(?<=--set )[a-z_.]+(?==)")
    found = {(name, setting) for name, text in texts.items() for setting in word.findall(text)}
    assert len(found) > 30
    assert sorted((name, setting) for name, setting in found if setting not in known and ".json" not in setting) == []
