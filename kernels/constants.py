"""The numbers that define the image; gsplat uses the same, so that results can be compared."""

ALPHA_FLOOR = 1.0 / 255.0  # a contribution with less alpha is dropped
ALPHA_CEILING = 0.999  # keeps 1 - alpha away from 0, where the gradient divides by it
TRANSMITTANCE_STOP = 1e-4  # a Gaussian is dropped when less transmittance than this is left before it
