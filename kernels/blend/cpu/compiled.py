"""The compiled library of this folder's C++: built where the package is installed, loaded when `blend` asks for it.

Only the standard library is imported at the top, so that `setup.py` can use this file before anything is installed.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("blend.cc", "blend.h", "lists.h", "parallel.h", "tiles.h", "workspace.h")
NAME = "libblend.so"
OPERATIONS = ("forward", "backward", "splat_sums")
DTYPES = ("float32", "float64")
# NaN and infinity are handled, so no -ffast-math; multiply and add may become one instruction.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-pthread")


def source_hash() -> str | None:
    """Of what the library is built from; None where the sources are not installed."""
    files = [HERE / name for name in SOURCES]
    if not all(file.exists() for file in files):
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def compiler() -> str | None:
    """The C++ compiler: that of the environment variable CXX, or the first that is found."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((name for name in names if name and shutil.which(name.split()[0])), None)


def command(sources: list[str], out: Path, *flags: str) -> list[str]:
    """How a program or library of these sources is compiled.

    Raises:
        RuntimeError: there is no compiler, or no jaxlib, whose headers say how XLA calls.
    """
    found, jaxlib = compiler(), importlib.util.find_spec("jaxlib")
    if found is None:
        raise RuntimeError("no C++ compiler: install one (apt install g++) or name it in CXX")
    if jaxlib is None or not jaxlib.origin:
        raise RuntimeError("no jaxlib, whose headers the C++ needs")
    headers = f"-isystem{Path(jaxlib.origin).parent / 'include'}"
    return [*found.split(), *FLAGS, headers, *flags, *sources, "-o", str(out)]


def build(out: Path = HERE / NAME) -> None:
    """Compiles the library (half a minute) under a temporary name, then gives it its own.

    Raises:
        RuntimeError: with what the compiler said.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f"{out.name}.{os.getpid()}")
    how = ("-shared", "-fPIC", "-fvisibility=hidden", f'-DJSPLAT_SOURCE="{source_hash()}"')
    done = subprocess.run(command([str(HERE / "blend.cc")], fresh, *how), capture_output=True, text=True)
    if done.returncode:
        fresh.unlink(missing_ok=True)
        raise RuntimeError(done.stderr[-2000:])
    fresh.replace(out)


@functools.cache
def load() -> ctypes.CDLL | str:
    """The library with its functions registered with XLA, or why there is none ("wanted ..., got ...")."""
    if not (HERE / NAME).exists():
        return "wanted the library of kernels/blend/cpu, got none: no C++ compiler when jsplat was installed"
    try:
        library = ctypes.CDLL(str(HERE / NAME))
    except OSError as error:
        return f"wanted the library of kernels/blend/cpu, got one for another machine ({error})"
    for name in ("jsplat_source", "jsplat_instruction_set"):
        getattr(library, name).restype = ctypes.c_char_p
    built_from = library.jsplat_source().decode()
    if (source := source_hash()) not in (None, built_from):
        return f"wanted the library of kernels/blend/cpu built from {source}, got {built_from}: pip install -e . again"
    library.jsplat_lists_made.restype = ctypes.c_int64
    import jax

    try:
        for operation in OPERATIONS:
            for dtype in DTYPES:
                name = f"jsplat_{operation}_{dtype}"
                jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except Exception as error:  # a jaxlib that calls in another way than the headers of the one it was built with
        return f"wanted a library that jaxlib can call, got {error}: pip install jsplat again"
    return library


def problem() -> str | None:
    """Why the library cannot be used, or None."""
    found = load()
    return found if isinstance(found, str) else None


def instruction_set() -> str:
    """What the loaded library's kernels use on this processor."""
    found = load()
    return platform.machine() if isinstance(found, str) else found.jsplat_instruction_set().decode()


if __name__ == "__main__":
    build()
