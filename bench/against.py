"""A training step of this tree against another commit's, in turns: `python -m bench.against COMMIT [--rounds 15]`.

Both run on XLA alone, each in a process of its own, which are asked for some steps one after the other; each round
gives one ratio. Processor time is that of all threads of a process together (core-ms). The other commit is checked
out in a folder that is removed again. Writes bench/history/against.json and prints it.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.history import HERE
from bench.machine import about
from bench.serve_steps import READY
from bench.tables import markdown
from jsplat.files.atomic import write_json

ROOT = HERE.parent
COUNT, EDGE, STEPS = 8000, 128, 10


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A tree of that commit, importable as it is."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            for name in ("kernels", "configs"):
                (tree / "jsplat" / name).symlink_to(Path("..") / name)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


@contextlib.contextmanager
def server(tree: Path, identities: int) -> Iterator[subprocess.Popen]:
    """A process of that tree that waits for numbers of steps."""
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
    numbers = map(str, (identities, COUNT, EDGE))
    command = [sys.executable, "-P", str(HERE / "serve_steps.py"), *numbers]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tree, env=environment, **pipes) as process:
        while (line := process.stdout.readline()).strip() != READY:
            if not line:
                raise RuntimeError(f"{tree}: the step did not run")
        yield process
        process.stdin.close()


def asked(process: subprocess.Popen, steps: int) -> list[float]:
    """core-ms and wall-ms of a step."""
    print(steps, file=process.stdin, flush=True)
    return [float(x) for x in process.stdout.readline().split()]


def compared(tree: Path, identities: int, rounds: int) -> dict:
    """Medians of both, and of the ratios of the rounds."""
    with server(tree, identities) as theirs, server(ROOT, identities) as ours:
        steps = max(1, STEPS // identities)
        found = [(asked(theirs, steps), asked(ours, steps)) for _ in range(rounds)]
    result = {"rounds": rounds}
    for k, name in enumerate(("core_ms", "wall_ms")):
        before, after = ([pair[which][k] for pair in found] for which in (0, 1))
        ratios = sorted(b / a for a, b in zip(before, after))
        result[name] = {"before": statistics.median(before), "after": statistics.median(after)}
        result[name] |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    return result


def table(measured: dict) -> str:
    """Before and after, and by how much."""
    rows = []
    for identities, of in measured["identities"].items():
        for key, name in {"core_ms": "core-ms", "wall_ms": "ms"}.items():
            one = of[key]
            spread = f"{one['ratio']:.3f} ({one['lowest']:.3f} to {one['highest']:.3f})"
            rows.append([f"{identities}, {name}", f"{one['before']:.1f}", f"{one['after']:.1f}", spread])
    rounds = " and ".join(str(of["rounds"]) for of in measured["identities"].values())
    where = (
        f"Commit {measured['commit']} against {measured['against']} on {measured['device']}"
        f" ({measured['instructions']}), load {measured['load']:.1f} at the start: {COUNT:,} Gaussians a head,"
        f" {EDGE}x{EDGE} pixels, 22 channels, XLA alone; medians of {rounds} rounds in turns, of the ratio the lowest"
        " and highest round in brackets."
    )
    return "\n\n".join([where, markdown(["heads at once", "before", "after", "ratio"], rows)])


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--identities", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    measured = {**about("against"), "against": chosen.commit, "identities": {}}  # the load before it begins
    with checked_out(chosen.commit) as tree:
        for identities in chosen.identities:
            measured["identities"][str(identities)] = compared(tree, identities, chosen.rounds)
    write_json(HERE / "history" / "against.json", measured)
    print(table(measured))


if __name__ == "__main__":
    main()
