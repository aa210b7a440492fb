"""The first minutes on a machine with a GPU: many short processes in the order of what matters, whatever hangs.

`scripts/gpu_check.sh` is the door. `parts` says what runs, `processes` runs it and ends what hangs, `record` keeps what
came out; none of them imports JAX. `steps` is what runs in each process, `traced` reads JAX's profiler.
"""
