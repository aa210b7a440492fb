"""Runs training steps on request, for `bench.against`; of whichever tree PYTHONPATH names, so no part of the package.

python -P bench/serve_steps.py IDENTITIES COUNT EDGE; prints READY, then for each number on its input runs as many
steps and prints core-ms and wall-ms of one.
"""

import contextlib
import sys
import time

READY = "ready"


def serve(identities: int, count: int, edge: int) -> None:
    """Answers until the input ends."""
    from bench.fits import prepare_step
    from bench.workloads import Step
    from jsplat.kernels import select
    from jsplat.runtime.programs import configure_xla

    configure_xla()
    use_backend = getattr(select, "use_backend", contextlib.nullcontext)  # early commits have XLA alone on processors
    with use_backend("xla"):
        call = prepare_step(Step("step", identities=identities, count=count, edge=edge)).call
        call()
        print(READY, flush=True)
        for line in sys.stdin:
            steps, cores, wall = int(line), time.process_time(), time.perf_counter()
            for _ in range(steps):
                call()
            took = time.process_time() - cores, time.perf_counter() - wall
            print(*(1e3 * seconds / steps for seconds in took), flush=True)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
