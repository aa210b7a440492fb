"""A parser of the released weights' width, converted: `python -m bench.full_width RUN FRONTAL OUT`, two hours.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels, some of whose
people are unseen. A BiSeNet of width 1 learns from the labelled captures in FRONTAL in as many steps as the run's own
teacher, leaves as weights under the names of the torch implementation and comes back by `jsplat convert`, as a file of
somebody else's would. Labels and a student are made with it by the run's settings, and scored on the unseen, on whom
nothing is chosen. What is done already in OUT is not done again. Writes bench/history/full_width.json and prints it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.milder_teacher import measured, scores_table
from bench.tables import percent
from jsplat.files.atomic import write_json
from jsplat.parser import Parser, load_parser, predict_labels
from jsplat.parser.model import parameter_count

WIDTH = 1.0


def jsplat(*words: str | Path) -> None:
    """The program, as a person calls it."""
    subprocess.run([sys.executable, "-m", "jsplat", *map(str, words)], check=True)


def converted(study: Study, frontal: Path, out: Path) -> Parser:
    """The teacher in `out / "converted"`, through a file of weights."""
    jsplat("train-parser", frontal, out / "teacher", "--config", "heads_cpu", "--set", f"teacher.width={WIDTH:g}")
    own = load_parser(out / "teacher" / "parser", study.classes)
    if not (out / "converted").exists():
        weights = out / "teacher.safetensors"
        jsplat("export", out / "teacher", weights)
        jsplat("convert", weights, out / "converted", "--size", str(own.architecture.input_size))
    return own


def made(run: Path, frontal: Path, out: Path) -> tuple[Study, dict]:
    """The run with the converted teacher, as far as its student, and what the conversion did to it."""
    study = Study(run, out)
    own = converted(study, frontal, out)
    back = load_parser(out / "converted" / "parser", study.classes)
    images = study.listed[0].read().images
    same = float(np.mean(predict_labels(own, images) == predict_labels(back, images)))
    if not (out / "run").exists():
        shutil.copytree(run, out / "run")  # fits do not depend on the parser
    study.parser = out / "converted"
    settings = ("--replay", str(frontal), "--set", f"unseen={study.config['unseen']}")
    study.command(out / "run", study.heads, *settings, "--until", "student")
    weights = parameter_count(back.architecture, len(study.classes))
    return Study(out / "run", out), {"width": back.architecture.width, "weights": weights, "same labels": same}


def main(run: Path, frontal: Path, out: Path) -> None:
    """Trains, converts, scores, writes and prints."""
    study, network = made(run, frontal, out)
    write_json(HERE / "history" / "full_width.json", {**about("full width"), **network, **measured(study)})


def table(found: dict) -> str:
    """The scores of what a parser of full width leads to."""
    who = (
        f"{found['weights'] / 1e6:.1f} million weights (width {found['width']:g}); read back from the file, they gave"
        f" {percent(found['same labels'])} % of the pixels of one person the labels that they gave before."
    )
    return scores_table(found, who)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
