"""gsplat 1.5.3 on the same projected Gaussians, as its authors would run it: unpacked, all images in one call.

Written from the documented interface of that version (`isect_tiles`, `isect_offset_encode`, `rasterize_to_pixels`); it
needs CUDA. 22 channels are no size its kernels were built for: it pads them to 32 by itself ("padded"), or they are
drawn in two passes of sizes it has ("split": 17 + 5). The benchmark runs both and compares with the faster.
"""

import numpy as np

from bench.peers import missing, missing_cuda
from bench.peers.losses import label_loss, photo_loss
from bench.timing import CannotRunError
from jsplat.kernels.constants import ALPHA_FLOOR

try:
    import torch
except ModuleNotFoundError:  # the module still imports; `need` says so in the table
    torch = None

VERSION = "1.5.3"
TILE = 16
SIZES = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64)  # channels its kernels are built for


def need() -> None:
    """Raises CannotRunError, saying why, where this peer cannot run."""
    reason = missing_cuda() or missing("gsplat")
    if reason:
        raise CannotRunError(reason)


def split_sizes(channels: int) -> tuple[int, ...]:
    """Compiled sizes that add up to `channels`, the largest first."""
    sizes = []
    while channels:
        sizes.append(max(size for size in SIZES if size <= channels))
        channels -= sizes[-1]
    return tuple(sizes)


def radii_of(conics, opacities, depths):
    """Half sizes in whole pixels of the box around the ellipse where alpha reaches its floor, as gsplat's projection
    gives them: `i n 2` int32, 0 for what is hidden."""
    determinant = conics[..., 0] * conics[..., 2] - conics[..., 1] ** 2
    variances = torch.stack([conics[..., 2], conics[..., 0]], -1) / determinant[..., None]
    reach = (2 * torch.log(opacities.clamp(min=ALPHA_FLOOR) / ALPHA_FLOOR)).sqrt().clamp(max=3.33)
    shown = torch.isfinite(depths) & (opacities > ALPHA_FLOOR)
    return ((reach[..., None] * variances.sqrt()).ceil() * shown[..., None]).int()


def blend(means2d, conics, opacities, depths, features, *, size: tuple[int, int], mode: str):
    """Features `i h w c` and alpha `i h w` of images `i n ...` on a CUDA device; mode: "padded" or "split"."""
    from gsplat.cuda._wrapper import isect_offset_encode, isect_tiles, rasterize_to_pixels

    width, height = size
    across, down = -(-width // TILE), -(-height // TILE)
    with torch.no_grad():
        radii = radii_of(conics, opacities, depths)
        _, isect_ids, flatten_ids = isect_tiles(means2d, radii, depths, TILE, across, down, packed=False)
        offsets = isect_offset_encode(isect_ids, len(means2d), across, down).reshape(len(means2d), down, across)
    sizes = split_sizes(features.shape[-1]) if mode == "split" else (features.shape[-1],)
    drawn = [
        rasterize_to_pixels(means2d, conics, part, opacities, width, height, TILE, offsets, flatten_ids)
        for part in features.split(list(sizes), -1)
    ]
    return torch.cat([image for image, _ in drawn], -1), drawn[0][1][..., 0]


def render(means, quats, scales, opacities, features, views, lenses, size: tuple[int, int]):
    """Image `b h w c` and alpha `b h w`: one camera `4 4` and `3 3` an identity, all identities in one call."""
    from gsplat import rasterization

    image, alpha, _ = rasterization(
        means, quats, scales, opacities, features, views[:, None], lenses[:, None], *size,
        packed=False, tile_size=TILE,
    )  # fmt: skip
    return image[:, 0], alpha[:, 0, ..., 0]


def train_step(scene: dict[str, np.ndarray], cameras, photos: np.ndarray, targets: np.ndarray, rate: float):
    """One step of Adam (fused) on RGB and label channels together, all identities in one call of `rasterization`.

    Args:
        scene: means `b n 3`, quats `b n 4`, log_scales `b n 3`, logit_opacities `b n`, features `b n c`.
        cameras: camera_from_world `b 4 4`, intrinsics `b 3 3`, width, height (`jsplat.raster.camera.Camera`).
        photos, targets: RGB `b h w 3` in [0, 1]; class ids `b h w`.

    Returns:
        a function of no arguments that takes a step, waits for it and gives the loss.
    """
    need()
    leaves = {name: torch.tensor(value, device="cuda", requires_grad=True) for name, value in scene.items()}
    views, lenses = (torch.tensor(np.array(x), device="cuda") for x in (cameras.camera_from_world, cameras.intrinsics))
    photo, target = torch.tensor(photos, device="cuda"), torch.tensor(targets, device="cuda").long()
    adam = torch.optim.Adam(leaves.values(), lr=rate, eps=1e-15, fused=True)

    def step() -> float:
        adam.zero_grad(set_to_none=True)
        colours = torch.cat([leaves["features"][..., :3].clamp(min=0), leaves["features"][..., 3:].softmax(-1)], -1)
        image, alpha = render(
            leaves["means"], leaves["quats"], leaves["log_scales"].exp(), leaves["logit_opacities"].sigmoid(), colours,
            views, lenses, (cameras.width, cameras.height),
        )  # fmt: skip
        classes = torch.cat([image[..., 3:4] + (1 - alpha)[..., None], image[..., 4:]], -1)
        loss = (photo_loss(image[..., :3], photo) + 0.1 * label_loss(classes, target)).sum()
        loss.backward()
        adam.step()
        return float(loss.detach())  # waits for the device

    return step
