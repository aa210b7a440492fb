"""The rules of the house, read from the source text: who may import whom, sizes, docstrings, what is packaged.

Each rule is a function from source text to a list of complaints, so that the rule itself is tested on bad sources.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 450
FOLDERS = ("jsplat", "kernels", "tests", "bench", "scripts")

# Room -> rooms it may import, besides itself. Rows stand below all that they import: arrows go one way.
MAY_IMPORT: dict[str, set[str]] = {
    "kernels": set(),
    "errors": set(),
    "version": set(),
    "config": {"errors"},
    "runtime": {"errors", "version"},
    "files": {"errors", "runtime"},
    "labelsets": {"errors"},
    "raster": {"errors", "kernels", "runtime"},
    "captures": {"errors", "files", "labelsets", "raster", "runtime"},
    "metrics": {"errors", "labelsets", "raster"},
    "exchange": {"captures", "errors", "files", "labelsets", "raster"},
    "training_sets": {"captures", "errors", "exchange", "files", "labelsets", "metrics"},
    "synthetic": {"captures", "errors", "labelsets", "raster", "runtime"},
    "fitting": {"captures", "errors", "files", "labelsets", "metrics", "raster", "runtime"},
    "labels": {"errors", "labelsets", "raster", "runtime"},
    "views": {"captures", "errors", "raster", "runtime"},
    "variants": {"captures", "errors", "labelsets", "raster", "runtime", "training_sets", "views"},
    "parser": {"errors", "files", "labels", "labelsets", "metrics", "raster", "runtime", "training_sets"},
    "edit": {"captures", "errors", "files", "labels", "labelsets", "metrics", "raster", "runtime"},
    "study": {"captures", "errors", "labelsets", "metrics"},
    "report": {"errors", "files", "labelsets", "metrics"},
}
MAY_IMPORT["pipeline"] = {*MAY_IMPORT} - {"kernels"}
MAY_IMPORT["cli"] = {"config", "errors", "files", "pipeline", "runtime", "version"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = {"version"}  # what `__init__.pyi` names is imported when it is used
# Package -> the only rooms that may import it.
PICTURES = {"captures", "pipeline", "report", "study", "training_sets"}
RESERVED = {"flax": {"parser"}, "click": {"cli"}, "cv2": PICTURES, "PIL": {"captures"}}
KERNELS_MAY_IMPORT = {"jax", "numpy", "jaxtyping"}
OUTSIDE = {"tests", "bench", "scripts", "configs"}
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "orbax": "orbax-checkpoint",
    "lazy_loader": "lazy-loader",
    "PIL": "pillow",
}
NAMELESS = {"util", "utils", "helpers", "misc", "common"}


def sources(*folders: str) -> dict[str, str]:
    """Path relative to the repository -> source text."""
    files = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    return {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in files}


def module_of(path: str) -> str:
    """The dotted name under which a file is imported."""
    parts = list(Path(path).with_suffix("").parts)
    parts[:1] = ["jsplat", parts[0]] if parts[0] in ("kernels", "configs") else parts[:1]
    return ".".join(parts)


def room_of(module: str) -> str:
    """jsplat.parser.train -> parser."""
    return [*module.split("."), "__init__"][1]


def imports(module: str, source: str) -> Iterable[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, wherever in the file; relative names are resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def import_complaints(path: str, source: str, declared: set[str]) -> list[str]:
    """Imports that the house forbids to this file."""
    module = module_of(path)
    room, found = room_of(module), []
    if room not in MAY_IMPORT:
        return [f"{path}: in no room; say in tests/test_house.py and in the map of docs/how_it_works.md what it is"]
    for line, name in imports(module, source):
        top = name.split(".")[0]
        where = f"{path}:{line}: {room} imports {'jsplat.' + room_of(name) if top == 'jsplat' else name}"
        if top == "jsplat":
            if room_of(name) not in MAY_IMPORT[room] | {room}:
                found.append(f"{where}: may import only {sorted(MAY_IMPORT[room])}")
        elif top in OUTSIDE:
            found.append(f"{where}: nothing imports {top}")
        elif top not in sys.stdlib_module_names:
            if top in RESERVED and room not in RESERVED[top]:
                found.append(f"{where}: only {sorted(RESERVED[top])} may")
            if room == "kernels" and top not in KERNELS_MAY_IMPORT:
                found.append(f"{where}: kernels know {sorted(KERNELS_MAY_IMPORT)} only")
            if DISTRIBUTIONS.get(top, top) not in declared:
                found.append(f"{where}: not among the dependencies in pyproject.toml")
    return list(dict.fromkeys(found))


def shape_complaints(path: str, source: str) -> list[str]:
    """Files too long or without a real name, and annotations that a runtime check cannot read."""
    found, lines = [], source.count("\n")
    if lines > LONGEST:
        found.append(f"{path}: {lines} lines, at most {LONGEST}")
    if Path(path).stem in NAMELESS:
        found.append(f"{path}: put each function into the file of the noun it is about")
    if any(name == "__future__.annotations" for _, name in imports("m", source)):
        found.append(f"{path}: annotations as text escape the shape checks")
    return found


def docstring_complaints(path: str, source: str) -> list[str]:
    """Modules, and public functions, classes and methods, that do not say what they are."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not tree.body else [f"{path}: module has no docstring"]

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            if any(isinstance(by, ast.Name) and by.id == "overload" for by in node.decorator_list):
                continue  # the function itself says what it is
            if not ast.get_docstring(node):
                found.append(f"{path}:{node.lineno}: {prefix}{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{node.name}.")

    visit(tree.body, "")
    return found


