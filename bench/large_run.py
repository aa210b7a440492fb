"""Peak memory of a whole run on large pictures: `python -m bench.large_run OUT [SIZE VIEWS STEPS]`, 1,024 pixels, 100
views and 300 steps of the fit where nothing is said: some 15 minutes of two cores.

Makes one procedural person and a full-width parser that sees 512 pixels and has learnt for a moment, and runs
`jsplat run --until label` with as many Gaussians as that size gets by default: memory depends on sizes, not on how well
parser and fit have learnt. What is done already in OUT is not done again. Writes bench/history/large_run.json.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench.history import HERE
from bench.real_size import run
from bench.run import about
from jsplat.files.atomic import write_json

PARSER = {"width": 1.0, "input_size": 512, "label_size": 512, "steps": 2, "batch": 2}


def make(out: Path, command: str, *options: str) -> None:
    """What a command of jsplat makes at `out`, unless it is there."""
    if not out.exists():
        subprocess.run([sys.executable, "-m", "jsplat", command, *options], check=True)


def main(folder: Path, size: int = 1024, views: int = 100, steps: int = 300) -> None:
    """Makes, runs, writes, and prints one line."""
    person, faces, parser, out = (folder / name for name in ("person", "faces", "parser", f"run_{size}_{views}"))
    make(person, "heads", str(person), "--people", "1", "--views", str(views), "--set", f"heads.size={size}")
    make(faces, "heads", str(faces), "--people", "2", "--first", "1000", "--views", "8", "--rig", "frontal")
    settings = [part for name, value in PARSER.items() for part in ("--set", f"teacher.{name}={value}")]
    make(parser, "train-parser", str(faces), str(parser), *settings)
    took = run(out, person, parser, ["--set", f"size={size}", "--set", f"fit.steps={steps}"])
    fit = json.loads((out / "fit" / "fit.json").read_text())
    told = {"size": size, "views": views, "fit_steps": steps, "psnr": fit["psnr"], **took}
    write_json(HERE / "history" / "large_run.json", {**about("large run"), **told})
    print(told)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 5):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
