"""A plain PyTorch rasterizer: tiles, autograd, any number of channels; the peer on machines without CUDA.

It keeps the contract of `kernels/blend/reference.py` and the projection of `jsplat.raster.projection.project`. Two
forms of the blend are kept apart by `form`: "batched" (tiles of similar length padded into one batch) and "loop" (one
tile at a time); the benchmark uses the faster, see `bench/README.md`.
"""

from bench.peers import torch, torch_call
from jsplat.kernels.constants import ALPHA_CEILING, ALPHA_FLOOR, TRANSMITTANCE_STOP
from jsplat.raster.projection import FRUSTUM_MARGIN, LOW_PASS, NEAR

TILE = 8
GROUP = 1 << 18  # pixel-Gaussian pairs evaluated at once: a megabyte an array, which a processor's cache holds
FORMS = ("batched", "loop")


def bin_tiles(means2d, conics, opacities, depths, size: tuple[int, int]):
    """Which Gaussians of images `i n ...` touch which tile, by the box of the ellipse where alpha reaches its floor.

    Returns:
        ids, nearest first, and starts: those of tile t lie from `starts[t]` to `starts[t + 1]`.
    """
    with torch.no_grad():
        images, count = opacities.shape
        across, down = -(-size[0] // TILE), -(-size[1] // TILE)
        flat_means, flat_conics = means2d.reshape(-1, 2), conics.reshape(-1, 3)
        limit = torch.log(opacities.reshape(-1).clamp(min=1e-30) / ALPHA_FLOOR)
        determinant = flat_conics[:, 0] * flat_conics[:, 2] - flat_conics[:, 1] ** 2
        variance = flat_conics[:, [2, 0]] / determinant.clamp(min=1e-30)[:, None]
        reach = (2 * limit.clamp(min=0)[:, None] * variance).sqrt()
        bounds = torch.tensor([across, down], device=reach.device, dtype=reach.dtype)
        low = ((flat_means - reach - 0.5) / TILE).floor().clamp(min=0).minimum(bounds)
        high = (((flat_means + reach - 0.5) / TILE).floor() + 1).clamp(min=0).minimum(bounds)
        visible = torch.isfinite(depths.reshape(-1)) & (limit > 0) & (determinant > 0)
        spans = ((high - low).clamp(min=0) * visible[:, None]).nan_to_num(0).long()
        counts = spans[:, 0] * spans[:, 1]
        order = depths.reshape(-1).argsort(stable=True)  # the stable sort by tile keeps this order
        gaussian = torch.repeat_interleave(order, counts[order])
        ends = counts[order].cumsum(0)
        first = torch.repeat_interleave(ends - counts[order], counts[order])
        within = torch.arange(len(gaussian), device=first.device) - first
        columns = spans[gaussian, 0]
        cell = low[gaussian].long()
        y, x = cell[:, 1] + within // columns, cell[:, 0] + within % columns
        tiles = images * across * down
        key, place = torch.sort((gaussian // count * down + y) * across + x, stable=True)
        starts = torch.searchsorted(key, torch.arange(tiles + 1, device=key.device))
        return gaussian[place], starts


def _corners(tiles, size):
    """Upper left pixel of each tile."""
    across, down = -(-size[0] // TILE), -(-size[1] // TILE)
    within = tiles % (across * down)
    return torch.stack([within % across, within // across], -1) * TILE


def _blend_tiles(rows, values, corners):
    """Blends lists of one length: rows `t l 6` (x, y, a, b, c, opacity), values `t l c`, corners `t 2` -> `t p c`."""
    steps = torch.arange(TILE, device=rows.device, dtype=rows.dtype) + 0.5
    x = rows[..., 0] - corners[:, None, 0]
    y = rows[..., 1] - corners[:, None, 1]
    dx = (x[..., None] - steps)[..., None, :]
    dy = (y[..., None] - steps)[..., :, None]
    a, b, c, opacity = (rows[..., k, None, None] for k in range(2, 6))
    power = (0.5 * a * dx * dx + (b * dx) * dy + 0.5 * c * dy * dy).flatten(2)
    alpha = opacity[..., 0] * torch.exp(-power)
    alpha = torch.where(alpha >= ALPHA_FLOOR, alpha.clamp(max=ALPHA_CEILING), 0.0)
    logs = torch.log1p(-alpha)
    before = torch.exp(logs.cumsum(1) - logs)
    weight = torch.where(before >= TRANSMITTANCE_STOP, alpha * before, 0.0)
    return weight.transpose(1, 2) @ values


def _groups(lengths):
    """Ranges of tiles, longest first, that are padded to their first one's length and hold at most GROUP pairs."""
    begin = 0
    while begin < len(lengths):
        end, fits = begin + 1, max(1, GROUP // (lengths[begin] * TILE**2))
        shortest = 0.75 * lengths[begin]  # more padding than that costs more than another call
        while end < min(len(lengths), begin + fits) and lengths[end] >= shortest:
            end += 1
        yield begin, end
        begin = end


def blend(means2d, conics, opacities, depths, features, *, size: tuple[int, int], form="batched", kernel=None):
    """Blended features `i h w c`, alpha `i h w` and depth `i h w` of images `i n ...`; gradients by autograd."""
    images, _ = opacities.shape
    ids, starts = bin_tiles(means2d, conics, opacities, depths, size)
    rows = torch.cat([means2d, conics, opacities[..., None]], -1).reshape(-1, 6)
    near = torch.where(torch.isfinite(depths), depths, 0.0)
    values = torch.cat([features, torch.ones_like(near)[..., None], near[..., None]], -1).flatten(0, 1)
    across, down = -(-size[0] // TILE), -(-size[1] // TILE)
    flat = values.new_zeros(images * across * down, TILE**2, values.shape[-1])
    parts = (_loop if form == "loop" else _batched)(ids, starts, rows, values, size, kernel or _blend_tiles)
    if parts:
        where, blended = zip(*parts)
        flat = flat.index_copy(0, torch.cat(where), torch.cat(blended))
    out = flat.reshape(images, down, across, TILE, TILE, -1).transpose(2, 3)
    out = out.reshape(images, down * TILE, across * TILE, -1)[:, : size[1], : size[0]]
    return out[..., :-2], out[..., -2], out[..., -1]


def _loop(ids, starts, rows, values, size, kernel):
    busy = torch.nonzero(starts.diff())[:, 0]
    corners = _corners(busy, size)
    places = starts.tolist()
    found = []
    for k, t in enumerate(busy.tolist()):
        own = ids[places[t] : places[t + 1]]
        found.append((busy[k : k + 1], kernel(rows[own][None], values[own][None], corners[k : k + 1])))
    return found


def _batched(ids, starts, rows, values, size, kernel):
    lengths, order = starts.diff().sort(descending=True)
    busy = order[: int((lengths > 0).sum())]
    lengths = lengths[: len(busy)]
    # One more row of nothing, which pads the shorter lists.
    rows, values = torch.cat([rows, rows.new_zeros(1, 6)]), torch.cat([values, values.new_zeros(1, values.shape[1])])
    found = []
    for begin, end in _groups(lengths.tolist()):
        tiles, own = busy[begin:end], lengths[begin:end, None]
        lane = torch.arange(int(own[0]), device=own.device)
        slots = starts[tiles][:, None] + lane
        padded = torch.where(lane < own, ids[slots.clamp(max=len(ids) - 1)], len(rows) - 1)
        found.append((tiles, kernel(rows[padded], values[padded], _corners(tiles, size))))
    return found


def rotation_matrices(quats):
    """Rotation matrices of wxyz quaternions of any non-zero length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def project(means, quats, log_scales, logit_opacities, camera_from_world, intrinsics, size: tuple[int, int]):
    """Means `n 2`, conics `n 3`, opacities `n`, depths `n` of Gaussians `n ...` seen by one camera (4 4, 3 3)."""
    center = means @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    visible = center[:, 2] > NEAR
    x, y = center[:, 0], center[:, 1]
    z = torch.where(visible, center[:, 2], 1.0)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    spare_x, spare_y = FRUSTUM_MARGIN * size[0], FRUSTUM_MARGIN * size[1]
    slope_x = (x / z).clamp((-spare_x - cx) / fx, (size[0] + spare_x - cx) / fx)
    slope_y = (y / z).clamp((-spare_y - cy) / fy, (size[1] + spare_y - cy) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], -1).reshape(-1, 2, 3)
    axes = jacobian @ (camera_from_world[:3, :3] @ rotation_matrices(quats)) * torch.exp(log_scales)[:, None, :]
    u, v = axes[:, 0], axes[:, 1]
    xx, xy, yy = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    determinant = torch.linalg.cross(u, v).square().sum(-1) + LOW_PASS * (xx + yy + LOW_PASS)
    conics = torch.stack([yy + LOW_PASS, -xy, xx + LOW_PASS], -1) / determinant[:, None]
    return means2d, conics, torch.sigmoid(logit_opacities), torch.where(visible, z, torch.inf)


def blend_as(mode: str):
    """`blend` in one of its modes: "FORM, N threads" or "FORM, N threads, compiled" (the tile kernel by torch.compile).

    Denormals are flushed, as XLA does: far from its centre a Gaussian is one.
    """
    form, *words = mode.split(", ")
    kernel = torch.compile(_blend_tiles, dynamic=True) if "compiled" in words else _blend_tiles

    def run(*args, size):
        torch.set_flush_denormal(True)
        return blend(*args, size=size, form=form, kernel=kernel)

    return torch_call(words, run)
