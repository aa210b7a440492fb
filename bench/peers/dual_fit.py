"""jsplat's dual model fitted by PyTorch: colours and labels in one pass, on any differentiable renderer.

The renderer is a function of (means, quats, scales, opacities, features, camera_from_world, intrinsics, size) with the
identities in front, giving the image `b h w c` and alpha `b h w`: `gsplat.render` on GPUs, `torch_render` elsewhere.
All identities go through one call ("batched"), or one after the other ("loop").
"""

import jax
import numpy as np

from bench.peers import torch_raster
from bench.peers.losses import label_loss, photo_loss
from jsplat.captures.capture import Capture
from jsplat.fitting import FitConfig, starting_scene
from jsplat.fitting.photos import held_out
from jsplat.fitting.start import scene_sphere
from jsplat.raster.scene import SH_C0

try:
    import torch
except ModuleNotFoundError:  # the module still imports; `bench.peers.missing` says so in the table
    torch = None


def torch_render(means, quats, scales, opacities, features, views, lenses, size):
    """The plain PyTorch rasterizer as a renderer."""
    seen = [
        torch_raster.project(m, q, s.log(), o.logit(), v, k, size)
        for m, q, s, o, v, k in zip(means, quats, scales, opacities, views, lenses)
    ]
    image, alpha, _ = torch_raster.blend(*map(torch.stack, zip(*seen)), features, size=size)
    return image, alpha


def fit_dual(captures: list[Capture], config: FitConfig, render, device: str, mode: str) -> float:
    """Fits all captures; mean PSNR in dB of the colours on held-out views. mode: "batched" or "loop"."""
    groups = [captures] if mode == "batched" else [[capture] for capture in captures]
    return float(np.mean([score for group in groups for score in _fit_group(group, config, render, device)]))


def _start(captures: list[Capture], config: FitConfig, classes: int) -> dict[str, np.ndarray]:
    scenes = [starting_scene(c, config, jax.random.key(k), classes) for k, c in enumerate(captures)]
    fields = ("means", "quats", "log_scales", "logit_opacities")
    start = {name: np.stack([np.asarray(getattr(s.gaussians, name)) for s in scenes]) for name in fields}
    paint = np.stack([np.asarray(s.attributes.sh[:, 0]) for s in scenes]) * SH_C0 + 0.5
    logits = np.stack([np.asarray(s.attributes.label_logits) for s in scenes])
    return start | {"paint": paint, "label_logits": logits}


def _fit_group(captures: list[Capture], config: FitConfig, render, device: str) -> list[float]:
    if any(c.labels is None or c.labelset is None or c.background is None for c in captures):
        raise ValueError("dual_fit: wanted captures with labels and a known background")

    def put(values) -> "torch.Tensor":
        return torch.tensor(np.stack([np.asarray(v) for v in values]), device=device)

    start = _start(captures, config, len(captures[0].labelset))
    leaves = {name: torch.tensor(value, device=device, requires_grad=True) for name, value in start.items()}
    radius = float(np.mean([scene_sphere(c.cameras)[1] for c in captures]))
    rates = {"means": config.lr_means * radius, "quats": config.lr_quats, "log_scales": config.lr_scales}
    rates |= {"logit_opacities": config.lr_opacities, "paint": config.lr_sh * SH_C0, "label_logits": config.lr_labels}
    adam = torch.optim.Adam([{"params": [leaves[n]], "lr": r} for n, r in rates.items()], eps=1e-15, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, config.lr_final ** (1 / config.steps))
    photos, labels = put([c.images for c in captures]), put([c.labels for c in captures])
    views = put([c.cameras.camera_from_world for c in captures])
    lenses = put([c.cameras.intrinsics for c in captures])
    behind = (put([np.float32(c.background) for c in captures]) / 255)[:, None, None]
    size = (captures[0].cameras.width, captures[0].cameras.height)

    def shown(view: int):
        colours = torch.cat([leaves["paint"].clamp(min=0), leaves["label_logits"].softmax(-1)], -1)
        image, alpha = render(
            leaves["means"], leaves["quats"], leaves["log_scales"].exp(), leaves["logit_opacities"].sigmoid(), colours,
            views[:, view], lenses[:, view], size,
        )  # fmt: skip
        through = (1 - alpha)[..., None]
        return image[..., :3] + through * behind, torch.cat([image[..., 3:4] + through, image[..., 4:]], -1)

    count = photos.shape[1]
    kept = np.setdiff1d(np.arange(count), held_out(count, config.hold_out))
    for view in np.random.default_rng(0).choice(kept, config.steps):
        adam.zero_grad(set_to_none=True)
        image, classes = shown(view)
        loss = photo_loss(image, photos[:, view].float() / 255, config.ssim_weight)
        (loss + config.label_weight * label_loss(classes, labels[:, view].long())).sum().backward()
        adam.step()
        schedule.step()
    with torch.inference_mode():
        errors = [
            (shown(view)[0].clamp(0, 1) - photos[:, view].float() / 255).square().mean((1, 2, 3))
            for view in held_out(count, config.hold_out)
        ]
    return (-10 * torch.log10(torch.stack(errors))).mean(0).tolist()
