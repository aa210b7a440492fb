"""Label refinement for head images by Gaussian splatting, in JAX."""
