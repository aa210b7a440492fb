"""Checks of GPU kernels without a GPU: compiled ahead of time, then registers, spills, shared memory and barriers.

`python -m bench.aot.check` is the command, `make check-kernels` installs what it needs and runs it.
"""
