"""What `import jsplat` offers: every name is there, says what it is, and costs nothing before it is used."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jsplat
from tests.test_house import docstring_complaints

STUB = Path(jsplat.__file__).with_suffix(".pyi")


def test_every_name_is_there_and_listed():
    tree = ast.parse(STUB.read_text())
    named = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    listed = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign))
    assert sorted(named) == listed == sorted(jsplat.__all__)
    assert [name for name in listed if not inspect.getdoc(getattr(jsplat, name))] == []
    assert {"rasterize", "fit", "lift", "vote", "predict", "read_capture"} <= {*listed}


@pytest.mark.parametrize("name", ["rasterize", "fit", "vote", "sharpen", "lift", "predict", "capacity_for", "blend"])
def test_what_people_call_describes_its_arguments(name):
    function = getattr(jsplat, name)
    text = inspect.getdoc(function)
    assert [p for p in inspect.signature(function).parameters if p not in text] == []


def test_importing_it_waits_for_no_library():
    heavy = "'jax', 'flax', 'orbax', 'cv2'"
    code = f"import sys, jsplat; print(jsplat.__version__, [m for m in ({heavy}) if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == [jsplat.__version__, "[]"]


def test_the_stub_goes_along():
    assert docstring_complaints("x", inspect.getsource(jsplat)) == []
    assert STUB.is_file()
    assert STUB.with_name("py.typed").is_file()
