"""What all tests share. Imports nothing of the package: the shape checks must be in place before it is loaded."""

import functools
import os
import sys
import tempfile

import jax
import pytest
from hypothesis import settings

# For this process and for those that tests start; an accelerator is tested with JAX_PLATFORMS=cuda.
jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))

# No deadline: the first example compiles. The same examples every time, so that a failure is a property of the commit.
settings.register_profile("jsplat", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("jsplat")


def pytest_configure(config):
    """One cache of compiled programs for both workers and all programs that tests start; the user's is left alone.

    Who names a folder (JAX_COMPILATION_CACHE_DIR) keeps them from run to run.
    """
    from tests import processes, quickly

    if config.getoption("--thorough"):
        processes.QUICK.clear()  # then all programs are compiled as users compile them
    elif os.environ["JAX_PLATFORMS"] == "cpu":
        quickly.install()
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="jsplat-tests-")
    config.add_cleanup(folder.cleanup)
    cache = os.path.join(folder.name, "jsplat")  # where our commands would put it
    os.environ |= {"XDG_CACHE_HOME": folder.name, "JAX_COMPILATION_CACHE_DIR": cache}
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # most programs are small, and many
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="More kills, more hosts, more without the wrong fusion.")


def pytest_collection_modifyitems(items):
    """The files that take longest first, or one core would wait for them at the end."""
    first = ("test_survival", "devices", "test_sharded", "test_gpu_check", "test_programs", "test_pipeline")
    first += ("test_parser_training", "test_votes", "test_variants")
    items.sort(key=lambda item: not any(name in item.nodeid for name in first))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    from tests import quickly

    quickly.choose(item)


@pytest.fixture(autouse=True)
def _subnormals():
    """Code that PyTorch compiles flushes subnormal numbers to zero from then on: the next test gets them back."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def made(tmp_path):
    """Writes somebody's capture in its layout, and lets its JSON be changed."""
    import layouts

    return functools.partial(layouts.make, tmp_path / "7")
