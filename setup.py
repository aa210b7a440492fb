"""The compiled kernel for processors; everything else stands in pyproject.toml.

Where there is no C++ compiler the build goes on without it, and `blend` takes XLA. JSPLAT_PURE=1 asks for that: a wheel
for every machine.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "kernels/blend/cpu"
_spec = importlib.util.spec_from_file_location("compiled", Path(__file__).parent / FOLDER / "compiled.py")
compiled = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compiled)


class Build(build_ext):
    """A library that ctypes loads: it needs nothing of Python's headers and has no version of Python in its name."""

    def get_ext_filename(self, fullname):
        return f"{fullname.replace('.', os.sep)}.so"

    def build_extension(self, ext):
        try:
            compiled.build(Path(self.get_ext_fullpath(ext.name)))
        except (RuntimeError, OSError) as error:
            raise CompileError(f"the kernel for processors was not built, XLA takes its place: {error}") from error


class Wheel(bdist_wheel):
    """With the library for one kind of machine, but for every Python."""

    def get_tag(self):
        python, abi, machine = super().get_tag()
        return (python, abi, machine) if self.root_is_pure else ("py3", "none", machine)


EXTENSION = Extension(
    f"jsplat.kernels.blend.cpu.{compiled.NAME.removesuffix('.so')}",
    sources=[f"{FOLDER}/blend.cc"],
    depends=[f"{FOLDER}/{name}" for name in compiled.SOURCES],
    optional=True,
)
setup(
    ext_modules=[] if os.environ.get("JSPLAT_PURE") == "1" else [EXTENSION],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
)
