"""Checks of GPU kernels on a machine without a GPU: compiled ahead of time, then registers, shared memory and loops.

`python -m bench.aot.check` is the command, `make check-kernels` installs what it needs and runs it.
"""
