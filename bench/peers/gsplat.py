"""gsplat 1.5.3 on the same projected Gaussians, as its authors would run it: unpacked, all images in one call.

Written from the documented interface of that version (`isect_tiles`, `isect_offset_encode`, `rasterize_to_pixels`); it
needs CUDA. 22 channels are no size its kernels were built for: it pads them to 32 by itself ("padded"), or they are
drawn in two passes of sizes it has ("split": 17 + 5). The benchmark runs both and compares with the faster.
"""

from bench.peers import torch
from jsplat.kernels.constants import ALPHA_FLOOR

TILE = 16
SPLIT = (17, 5)  # of the channels its kernels are built for


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
    drawn = [
        rasterize_to_pixels(means2d, conics, part, opacities, width, height, TILE, offsets, flatten_ids)
        for part in (features.split(SPLIT, -1) if mode == "split" else (features,))
    ]
    return torch.cat([image for image, _ in drawn], -1), drawn[0][1][..., 0]


def render(leaves, features, views, lenses, size: tuple[int, int]):
    """Image `b h w c` and alpha `b h w`: one camera `4 4` and `3 3` an identity, all identities in one call.

    Args:
        leaves: means `b n 3`, quats `b n 4`, log_scales `b n 3`, logit_opacities `b n`.
    """
    from gsplat import rasterization

    scales, opacities = leaves["log_scales"].exp(), leaves["logit_opacities"].sigmoid()
    shapes, cameras = (leaves["means"], leaves["quats"], scales, opacities), (views[:, None], lenses[:, None])
    image, alpha, _ = rasterization(*shapes, features, *cameras, *size, packed=False, tile_size=TILE)
    return image[:, 0], alpha[:, 0, ..., 0]
