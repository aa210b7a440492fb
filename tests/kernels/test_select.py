"""The choice of an implementation: never silent, never at import time."""

import subprocess
import sys
import types

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bench.aot.target import lowering_for
from jsplat.kernels import primitives, select
from jsplat.kernels.blend import BACKENDS, IMPLEMENTATIONS, blend, sums
from jsplat.kernels.blend.cases import CAPACITY, CASES, SIZE
from jsplat.kernels.blend.cpu import compiled
from tests.close import assert_close


def gpu(capability: str) -> types.SimpleNamespace:
    """A device that only answers what is asked of it."""
    client = types.SimpleNamespace(platform_version="PJRT C API\ncuda 13000")
    return types.SimpleNamespace(platform="gpu", device_kind="NVIDIA GPU", compute_capability=capability, client=client)


def chosen(device, *, name=None, dtype=np.float32, channels=22):
    return select.choose("blend", IMPLEMENTATIONS, name, select.Facts(device, np.dtype(dtype), channels))


@pytest.mark.parametrize("capability", ["9.0", "10.0", "10.3"])
def test_hopper_and_blackwell_get_the_mosaic_kernels(capability):
    assert chosen(gpu(capability)) == "mosaic_gpu"
    assert chosen(gpu(capability), dtype=np.float64) == "xla"


@pytest.mark.parametrize("capability", ["8.0", "8.9", "12.0"])
def test_other_nvidia_gpus_get_the_triton_kernels(capability):
    assert chosen(gpu(capability)) == "triton"
    with pytest.raises(ValueError, match=rf"mosaic_gpu: wanted .* 9.0 or 10.x, got NVIDIA GPU of {capability}"):
        chosen(gpu(capability), name="mosaic_gpu")


def test_too_many_channels_are_left_to_others():
    assert chosen(gpu("9.0"), channels=64) == "mosaic_gpu"
    assert chosen(gpu("9.0"), channels=65) == "triton"
    with pytest.raises(ValueError, match="mosaic_gpu: wanted 1 to 64 channels, got 65"):
        chosen(gpu("9.0"), name="mosaic_gpu", channels=65)


def test_older_gpus_get_xla():
    assert chosen(gpu("7.5")) == "xla"
    with pytest.raises(ValueError, match=r"triton: wanted .* 8.0 or later, got NVIDIA GPU of 7.5"):
        chosen(gpu("7.5"), name="triton")


def test_a_processor_gets_the_library_that_was_built_for_it():
    assert chosen(jax.devices("cpu")[0]) == ("xla" if compiled.problem() else "cpu")
    with pytest.raises(ValueError, match=r"blend: backend: mosaic_gpu: wanted an NVIDIA GPU .*, got .*\(cpu\)"):
        blend(*CASES["one"]().arrays(), size=SIZE, capacity=CAPACITY, backend="mosaic_gpu")


def test_another_makers_gpu_gets_xla():
    other = gpu("9.0")
    other.client = types.SimpleNamespace(platform_version="rocm 60000")
    assert chosen(other) == "xla"


def test_a_library_of_other_sources_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "problem", compiled.load.__wrapped__)
    monkeypatch.setattr(compiled, "source_hash", lambda: "0123456789abcdef")
    if (compiled.HERE / compiled.NAME).exists():
        assert chosen(jax.devices("cpu")[0]) == "xla"
        with pytest.raises(ValueError, match=r"cpu: wanted the library .* built from 0123456789abcdef, got .* again"):
            chosen(jax.devices("cpu")[0], name="cpu")
    monkeypatch.setattr(compiled, "HERE", tmp_path)
    with pytest.raises(ValueError, match=r"cpu: wanted the library .*, got none: no C\+\+ compiler"):
        chosen(jax.devices("cpu")[0], name="cpu")


def test_the_last_one_never_declines():
    assert BACKENDS[-1] == "xla"
    assert IMPLEMENTATIONS["xla"].declines(select.Facts(gpu("1.0"), np.dtype(np.int8), 0)) is None


