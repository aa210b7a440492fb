"""The kernels for processors under the address, undefined-behaviour and thread sanitizers, on all named cases.

python -m bench.sanitize

Compiles tests/kernels/harness.cc once for each and runs it: a complaint of a sanitizer, or a bit that depends on the
number of threads, is a failure.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jsplat.kernels.blend.cases import CASES, SIZE, headlike
from jsplat.kernels.blend.cpu import compiled
from jsplat.kernels.blend.splats import Splats

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = {"address,undefined": ("-fno-sanitize-recover=all",), "thread": ()}
DEGENERATE = 40


def degenerate(seed: int, count: int = 48) -> Splats:
    """Gaussians among which every attribute is now and then far too large, far too small, or no number."""
    random = np.random.default_rng(seed)
    size = np.asarray(SIZE)
    rows = [
        random.uniform(-4, 4 + size, (1, count, 2)),
        random.uniform([0.05, -1, 0.05], [2, 1, 2], (1, count, 3)),
        random.uniform(0, 1, (1, count)),
        random.uniform(1, 2, (1, count)),
    ]
    odd = np.array([0, -1, 1, 1e-30, 1e-6, 1e6, 1e30, 3e38, -3e38, np.nan, np.inf, -np.inf, 1 / 255, 0.999])
    for row in rows:
        there = random.uniform(size=row.shape) < 0.08
        row[there] = random.choice(odd, there.sum())
    features = random.uniform(size=(1, count, int(random.integers(1, 6))))
    return Splats(*(x.astype(np.float32).astype(np.float64) for x in (*rows, features)))


def write_cases(path: Path) -> None:
    """All named cases, degenerate ones, and a batch of heads that share features, as the harness reads them."""
    named = [(make(), SIZE) for make in CASES.values()]
    heads = headlike(5, 300, 64, 19)
    heads = heads._replace(features=heads.features[:2])
    odd = [(degenerate(seed), SIZE) for seed in range(DEGENERATE)]
    with path.open("wb") as file:
        for case, size in [*named, *odd, (heads, (64, 61))]:
            shape = (*case.opacities.shape, case.features.shape[-1])
            file.write(np.array([shape[0], len(case.features), *shape[1:], *size], np.int32).tobytes())
            for array in case:
                file.write(np.asarray(array, np.float64).tobytes())


def run(name: str, folder: Path) -> str | None:
    """What one sanitizer has to say, or None."""
    program = folder / name.replace(",", "_")
    how = (f"-fsanitize={name}", f"-I{compiled.HERE}", "-g1", "-O1", *SANITIZERS[name])
    command = compiled.command([str(ROOT / "tests/kernels/harness.cc")], program, *how)
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        return f"{name}: not compiled: {built.stderr[-2000:]}"
    done = subprocess.run([str(program), str(folder / "cases")], capture_output=True, text=True, env=dict(os.environ))
    print(f"{name}: {done.stdout.strip()}", flush=True)
    return f"{name}: {done.stdout}{done.stderr[-3000:]}" if done.returncode or done.stderr else None


def main() -> int:
    """1 where a sanitizer complains; 0 with a line that says why where nothing can be compiled."""
    if compiled.compiler() is None:
        print("no C++ compiler: the kernels for processors were not checked")
        return 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        write_cases(Path(folder) / "cases")
        complaints = [x for x in pool.map(lambda name: run(name, Path(folder)), SANITIZERS) if x]
    print(*complaints, sep="\n", file=sys.stderr)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
