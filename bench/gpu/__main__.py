"""The command line of `scripts/gpu_check.sh`, which sees to the environment.

    scripts/gpu_check.sh                                   all steps
    scripts/gpu_check.sh a b c.memcheck.triton             these steps, and this part
    scripts/gpu_check.sh --after summary.json              what an earlier call has not done
    scripts/gpu_check.sh --rehearse                        on a processor, small, XLA in the kernels' place

Everything ends within --seconds, whatever hangs. OUT (out/gpu_check) gets summary.json, summary.txt, bench.jsonl (lines
for bench/history), log.txt and ncu.csv. Exit status 1: a part failed, crashed or hung.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu.parts import STEPS, parts, rehearsed, wanted
from bench.gpu.processes import Runner
from bench.gpu.record import Record, is_bad


def no_gpu(about: dict[str, Any]) -> str:
    """Why there is nothing to check; empty where there is a GPU, and where nobody can say: the rest is tried then."""
    platform = about.get("values", {}).get("platform")
    if platform is None and about["status"] == "failed":
        return f"does not start: {about['why']}"
    return "" if platform in ("gpu", None) else f"runs on: {platform}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for; 1 when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", help="; ".join(f"{name}: {what}" for name, what in STEPS.items()))
    parser.add_argument("--after", type=Path, help="summary.json of an earlier call: its parts are not run again")
    parser.add_argument("--seconds", type=float, default=585.0, help="for everything")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args(arguments)
    earlier = json.loads(given.after.read_text(encoding="utf-8")) if given.after else None
    record = Record(Path(os.environ.get("OUT", "out/gpu_check")), earlier)
    try:
        todo = wanted(rehearsed() if given.rehearse else parts(), given.steps, record.done())
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended, what came out is written
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        runner = Runner(record, given.seconds, Path(folder), given.rehearse)
        runner.run(todo[:1])
        if not given.rehearse and (why := no_gpu(record.parts["about"])):
            print(f"gpu_check: no GPU: the JAX of {sys.executable} {why}", file=sys.stderr)
            return 1
        runner.run(todo[1:])
    record.ended = True
    record.save()
    print(record.text(), end="")
    return int(any(is_bad(record.parts[part.name]) for part in todo))


if __name__ == "__main__":
    sys.exit(main())
