"""The numbers of the fit that somebody may tune."""

import dataclasses

from jsplat.errors import InputError


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How Gaussians are fitted; lengths are fractions of the scene's radius (what all cameras see): no units.

    Attributes:
        gaussians: per identity, fixed throughout; 0: as many as the longer side of the pictures asks for (12,000 at 128
            pixels, 48,000 at 512, in proportion).
        steps: one view of every identity per step; 0: likewise (500 at 128 pixels, 2,000 at 512).
        hold_out: every so many views one is kept from the fit and scored; 0 fits all.
        sh_degree: 0 to 3.
        voxels: edge of the grid that carves starting points from silhouettes.
        quorum: share of the views seeing a voxel whose silhouette must contain it.
        background_tolerance: colour distance (0..255) from a known background that counts as silhouette.
        detail_fraction: share of the starting points drawn where pictures change most, the rest evenly over the
            surface.
        initial_width: starting standard deviation over the local spacing.
        initial_flatness: starting thickness along the surface normal over the width.
        ssim_weight: share of D-SSIM in the colour loss.
        label_weight: weight of the cross-entropy; 0 leaves the labels out of the pass.
        labels_move_geometry: whether label errors may bend the geometry.
        opacity_weight, scale_weight: MCMC's pull towards few and small Gaussians.
        lr_*: Adam's learning rates; means' is a fraction of the radius and falls to `lr_final` of itself, as all do.
        noise: MCMC exploration, in standard deviations of the Gaussian per unit of means' learning rate.
        relocate_every: steps between relocations of dead Gaussians; 0 never.
        relocate_until: share of the steps after which none is relocated and no noise added.
        dead_opacity: a Gaussian below this is dead.
        hits_per_gaussian: first guess of the capacity, in hits of tiles of 8 x 8 pixels; others are hit in proportion.
        steps_per_call: steps in one compiled call.
        identities_per_device: identities that one device fits at once; 0: as many as its memory holds, and one on a
            processor, where more are not faster. The result's last bits may depend on it, and on no other company.
        save_every: seconds between checkpoints of an unfinished fit.
    """

    gaussians: int = 0
    steps: int = 0
    hold_out: int = 14
    sh_degree: int = 0
    voxels: int = 112
    quorum: float = 0.9
    background_tolerance: float = 16.0
    detail_fraction: float = 0.6
    initial_width: float = 0.6
    initial_flatness: float = 0.3
    ssim_weight: float = 0.2
    label_weight: float = 0.1
    labels_move_geometry: bool = False
    opacity_weight: float = 0.005
    scale_weight: float = 0.01
    lr_means: float = 1e-2
    lr_quats: float = 2e-2
    lr_scales: float = 3e-2
    lr_opacities: float = 1e-1
    lr_sh: float = 5e-2
    lr_labels: float = 1e-1
    lr_final: float = 0.03
    noise: float = 10.0
    relocate_every: int = 50
    relocate_until: float = 0.75
    dead_opacity: float = 0.02
    hits_per_gaussian: float = 5.0
    steps_per_call: int = 50
    identities_per_device: int = 0
    save_every: float = 60.0

    def __post_init__(self):
        if self.relocate_every % self.steps_per_call:
            wanted = f"a multiple of steps_per_call, {self.steps_per_call}, as Gaussians are relocated between calls"
            raise InputError("FitConfig.relocate_every", wanted=wanted, got=self.relocate_every)
        for name in ("identities_per_device", "gaussians", "steps"):
            if getattr(self, name) < 0:
                raise InputError(f"FitConfig.{name}", wanted="0 or more", got=getattr(self, name))

    def for_side(self, pixels: int) -> "FitConfig":
        """With what is left open (0) decided by the longer side of the pictures, in pixels.

        What a head shows grows with the length of its edges in pixels, not with their area: skin stays smooth.
        """
        gaussians = max(100 * round(pixels * 12_000 / 128 / 100), 1000)
        steps = max(50 * round(pixels * 500 / 128 / 50), 200)
        return dataclasses.replace(self, gaussians=self.gaussians or gaussians, steps=self.steps or steps)