def commands(source: str) -> list[str]:
    """Names of the click commands in a source text: the first text given to `.command()`, or the function's name."""
    names = []
    for node in ast.walk(ast.parse(source)):
        for call in getattr(node, "decorator_list", []):
            function = call.func if isinstance(call, ast.Call) else call
            if isinstance(function, ast.Attribute) and function.attr == "command":
                given = (
                    [*call.args, *(k.value for k in call.keywords if k.arg == "name")] if function is not call else []
                )
                texts = [a.value for a in given if isinstance(a, ast.Constant)]
                names.append(texts[0] if texts else re.sub("_(command|cmd)$", "", node.name).replace("_", "-"))
    return names


def unmentioned(readme: str, names: list[str]) -> list[str]:
    """Commands that a page does not show as `jsplat NAME`."""
    return [name for name in names if not re.search(rf"\bjsplat {re.escape(name)}(?![\w-])", readme)]


def dependencies(requirements: Iterable[str]) -> set[str]:
    """Bare names of requirement lines."""
    names = (re.match(r"[\w.-]+", line) for line in requirements)
    return {m.group().lower().replace("_", "-") for m in names if m}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everybody_imports_only_whom_they_may(project):
    optional = project["project"]["optional-dependencies"]["export"]
    declared = dependencies([*project["project"]["dependencies"], *optional])
    files = sources("jsplat", "kernels")
    assert {room_of(module_of(path)) for path in files} == {*MAY_IMPORT}
    assert [c for path, text in files.items() for c in import_complaints(path, text, declared)] == []


def test_arrows_go_one_way():
    rooms = [*MAY_IMPORT]
    assert [(a, b) for a in rooms for b in MAY_IMPORT[a] if a != "__init__" and rooms.index(b) >= rooms.index(a)] == []


def test_files_are_short_and_named_for_what_they_hold():
    assert [c for path, text in sources(*FOLDERS).items() for c in shape_complaints(path, text)] == []


def test_everything_public_says_what_it_is():
    assert [c for path, text in sources("jsplat", "kernels").items() for c in docstring_complaints(path, text)] == []


def test_links_between_pages_lead_somewhere():
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name / "README.md" for name in ("bench", "kernels")),
    ]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)", page.read_text())]
    assert len(links) > 20
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_list_of_commands_is_whole():
    names = [name for text in sources("jsplat/cli").values() for name in commands(text)]
    assert "demo" in names
    assert unmentioned((ROOT / "docs/commands.md").read_text(), names) == []


def test_every_package_is_installed(project):
    packages = {module_of(path).rpartition(".")[0] for path in sources("jsplat", "kernels", "configs")}
    assert packages == set(project["tool"]["setuptools"]["packages"])


def test_the_lock_has_versions_and_hashes_and_nothing_of_the_machine_that_made_it(project):
    text = (ROOT / "requirements.lock").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    pins = [line for line in lines if not line.startswith(" ")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; [^;\\]+)? \\", line) for line in pins)
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines if line not in pins)
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    assert dependencies(wanted) <= dependencies(pins)


