"""The paper's step in plain PyTorch: per identity one 3DGS model of the colours and one of colour-coded labels.

Both start where jsplat's fit starts and use its losses and learning rates, so that what is compared is the route: two
models one after the other, identity by identity, against one dual model of all identities at once. Neither noise nor
relocation. Beside it: the dual model's step with any peer's render, and the label lift on the torch rasterizer.
"""

import jax
import numpy as np

from bench.peers import torch, torch_raster
from bench.peers.losses import label_loss, photo_loss
from jsplat.captures.capture import Capture
from jsplat.fitting import FitConfig, starting_scene
from jsplat.fitting.photos import held_out
from jsplat.fitting.start import scene_sphere
from jsplat.raster.camera import Camera
from jsplat.raster.scene import SH_C0, Gaussians

NAMES = ("means", "quats", "log_scales", "logit_opacities")


def _seen_by(cameras: Camera, device: str = "cpu"):
    """camera_from_world `v 4 4` and intrinsics `v 3 3` as tensors, and the pictures' width and height."""
    views, lenses = (torch.tensor(np.array(x), device=device) for x in (cameras.camera_from_world, cameras.intrinsics))
    return views, lenses, (cameras.width, cameras.height)


def render(draw, leaves, features, views, lenses, size: tuple[int, int]):
    """Image `b h w c` and alpha `b h w`: each identity projected for itself, all drawn in one call."""
    projected = [torch_raster.project(*own, size) for own in zip(*(leaves[name] for name in NAMES), views, lenses)]
    return draw(*map(torch.stack, zip(*projected)), features, size=size)[:2]


def fit_loop(captures: list[Capture], config: FitConfig, mode: str) -> float:
    """Fits both models of every capture, one after the other; mean PSNR in dB of the colours on held-out views."""
    draw = torch_raster.blend_as(mode)
    scores = []
    for k, capture in enumerate(captures):
        if capture.labels is None or capture.labelset is None or capture.background is None:
            raise ValueError(f"two_models: capture {capture.identity}: wanted labels and a known background")
        scene = starting_scene(capture, config, jax.random.key(k), 1)
        radius = float(scene_sphere(capture.cameras)[1])
        palette = np.asarray(capture.labelset.colors, np.float32) / 255
        colours = (capture.images.astype(np.float32) / 255, np.asarray(capture.background, np.float32) / 255)
        coded = (palette[capture.labels], palette[0])
        start = {name: np.array(getattr(scene.gaussians, name)) for name in NAMES}
        paint = np.array(scene.attributes.sh[:, 0]) * SH_C0 + 0.5
        fitted = _fit(draw, start | {"paint": paint}, capture.cameras, *colours, config, radius)
        _fit(draw, start | {"paint": np.full_like(paint, 0.5)}, capture.cameras, *coded, config, radius)
        scores.append(_psnr(draw, fitted, capture.cameras, *colours, config))
    return float(np.mean(scores))


def _painted(draw, leaves, background, views, lenses, size: tuple[int, int]):
    image, alpha = render(draw, leaves, leaves["paint"], views, lenses, size)
    return image + (1 - alpha)[..., None] * background


def _fit(draw, start, cameras: Camera, images, background, config: FitConfig, radius: float):
    leaves = {name: torch.tensor(value[None], requires_grad=True) for name, value in start.items()}
    rates = {"means": config.lr_means * radius, "quats": config.lr_quats, "log_scales": config.lr_scales}
    rates |= {"logit_opacities": config.lr_opacities, "paint": config.lr_sh * SH_C0}
    groups = [{"params": [leaves[name]], "lr": rate} for name, rate in rates.items()]
    adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, config.lr_final ** (1 / config.steps))
    views, lenses, size = _seen_by(cameras)
    kept = np.setdiff1d(np.arange(len(images)), held_out(len(images), config.hold_out))
    photos, behind = torch.tensor(images), torch.tensor(background)
    for k in np.random.default_rng(0).choice(kept, config.steps):
        adam.zero_grad(set_to_none=True)
        image = _painted(draw, leaves, behind, views[k : k + 1], lenses[k : k + 1], size)
        photo_loss(image, photos[k : k + 1], config.ssim_weight).sum().backward()
        adam.step()
        schedule.step()
    return leaves


def _psnr(draw, leaves, cameras: Camera, images, background, config: FitConfig) -> float:
    views, lenses, size = _seen_by(cameras)
    behind, scores = torch.tensor(background), []
    with torch.inference_mode():
        for k in held_out(len(images), config.hold_out):
            image = _painted(draw, leaves, behind, views[k : k + 1], lenses[k : k + 1], size)[0].clamp(0, 1)
            scores.append(-10 * float(torch.log10((image - torch.tensor(images[k])).square().mean())))
    return float(np.mean(scores))


def dual_step(arrays, cameras: Camera, photos, labels, rate: float, drawing, device: str = "cpu"):
    """A function that takes one step of Adam on colours and labels of all identities, waits for it and gives the loss.

    Args:
        arrays: means `b n 3`, quats `b n 4`, log_scales `b n 3`, logit_opacities `b n`, features `b n 3+k` (RGB and
            class logits).
        photos, labels: `b h w 3` in [0, 1] and `b h w`.
        drawing: as `render` of this module (from leaves on) and of `gsplat`.
    """
    leaves = {name: torch.tensor(value, device=device, requires_grad=True) for name, value in arrays.items()}
    seen = _seen_by(cameras, device)
    photo, target = torch.tensor(photos, device=device), torch.tensor(labels, device=device).long()
    adam = torch.optim.Adam(leaves.values(), lr=rate, eps=1e-15, fused=True)

    def step() -> float:
        adam.zero_grad(set_to_none=True)
        features = torch.cat([leaves["features"][..., :3].clamp(min=0), leaves["features"][..., 3:].softmax(-1)], -1)
        image, alpha = drawing(leaves, features, *seen)
        classes = torch.cat([image[..., 3:4] + (1 - alpha)[..., None], image[..., 4:]], -1)
        loss = (photo_loss(image[..., :3], photo) + 0.1 * label_loss(classes, target)).sum()
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def lift(gaussians: Gaussians, cameras: Camera, pictures: np.ndarray, mode: str):
    """A function that gives the evidence `v n k` of pictures `v h w k`: gradients with respect to features alone."""
    draw = torch_raster.blend_as(mode)
    leaves = {name: torch.tensor(np.array(getattr(gaussians, name))[None]) for name in NAMES}
    views, lenses, size = _seen_by(cameras)
    shown = torch.tensor(np.concatenate([pictures, np.ones_like(pictures[..., :1])], -1))

    def run() -> np.ndarray:
        found = []
        for view, lens, picture in zip(views, lenses, shown):
            blank = torch.zeros(*leaves["means"].shape[:2], picture.shape[-1], requires_grad=True)
            (render(draw, leaves, blank, view[None], lens[None], size)[0] * picture).sum().backward()
            found.append(blank.grad[0])
        return torch.stack(found)[..., :-1].numpy()

    return run
