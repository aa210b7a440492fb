"""Gaussians, cameras and what they render to: all that jsplat offers as a rasterizer."""