# The rules themselves: each complains about a bad source and is quiet about a good one.


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        (
            "jsplat/raster/a.py",
            "from jsplat.fitting import fit",
            "jsplat/raster/a.py:1: raster imports jsplat.fitting: may",
        ),
        ("jsplat/fitting/a.py", "from jsplat import labels", "fitting imports jsplat.labels: may import only"),
        (
            "jsplat/fitting/a.py",
            "def f():\n    import jsplat.views",
            "jsplat/fitting/a.py:2: fitting imports jsplat.views",
        ),
        ("jsplat/fitting/a.py", "from .. import kernels", "fitting imports jsplat.kernels"),
        ("jsplat/parser/train.py", "from ..views import x", "parser imports jsplat.views"),
        ("jsplat/fitting/a.py", "from jsplat.kernels.blend import blend, xla", "fitting imports jsplat.kernels: may"),
        (
            "jsplat/synthetic/__init__.py",
            "from jsplat.report.figures import legend",
            "synthetic imports jsplat.report: may",
        ),
        ("jsplat/config.py", "from jsplat.fitting import Config", "config imports jsplat.fitting"),
        ("jsplat/fitting/a.py", "from jsplat import rasterize", "fitting imports jsplat.rasterize"),
        ("jsplat/raster/a.py", "import flax", "raster imports flax: only ['parser'] may"),
        ("jsplat/fitting/a.py", "import cv2", "fitting imports cv2: only"),
        ("jsplat/exchange/a.py", "from PIL import Image", "exchange imports PIL.Image: only ['captures'] may"),
        ("jsplat/pipeline/a.py", "from click import echo", "pipeline imports click.echo: only ['cli'] may"),
        ("jsplat/labels/a.py", "import pandas.io", "not among the dependencies in pyproject.toml"),
        ("jsplat/labels/a.py", "import bench.run", "labels imports bench.run: nothing imports bench"),
        ("kernels/blend/xla.py", "import optax", "kernels know"),
        ("kernels/select.py", "from jsplat.errors import InputError", "kernels imports jsplat.errors: may"),
        ("jsplat/stuff.py", "", "jsplat/stuff.py: in no room"),
    ],
)
def test_a_forbidden_import_is_found(path, source, complaint):
    (found,) = import_complaints(path, source, {"opencv-python-headless", "click", "flax", "optax", "pillow"})
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jsplat/fitting/a.py", "import os, jax\nfrom jsplat import raster\nfrom jsplat.raster.scene import Scene"),
        ("jsplat/parser/train.py", "import flax.nnx\nfrom .bisenet import BiSeNet\nfrom jsplat.parser import weights"),
        ("jsplat/raster/a.py", "from jsplat.kernels import select"),
        ("kernels/blend/xla.py", "import jax\nfrom ..constants import X\nfrom jsplat.kernels.tiling import tile"),
        ("jsplat/captures/a.py", "import cv2"),
        ("jsplat/pipeline/a.py", "from jsplat import fitting, config, captures"),
    ],
)
def test_an_allowed_import_is_not(path, source):
    assert import_complaints(path, source, {"jax", "flax", "opencv-python-headless"}) == []


@pytest.mark.parametrize(
    ("path", "source", "complaints"),
    [
        ("jsplat/a.py", "x = 1\n" * LONGEST, 0),
        ("jsplat/a.py", "x = 1\n" * (LONGEST + 1), 1),
        ("tests/utils.py", "", 1),
        ("jsplat/a.py", "from __future__ import annotations\n", 1),
    ],
)
def test_the_shape_of_a_file_is_watched(path, source, complaints):
    assert len(shape_complaints(path, source)) == complaints


def test_a_missing_docstring_is_found():
    source = "def f(): pass\ndef _g(): pass\nclass C:\n    'Doc.'\n    def m(self): pass\n    def __len__(self): pass\n"
    found = docstring_complaints("m.py", source)
    assert found == ["m.py: module has no docstring", "m.py:1: f has no docstring", "m.py:5: C.m has no docstring"]
    assert docstring_complaints("m.py", "") == []


def test_commands_are_found_and_missed_in_a_readme():
    source = (
        "@main.command()\ndef train_parser(): pass\n@main.command('run')\ndef f(): pass\n"
        "@main.command(name='demo', help='x')\ndef g(): pass\n@main.command\ndef fit_command(): pass\n"
        "@main.option('x')\ndef no(): pass\n"
    )
    assert commands(source) == ["train-parser", "run", "demo", "fit"]
    assert unmentioned("`jsplat train-parser`, jsplat runs, jsplat demo-x, jsplat fit.", commands(source)) == [
        "run",
        "demo",
    ]
