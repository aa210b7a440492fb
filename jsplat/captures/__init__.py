"""Photographs of one person with cameras and first labels, in jsplat's own folders and from those of others."""
