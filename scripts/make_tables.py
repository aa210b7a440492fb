"""Writes the README's results from the JSON files that runs and benchmarks left; no number there is typed.

python scripts/make_tables.py            # rewrites README.md between its markers
python scripts/make_tables.py --check    # fails when README.md is not what the files say
"""

import argparse
import json
import sys
from pathlib import Path

from jsplat.findings import BINS, METHODS, Goals, headline

ROOT = Path(__file__).resolve().parent.parent
RUNS = {"heads": ROOT / "bench/history/heads_cpu.report.json", "demo": ROOT / "bench/history/demo.report.json"}
BENCH = ROOT / "bench/baseline"
NOT_MEASURED = "not measured"


def number(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def scores(report: dict, group: str) -> str:
    """F1 per pose bin of every method."""
    shown = [b for b in BINS if b != "all"]
    rows = []
    for method, (name, _, _) in METHODS.items():
        bins = report.get(method, {}).get(group, {}).get("bins")
        if bins:
            core = [number(bins[b]["f1_core"]) for b in ("0-15", "side")]
            rows.append([name, *[number(bins[b]["f1"]) for b in shown], *core])
    return markdown(["F1, %", *shown, "core 0-15", "core side"], rows)


def ablation(report: dict) -> str:
    """F1 of every vote."""
    names = {
        "f1_frontal": "0-15",
        "f1_45_75": "45-75",
        "f1_75_105": "75-105",
        "f1_side": "side",
        "f1_core_side": "core side",
    }
    rows = [[vote, *[number(values[key]) for key in names]] for vote, values in report["ablation"].items()]
    return markdown(["labels, F1 %", *names.values()], rows)


def run_section(report: dict) -> str:
    """What one run found."""
    goals = Goals(**report["goals"])
    minutes = sum(report["stages"].values()) / 60
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["stages"].items())
    where = f"{report['device']}, commit {report['commit']}, jax {report['versions']['jax']}, seed {report['seed']}"
    fit = f"Held-out views: PSNR {report['fit']['psnr']:.1f} dB, SSIM {report['fit']['ssim']:.3f}."
    parts = [
        f"Measured on {where}.",
        f"{minutes:.1f} minutes, the teacher's training apart: {stages}. {fit}",
        "\n".join(f"- {line}" for line in headline(report, goals)),
        "People whose captures were fitted and used for fine-tuning:\n\n" + scores(report, "fitted"),
        "People nobody trained on (fitted all the same, to score their refined labels):\n\n" + scores(report, "unseen"),
    ]
    if "ablation" in report:
        parts.append("Every vote on the same geometry, all people:\n\n" + ablation(report))
    return "\n\n".join(parts)


def bench_section() -> str:
    """The rasterizer's ratios on each kind of device that has a baseline."""
    parts = []
    for path in sorted(BENCH.glob("*.json")):
        rows = []
        for metric in json.loads(path.read_text()).values():
            value = NOT_MEASURED if metric["value"] is None else f"{metric['value']:.3g} {metric['unit']}"
            goal = "-" if metric["bound"] is None else f"{metric['bound']:g}"
            rows.append([metric["name"], value, goal, f"{metric['spread']:.2f}", metric["commit"]])
        parts.append(f"{path.stem}:\n\n" + markdown(["measurement", "median", "goal", "spread", "commit"], rows))
    return "\n\n".join([*parts, f"GPU: {NOT_MEASURED}."])


def sections() -> dict[str, str]:
    """What belongs between each pair of markers."""
    found = {"bench": bench_section()}
    for name, path in RUNS.items():
        found[name] = run_section(json.loads(path.read_text())) if path.is_file() else f"{NOT_MEASURED}."
    return found


def filled(text: str) -> str:
    """The README with all sections written anew."""
    for name, body in sections().items():
        start, end = f"<!-- {name}: made by scripts/make_tables.py -->", f"<!-- end of {name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"README.md: wanted the markers {start} and {end}")
        text = text[: text.index(start) + len(start)] + "\n\n" + body + "\n\n" + text[text.index(end) :]
    return text


def main() -> None:
    """Rewrites or checks the README."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check, readme = parser.parse_args().check, ROOT / "README.md"
    new = filled(readme.read_text())
    if check and new != readme.read_text():
        sys.exit("README.md is not what the files say: python scripts/make_tables.py")
    readme.write_text(new)


if __name__ == "__main__":
    main()
