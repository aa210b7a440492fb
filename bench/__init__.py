"""Measurements with a memory: `python -m bench.run`."""
