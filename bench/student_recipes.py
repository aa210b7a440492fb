"""How many pictures a step: `python -m bench.student_recipes RUN OUT PEOPLE [RECIPE ...]`, nine minutes a recipe.

RUN: a `jsplat run --config heads_cpu`, done as far as its stage "render", on captures with true labels; PEOPLE: some of
its unseen, with commas between, on whom settings may be chosen. A student is trained by each of RECIPES, or by those
that are named, all of which see as many pictures, into OUT (what is done already there is not done again), and scored
on PEOPLE, also on pictures enlarged as `jsplat predict` sees them. Writes bench/history/student_recipes.json, where
other recipes stay as they are if the same people taught them and are scored, and prints it.
"""

import json
import shutil
import sys
from pathlib import Path

from bench.captures_needed import Study
from bench.history import HERE
from bench.machine import about
from bench.student_steps import counted
from bench.tables import markdown, percent
from jsplat.captures.index import Listed
from jsplat.files.atomic import write_json
from jsplat.metrics.masks import scores_of
from jsplat.parser import Parser, enlarged, load_parser

RECIPES = {  # pictures a step, steps, the highest learning rate, what moving averages keep
    "16": (16, 450, 1e-3, 0.0),
    "8": (8, 900, 1e-3, 0.0),
    "8, twice the rate": (8, 900, 2e-3, 0.0),
    "32": (32, 225, 1e-3, 0.0),
    "8, averaged": (8, 900, 2e-3, 0.99),
}
BINS = ("0-15", "15-45", "side", "all")


def trained(study: Study, out: Path, recipe: tuple[int, int, float, float]) -> Path:
    """The student of a recipe."""
    batch, steps, rate, kept = recipe
    if not out.exists():
        shutil.copytree(study.run, out)
    values = {"batch": batch, "steps": steps, "learning_rate": rate, "ema_decay": kept}
    settings = [f"unseen={study.config['unseen']}", *(f"finetune.{key}={value}" for key, value in values.items())]
    study.command(out, study.heads, *(part for one in settings for part in ("--set", one)), "--until", "student")
    return out / "student"


def scored(parser: Parser, people: list[Listed], study: Study) -> dict:
    """F1 by pose, and of the necklace, which students lose first."""
    scores = scores_of(counted(study, parser, people), study.classes)
    return {name: scores["bins"][name]["f1"] for name in BINS} | {"neck_l": scores["classes"]["neck_l"]["f1"]}


def main(run: Path, out: Path, names: list[str], recipes: list[str]) -> None:
    """Trains, scores, writes and prints."""
    study, path = Study(run, out), HERE / "history" / "student_recipes.json"
    people = [one for one in study.groups["unseen"] if one.identity in names]
    taught = [one.identity for one in study.groups["fitted"]]
    counts = {"people": [one.identity for one in people], "taught": taught, "seed": study.config["seed"]}
    old = json.loads(path.read_text()) if path.exists() else {}
    rows = old["recipes"] if old.items() >= counts.items() else {}
    for name in recipes or RECIPES:
        recipe = RECIPES[name]
        folder = trained(study, out / name.replace(", ", "_").replace(" ", "_"), recipe)
        student = load_parser(folder / "parser", study.classes)
        told = json.loads((folder / "run.json").read_text())
        rows[name] = {"recipe": recipe, "seconds": told["seconds"], "trained_at": told["commit"]}
        rows[name] |= {"scores": scored(student, people, study)}
        rows[name] |= {"scores, enlarged": scored(enlarged(student, study.config["enlarge"]), people, study)}
        print(name, rows[name], flush=True)
        write_json(path, {**about("student recipes"), **counts, "recipes": rows})


def table(measured: dict) -> str:
    """The recipes, with what they took."""
    rows = []
    for of in measured["recipes"].values():
        batch, steps, rate, *kept = of["recipe"]
        scores = [[percent(of[key][b]) for b in (*BINS, "neck_l")] for key in ("scores", "scores, enlarged")]
        how = f"{batch} x {steps}, {rate:g}" + (f", averaged ({kept[0]:g})" if kept and kept[0] else "")
        rows.append([how, f"{of['seconds']:.0f}", *map(" / ".join, zip(*scores))])
    made = dict.fromkeys(of["trained_at"] for of in measured["recipes"].values())
    where = (
        f"Taught by {', '.join(measured['taught'])}, scored on {', '.join(measured['people'])}, seed"
        f" {measured['seed']}, trained at commit {', '.join(made)}. F1 in %, of pictures as in training / enlarged as"
        " `jsplat predict` sees them."
    )
    return "\n\n".join([where, markdown(["pictures a step x steps, rate", "seconds", *BINS, "neck_l"], rows)])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:])
