"""What 512 pixels give over 128: `python -m bench.real_size HEADS PARSER OUT`, some 15 minutes of two cores.

Runs `jsplat run` to its refined masks twice, with configs/heads_512_cpu.toml and at 128 pixels with
configs/heads_cpu.toml, and scores both against the truth at 512 pixels, the small masks enlarged to the nearest pixel.
What is done already in OUT is not done again, and its seconds and memory are those of the first time. Writes
bench/history/real_size.json: per person PSNR, side F1 and boundary IoU of teacher, refined and oracle; seconds of each
stage, peak memory of the process, disk of what the run keeps.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.history import HERE
from bench.run import about
from jsplat.captures.index import list_captures
from jsplat.files.atomic import write_json
from jsplat.labels.opinions import most_probable
from jsplat.labelsets.labelset import LabelSet
from jsplat.metrics.masks import score
from jsplat.pipeline.first_labels import first_labels
from jsplat.pipeline.packing import load_labelled

LARGE, SMALL = 512, 128
CONFIGS = {LARGE: ["--config", "heads_512_cpu"], SMALL: ["--config", "heads_cpu", "--set", "unseen=0"]}
METHODS = ("refined", "oracle")


def run(out: Path, heads: Path, parser: Path, settings: list[str]) -> dict:
    """Runs to the refined masks; what it took, kept beside the run."""
    told = out.with_name(f"{out.name}.json")
    if told.is_file():
        return json.loads(told.read_text())
    command = [sys.executable, "-m", "jsplat", "run", str(out), "--captures", str(heads), "--parser", str(parser)]
    child = subprocess.Popen([*command, "--until", "label", *settings, "--set", "ablation=false"])
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"jsplat run {out} failed")
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    seconds = {e["stage"]: round(e["seconds"], 1) for e in events if e["event"] == "stage ends"}
    took = {
        "seconds": seconds,
        "core_seconds": round(used.ru_utime + used.ru_stime),
        "peak_memory_mb": round(used.ru_maxrss / 1e3),  # Linux counts kilobytes
        "disk_mb": {part.name: round(_megabytes(part), 1) for part in sorted(out.iterdir()) if part.is_dir()},
    }
    write_json(told, took)
    return took


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def scores(heads: Path, out: dict[int, Path]) -> dict[str, dict]:
    """Per person, against the truth at LARGE pixels: side F1 and boundary IoU of each method at each size."""
    classes = LabelSet.from_json(json.loads((out[LARGE] / "label" / "labelset.json").read_text()))
    found: dict[str, dict] = {}
    for one in list_captures(heads, LARGE):
        capture = one.read()
        masks = {"teacher": most_probable(first_labels(out[LARGE] / "parse", capture).opinions)}
        for size, folder in out.items():
            arrays = load_labelled(folder / "label", one.identity)
            masks |= {f"{method} {size}": _enlarged(arrays[method], LARGE // size) for method in METHODS}
        names = (one.identity,) * len(capture.images)
        found[one.identity] = {}
        for name, mask in masks.items():
            told = score(mask, capture.labels, capture.yaw, capture.pitch, names, classes)
            side, core = told["bins"]["side"], {c: of["f1"] for c, of in told["classes_side"].items()}
            found[one.identity][name] = {"f1": side["f1"], "boundary_iou": side["boundary_iou"], "classes": core}
    return found


def _enlarged(masks: np.ndarray, times: int) -> np.ndarray:
    return masks.repeat(times, 1).repeat(times, 2)


def main(heads: Path, parser: Path, folder: Path) -> None:
    """Runs, scores, writes, and prints a table."""
    out = {size: folder / str(size) for size in CONFIGS}
    took = {size: run(path, heads, parser, CONFIGS[size]) for size, path in out.items()}
    for size, path in out.items():
        took[size]["psnr"] = json.loads((path / "fit" / "fit.json").read_text())["psnr"]
    people = scores(heads, out)
    write_json(HERE / "history" / "real_size.json", {**about("real size"), "runs": took, "people": people})
    for name in next(iter(people.values())):
        both = [f"{100 * p[name]['f1']:6.1f} {100 * p[name]['boundary_iou']:5.1f}" for p in people.values()]
        print(f"{name:>12}", *both)
    print(*took.items(), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