def test_the_default_device_is_the_one_that_jax_uses():
    assert select.default_device() == next(iter(jnp.zeros(()).devices()))
    with jax.default_device("cpu"):
        assert select.default_device().platform == "cpu"


def test_an_import_touches_no_device():
    code = (
        "import jsplat.kernels.blend, jsplat.kernels.select\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_block_chooses_for_programs_that_were_traced_before():
    splats = CASES["one"]().arrays()
    draw = jax.jit(lambda *arrays: blend(*arrays, size=SIZE, capacity=CAPACITY).channels)

    def in_cpp() -> bool:
        return "custom_call @jsplat_forward" in draw.lower(*splats).as_text()

    assert in_cpp() == (not compiled.problem())
    with select.use_backend("xla"):
        assert not in_cpp()
    assert in_cpp() == (not compiled.problem())
    with select.use_backend("triton"), pytest.raises(ValueError, match="triton: wanted an NVIDIA GPU"):
        draw(*splats)
    with select.use_backend("cuda"), pytest.raises(ValueError, match=r"wanted one of .* or None, got 'cuda'"):
        draw(*splats)


# Under jit


def image(*args):
    return blend(*args, size=SIZE, capacity=CAPACITY).channels


def gradients(*args):
    return jax.grad(lambda *x: image(*x).sum(), (0, 1, 2, 4))(*args)


def shown(*args):
    pictures = jnp.ones((1, SIZE[1], SIZE[0], 2), args[0].dtype)
    return image(*args), gradients(*args), sums.splat_sums(*args[:4], pictures, capacity=CAPACITY)[0]


def lowered(platform, *args):
    jax.clear_caches()  # of what was lowered for other devices
    with lowering_for("NVIDIA H100 80GB HBM3"):
        return jax.jit(gradients).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def test_beside_a_gpu_a_program_still_fits_the_processor_it_is_for(monkeypatch):
    args = CASES["random"]().arrays()
    want = shown(*args)
    monkeypatch.setattr(select, "default_device", lambda: gpu("9.0"))
    for got, wanted in zip(jax.tree.leaves(jax.jit(shown)(*args)), jax.tree.leaves(want)):
        assert_close(got, wanted, 1e-5, "float32, another program", relative=True)


@pytest.mark.parametrize(("capability", "kernel"), [("9.0", "mosaic_gpu"), ("8.0", "triton"), ("7.5", None)])
def test_a_program_for_a_gpu_of_this_process_has_its_best_kernel(monkeypatch, capability, kernel):
    monkeypatch.setattr(primitives, "device_for", lambda platform: gpu(capability))
    text = lowered("cuda", *CASES["one"]().arrays())
    assert [name for name in ("mosaic_gpu", "triton") if name in text and name == kernel] == [kernel] * (
        kernel is not None
    )
    assert ("stablehlo.while" in text) == (kernel is None)


def test_a_program_for_a_gpu_elsewhere_has_the_kernel_that_runs_on_most():
    text = lowered("cuda", *CASES["one"]().arrays())
    assert "blend_backward" in text
    assert "stablehlo.while" not in text
    with jax.enable_x64(True):
        text = lowered("cuda", *CASES["one"]().arrays(np.float64))
    assert "stablehlo.while" in text


def test_what_is_exported_for_several_platforms_runs_on_this_one():
    args = CASES["random"]().arrays()
    with lowering_for("NVIDIA A100"):
        kernels = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
        program = jax.export.export(jax.jit(shown), platforms=("cpu", "cuda"), disabled_checks=[kernels])(*args)
    assert "blend_backward" in program.mlir_module()
    got = jax.export.deserialize(program.serialize()).call(*args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(shown(*args))):
        assert_close(one, other, 1e-5, "float32, by other means", relative=True)


def test_who_asks_for_a_backend_gets_it_under_jit():
    with select.use_backend("xla"):
        text = lowered("cuda", *CASES["one"]().arrays())
    assert "stablehlo.while" in text
