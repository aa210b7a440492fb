"""The paper's step in plain PyTorch: per identity one 3DGS model of the colours and one of colour-coded labels.

Both start where jsplat's fit starts and use its losses and learning rates, so that what is compared is the route: two
models one after the other, identity by identity, against one dual model of all identities at once. Neither noise nor
relocation. Beside it: the dual model's step and the label lift on the same torch rasterizer.
"""

import jax
import numpy as np

from bench.peers import torch_raster
from bench.peers.losses import label_loss, photo_loss
from jsplat.captures.capture import Capture
from jsplat.fitting import FitConfig, starting_scene
from jsplat.fitting.photos import held_out
from jsplat.fitting.start import scene_sphere
from jsplat.raster.camera import Camera
from jsplat.raster.scene import SH_C0, Gaussians

try:
    import torch
except ModuleNotFoundError:  # the module still imports; `bench.peers.missing` says so in the table
    torch = None

NAMES = ("means", "quats", "log_scales", "logit_opacities")


def _views(cameras: Camera):
    """(camera_from_world, intrinsics) of each camera."""
    return [
        (torch.tensor(np.array(a)), torch.tensor(np.array(b)))
        for a, b in zip(cameras.camera_from_world, cameras.intrinsics)
    ]


def _render(draw, leaves, features, view, size, background):
    projected = torch_raster.project(*(leaves[name] for name in NAMES), *view, size)
    image, alpha, _ = draw(*(x[None] for x in (*projected, features)), size=size)
    return image + (1 - alpha)[..., None] * background


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
        fitted = _fit(draw, start, paint, capture.cameras, *colours, config, radius)
        _fit(draw, start, np.full_like(paint, 0.5), capture.cameras, *coded, config, radius)
        scores.append(_psnr(draw, fitted, capture.cameras, *colours, config))
    return float(np.mean(scores))


def _fit(draw, start, paint, cameras: Camera, images, background, config: FitConfig, radius: float):
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
    leaves["paint"] = torch.tensor(paint, requires_grad=True)
    rates = {"means": config.lr_means * radius, "quats": config.lr_quats, "log_scales": config.lr_scales}
    rates |= {"logit_opacities": config.lr_opacities, "paint": config.lr_sh * SH_C0}
    groups = [{"params": [leaves[name]], "lr": rate} for name, rate in rates.items()]
    adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, config.lr_final ** (1 / config.steps))
    views, size = _views(cameras), (cameras.width, cameras.height)
    kept = np.setdiff1d(np.arange(len(images)), held_out(len(images), config.hold_out))
    order = np.random.default_rng(0).choice(kept, config.steps)
    photos, behind = torch.tensor(images), torch.tensor(background)
    for view in order:
        adam.zero_grad(set_to_none=True)
        image = _render(draw, leaves, leaves["paint"], views[view], size, behind)
        photo_loss(image, photos[view : view + 1], config.ssim_weight).sum().backward()
        adam.step()
        schedule.step()
    return leaves


def _psnr(draw, leaves, cameras: Camera, images, background, config: FitConfig) -> float:
    views, size, scores = _views(cameras), (cameras.width, cameras.height), []
    with torch.inference_mode():
        for k in held_out(len(images), config.hold_out):
            image = _render(draw, leaves, leaves["paint"], views[k], size, torch.tensor(background))
            error = (image[0].clamp(0, 1) - torch.tensor(images[k])).square().mean()
            scores.append(-10 * float(torch.log10(error)))
    return float(np.mean(scores))


def dual_step(arrays, cameras: Camera, photos, labels, rate: float, mode: str):
    """A function that takes one step of Adam on colours and labels of all identities, and gives the loss.

    Args:
        arrays: means `b n 3`, quats `b n 4`, log_scales `b n 3`, logit_opacities `b n`, features `b n 3+k` (RGB and
            class logits).
        photos, labels: `b h w 3` in [0, 1] and `b h w`.
    """
    draw = torch_raster.blend_as(mode)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in arrays.items()}
    views, size = _views(cameras), (cameras.width, cameras.height)
    photo, target = torch.tensor(photos), torch.tensor(labels).long()
    adam = torch.optim.Adam(leaves.values(), lr=rate, eps=1e-15, fused=True)

    def step() -> float:
        adam.zero_grad(set_to_none=True)
        projected = [
            torch_raster.project(*(leaves[name][b] for name in NAMES), *view, size) for b, view in enumerate(views)
        ]
        features = torch.cat([leaves["features"][..., :3].clamp(min=0), leaves["features"][..., 3:].softmax(-1)], -1)
        image, alpha, _ = draw(*map(torch.stack, zip(*projected)), features, size=size)
        classes = torch.cat([image[..., 3:4] + (1 - alpha)[..., None], image[..., 4:]], -1)
        loss = (photo_loss(image[..., :3], photo) + 0.1 * label_loss(classes, target)).sum()
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def lift(gaussians: Gaussians, cameras: Camera, pictures: np.ndarray, mode: str):
    """A function that gives the evidence `v n k` of pictures `v h w k`: gradients with respect to features alone."""
    draw = torch_raster.blend_as(mode)
    leaves = [torch.tensor(np.array(getattr(gaussians, name))) for name in NAMES]
    views, size = _views(cameras), (cameras.width, cameras.height)
    shown = torch.tensor(np.concatenate([pictures, np.ones_like(pictures[..., :1])], -1))

    def run() -> np.ndarray:
        found = []
        for view, picture in zip(views, shown):
            with torch.no_grad():
                projected = [x[None] for x in torch_raster.project(*leaves, *view, size)]
            blank = torch.zeros(1, len(leaves[0]), picture.shape[-1], requires_grad=True)
            (draw(*projected, blank, size=size)[0] * picture).sum().backward()
            found.append(blank.grad[0])
        return torch.stack(found)[..., :-1].numpy()

    return run
