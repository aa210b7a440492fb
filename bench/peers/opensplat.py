"""OpenSplat's rasterizer for processors (three channels, one image) on the same projected Gaussians.

Its source is taken from a checkout that the environment variable OPENSPLAT names, and compiled with PyTorch's headers;
nothing else of OpenSplat is needed. Written from the declarations in `rasterizer/gsplat-cpu/bindings.h`.
"""

import functools
import os
import shutil
from pathlib import Path

from bench.peers import torch
from bench.timing import CannotRunError

SOURCE = Path("rasterizer/gsplat-cpu")

# The list of hits, which only C++ can hold, goes from forward to backward as its address.
_GLUE = """
#include "bindings.h"

std::tuple<torch::Tensor, torch::Tensor, int64_t> forward(torch::Tensor xys, torch::Tensor conics, torch::Tensor colors,
                                                          torch::Tensor opacities, torch::Tensor cov2d,
                                                          torch::Tensor depths, int64_t width, int64_t height) {
  auto [image, rest, hits] = rasterize_forward_tensor_cpu(width, height, xys, conics, colors, opacities,
                                                          torch::zeros({3}), cov2d, depths);
  return {image, rest, reinterpret_cast<int64_t>(hits)};
}

std::tuple<torch::Tensor, torch::Tensor, torch::Tensor, torch::Tensor> backward(
    torch::Tensor xys, torch::Tensor conics, torch::Tensor colors, torch::Tensor opacities, torch::Tensor cov2d,
    torch::Tensor depths, torch::Tensor rest, int64_t hits, torch::Tensor grad) {
  const auto height = grad.size(0), width = grad.size(1);
  return rasterize_backward_tensor_cpu(height, width, xys, conics, colors, opacities, torch::zeros({3}), cov2d, depths,
                                       rest, reinterpret_cast<std::vector<int32_t>*>(hits), grad,
                                       torch::zeros({height, width}));
}

void release(int64_t hits) { delete[] reinterpret_cast<std::vector<int32_t>*>(hits); }

TORCH_LIBRARY(jsplat_bench, library) {
  library.def("forward", forward);
  library.def("backward", backward);
  library.def("release", release);
}
"""


@functools.cache
def _operations():
    """The three operations above, compiled.

    Raises:
        CannotRunError: no checkout, or no ninja, which PyTorch compiles with.
    """
    root = Path(os.environ.get("OPENSPLAT", ""))
    if not (root / SOURCE / "gsplat_cpu.cpp").is_file():
        raise CannotRunError("OPENSPLAT names no checkout of OpenSplat")
    if shutil.which("ninja") is None:
        raise CannotRunError("ninja is not installed")
    from torch.utils.cpp_extension import _get_build_directory, load

    build = Path(_get_build_directory("jsplat_opensplat", verbose=False))
    (build / "glue.cc").write_text(_GLUE)
    load(
        "jsplat_opensplat",
        [str(build / "glue.cc"), str(root / SOURCE / "gsplat_cpu.cpp")],
        extra_cflags=["-O3", "-march=native", "-fopenmp"],
        extra_include_paths=[str((root / SOURCE).resolve())],
        build_directory=str(build),
        is_python_module=False,
    )
    return torch.ops.jsplat_bench


def blend(means2d, conics, opacities, depths, features, *, size: tuple[int, int]):
    """The image `1 h w 3`, differentiable in all but the depths.

    Raises:
        CannotRunError: as above, or something to draw that it does not draw.
    """
    if len(means2d) != 1 or features.shape[-1] != 3:
        raise CannotRunError("OpenSplat draws three channels of one image")
    operations = _operations()

    class Draw(torch.autograd.Function):
        @staticmethod
        def forward(ctx, xys, conics, colors, opacities):
            a, b, c = conics.unbind(-1)
            rows = torch.stack([torch.stack([c, -b], -1), torch.stack([-b, a], -1)], -2)
            cov2d = (rows / (a * c - b * b)[:, None, None]).contiguous()
            inputs = (xys, conics, colors, opacities, cov2d, depths[0].contiguous())
            image, rest, ctx.hits = operations.forward(*inputs, *size)
            ctx.save_for_backward(*inputs, rest)
            if not any(ctx.needs_input_grad):
                operations.release(ctx.hits)
            return image

        @staticmethod
        def backward(ctx, grad):
            d_xys, d_conics, d_colors, d_opacities = operations.backward(
                *ctx.saved_tensors, ctx.hits, grad.contiguous()
            )
            operations.release(ctx.hits)
            # Its middle entry is that of a symmetric matrix, which stands there twice.
            return d_xys, d_conics * d_conics.new_tensor([1.0, 2.0, 1.0]), d_colors, d_opacities[:, 0]

    # Its pixel centres lie at whole numbers.
    arrays = (means2d[0] - 0.5, conics[0], features[0], opacities[0])
    return (Draw.apply(*(x.contiguous() for x in arrays))[None],)
