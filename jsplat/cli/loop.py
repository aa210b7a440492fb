"""The commands of the loop: captures and a parser in, a better parser and a report out."""

import contextlib
from pathlib import Path

import click

from jsplat.cli.group import FOLDER, main, may_leave_out, settings
from jsplat.errors import InputError

UNTIL = ("parse", "fit", "label", "render", "student")
RUN = (
    "size",
    "seed",
    "unseen",
    "student_people",
    "student_seeds",
    "procedural_people",
    "baselines",
    "variants",
    "ablation",
    "flip",
    "enlarge",
    "dataset",
    "fit",
    "vote",
    "sharpen",
    "mask",
    "palette",
)
RUN += ("views", "edit", "simulation", "finetune", "goals")  # what a run reads


def masks_from_elsewhere(function):
    """Adds --labels: who votes beside the parser, or in its place."""
    return click.option(
        "--labels",
        multiple=True,
        metavar="FOLDER[=TABLE]",
        help="Masks from elsewhere, IDENTITY/NAME.png under the pictures' names, as a further voter; may be given more"
        " than once. TABLE, a JSON file or a name as cihp, says what their labels mean where the masks do not.",
    )(function)


@main.command()
@click.argument("out", type=FOLDER)
@click.option("--people", type=click.IntRange(min=1), default=8, show_default=True, help="How many.")
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of the first person; a number is always one person.",
)
@click.option("--views", type=click.IntRange(min=2), default=56, show_default=True, help="Photographs of each.")
@click.option("--rig", type=click.Choice(["capture", "frontal"]), default="capture", show_default=True)
@settings("seed", "heads")
def heads(out: Path, people: int, first: int, views: int, rig: str, config) -> None:
    """Makes procedural people as captures with exact labels.

    \b
    jsplat heads out/captures --people 4 --views 30
    jsplat heads out/frontal --people 40 --first 1000 --views 8 --rig frontal
    """
    from jsplat.pipeline import write_people

    write_people(out, range(first, first + people), views, rig, config)


@main.command("train-parser")
@click.argument("data", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--from", "start", type=FOLDER, help="Fine-tune this parser instead of starting anew.")
@click.option("--replay", type=FOLDER, help="Old training data, mixed into every batch against forgetting.")
@click.option("--validation", type=FOLDER, help="Labelled set on which the parser is scored at the end.")
@settings(
    "size", "seed", "dataset", "teacher", "finetune", idle=lambda given: "teacher" if given["start"] else "finetune"
)
def train_parser(
    data: Path, out: Path, start: Path | None, replay: Path | None, validation: Path | None, config
) -> None:
    """Trains BiSeNet on DATA: captures with labels, an auxiliary set, pictures with masks, or a public set.

    Pictures with masks: images/ and labels/, or masks beside pictures, as `evaluate` takes them. Public sets:
    CelebAMask-HQ, LaPa, HELEN*, iBugMask and FaceSynthetics, as their authors lay them out.

    \b
    jsplat train-parser out/demo/frontal out/teacher
    jsplat train-parser out/demo/run/render/student out/student --from out/demo/teacher --replay out/demo/frontal
    """
    from jsplat.pipeline import train_teacher

    settings = config.teacher if start is None else config.finetune
    train_teacher(data, out, config, settings, start=start, replay=replay, validation=validation)


@main.command()
@click.argument("parser", type=FOLDER)
@click.argument("captures", type=FOLDER)
@click.argument("out", type=FOLDER)
@masks_from_elsewhere
@may_leave_out
@settings("size", "seed", "flip", "enlarge")
def parse(parser: Path, captures: Path, out: Path, labels: tuple[str, ...], config) -> dict[str, str]:
    """Gives every view of CAPTURES its first labels, with PARSER ("none": with --labels alone).

    \b
    jsplat parse out/demo/teacher out/demo/captures out/parsed
    jsplat parse out/demo/teacher out/demo/captures out/parsed --labels bodies=cihp --labels hair
    jsplat parse none out/demo/captures out/parsed --labels masks
    """
    from jsplat.pipeline import commands

    return commands.parse(None if str(parser) == "none" else parser, captures, out, config, labels)


@main.command()
@click.argument("parser", type=FOLDER)
@click.argument("source", metavar="INPUT", type=FOLDER)
@click.argument("out", type=FOLDER)
@may_leave_out
@settings("seed", "flip", "enlarge")
def predict(parser: Path, source: Path, out: Path, config) -> dict[str, str]:
    """Masks and overlays of any pictures, with PARSER, in their own pixels, under their own names.

    INPUT is a picture, a folder (all pictures in it and below), a pattern in quotes, or a video. OUT/labels gets
    indexed PNGs that name their classes, OUT/overlays the pictures under the colours of the classes.

    \b
    jsplat predict out/demo/run/student photos out/masks
    jsplat predict out/demo/teacher 'photos/**/*.jpg' out/masks --set flip=false
    jsplat predict out/demo/teacher talk.mp4 out/talk
    """
    from jsplat.pipeline import predicting

    return predicting.predict(parser, source, out, config)


@main.command()
@click.argument("captures", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--labels", type=FOLDER, help="First labels, from `parse`; needed where the background is unknown.")
@may_leave_out
@settings("size", "seed", "fit")
def fit(captures: Path, out: Path, labels: Path | None, config) -> dict[str, str]:
    """Fits 3D Gaussians to all CAPTURES at once.

    \b
    jsplat fit out/demo/captures out/fit --labels out/parsed --set fit.steps=1000
    """
    from jsplat.pipeline import commands

    return commands.fit(captures, labels, out, config)


@main.command()
@click.argument("captures", type=FOLDER)
@click.argument("fitted", type=FOLDER)
@click.argument("labels", type=FOLDER)
@click.argument("out", type=FOLDER)
@may_leave_out
@settings("size", "seed", "ablation", "vote", "sharpen", "mask", "palette", "fit.label_weight")
def label(captures: Path, fitted: Path, labels: Path, out: Path, config) -> dict[str, str]:
    """Fuses first LABELS on FITTED scenes by the robust vote, and renders refined masks of every view.

    \b
    jsplat label out/demo/captures out/fit out/parsed out/labelled --set vote.method=best
    """
    from jsplat.pipeline import commands

    return commands.label(captures, fitted, labels, out, config)


@main.command()
@click.argument("captures", type=FOLDER)
@click.argument("fitted", type=FOLDER)
@click.argument("labelled", type=FOLDER)
@click.argument("out", type=FOLDER)
@may_leave_out
@settings("size", "seed", "views", "mask")
def render(captures: Path, fitted: Path, labelled: Path, out: Path, config) -> dict[str, str]:
    """Renders labelled pictures from poses nobody photographed, with the refined photographs: an auxiliary set.

    \b
    jsplat render out/demo/captures out/fit out/labelled out/auxiliary --set views.count=48
    """
    from jsplat.pipeline import commands

    return commands.render(captures, fitted, labelled, out, config)


@main.command()
@click.argument("parser", type=FOLDER)
@click.argument("captures", type=FOLDER)
@click.argument("out", type=FOLDER)
@may_leave_out
@settings("size", "seed", "dataset")
def evaluate(parser: Path, captures: Path, out: Path, config) -> dict[str, str]:
    """Scores PARSER on labelled CAPTURES, by head pose, or on any labelled set.

    A plain folder will do: images/ and labels/, or pictures beside masks of the same name; indexed PNGs that name their
    classes, labels.json beside them, or a table. So will CelebAMask-HQ, LaPa, HELEN*, iBugMask and FaceSynthetics, as
    their authors lay them out. Both are scored in their masks' own pixels, unless a size is set.

    \b
    jsplat evaluate out/demo/run/student out/demo/captures out/scores
    jsplat evaluate out/demo/run/student my_pictures out/scores --set dataset.table=celebamask-hq
    """
    from jsplat.pipeline import commands

    return commands.evaluate(parser, captures, out, config)


@main.command()
@click.argument("out", type=FOLDER)
@click.option("--captures", type=FOLDER, required=True, help="Captures, or what `import` knows, or a folder of such.")
@click.option("--parser", type=FOLDER, help="The weak parser, from `train-parser` or `convert`.")
@masks_from_elsewhere
@click.option(
    "--replay",
    type=FOLDER,
    help="What the parser was trained on, or a labelled set like it, mixed into the student's training to keep old"
    " skills.  [default: what the parser's run.json names, if it is still there]",
)
@click.option(
    "--test",
    type=FOLDER,
    help="Labelled pictures like those the parser learnt from, of others: parsers are scored on them, none is taught.",
)
@click.option("--until", type=click.Choice(UNTIL), help="Ends after this stage; without it the same command goes on.")
@click.option("--dry-run", "dry", is_flag=True, help="Says what it would do and take, and ends; OUT is not touched.")
@click.option(
    "--score/--no-score",
    default=True,
    show_default=True,
    help="Whether labels in the captures are used to score. They are never used to fit.",
)
@click.option("--profile", is_flag=True, help="Writes OUT/profile, which Perfetto and XProf open.")
@click.option("--distributed", is_flag=True, help="One of several processes, which Slurm or Kubernetes tells apart.")
@click.option(
    "--process",
    type=(str, int, int),
    metavar="HOST:PORT COUNT NUMBER",
    help="This process is NUMBER (from 0) of COUNT; HOST:PORT is the address of number 0.",
)
@may_leave_out
@settings(*RUN, "capture")
def run(
    out: Path,
    captures: Path,
    parser: Path | None,
    labels: tuple[str, ...],
    replay: Path | None,
    test: Path | None,
    until: str | None,
    dry: bool,
    score: bool,
    profile: bool,
    distributed: bool,
    process: tuple[str, int, int] | None,
    config,
) -> dict[str, str]:
    """All stages: first labels, fit, vote, renders, fine-tuning, report. Finished stages are skipped.

    CAPTURES of another program (nerfstudio, COLMAP, FaceScape, photographs, a video, ...: see `import`), one person's
    or a folder of them, are imported into OUT/captures first.
    Without labels in CAPTURES nothing is scored, and whatever only scores need is left out.
    Without --parser, masks from elsewhere (--labels) take its place, and the run ends with its renders.

    Several processes, on one host or many, can share the work (--distributed, --process). All of them must be able to
    read CAPTURES and PARSER and to write OUT.

    \b
    jsplat run out/run --captures out/demo/captures --parser out/demo/teacher --config cpu
    jsplat run out/ada --captures colmap/ada --parser out/demo/teacher --until label
    jsplat run out/run --captures out/demo/captures --parser out/demo/teacher --dry-run
    jsplat run out/run --captures out/demo/captures --parser out/demo/teacher --labels bodies=cihp
    jsplat run out/run --captures out/demo/captures --labels masks
    srun jsplat run out/run --captures out/demo/captures --parser out/demo/teacher --distributed
    jsplat run out/run --captures out/demo/captures --parser out/demo/teacher --process node0:8476 2 1
    """
    import jax

    from jsplat.pipeline import Request, foretell
    from jsplat.pipeline import run as run_all
    from jsplat.runtime.programs import keep_in_every_process

    if distributed or process is not None:
        address, count, number = process or (None, None, None)
        _join(address, count, number)
        keep_in_every_process()
        jax.devices()  # now: the processes tell one another what they have, and would wait for the last to ask
    with contextlib.ExitStack() as stack:

        def begun() -> None:
            if profile:
                stack.enter_context(jax.profiler.trace(str(out / "profile")))

        request = Request(captures, parser, labels, replay, test, score, until)
        if dry:
            click.echo("\n".join(foretell(request, out, config)))
            return {}
        report = run_all(request, out, config, begun)
    if request.last_stage is None:
        click.echo(f"report: {out / 'report.html'}")
    else:
        last = request.last_stage
        click.echo(f"{last}: {out / last}  (the same command without --until goes on from there)")
    return report["failed"]


def _join(address: str | None, count: int | None, number: int | None) -> None:
    """Becomes one of several processes."""
    import jax

    try:
        jax.distributed.initialize(address, count, number)
    except (ValueError, RuntimeError) as error:
        if address is None:
            wanted, hint = (
                "processes started by Slurm, Open MPI or Kubernetes",
                "--process says by hand which one this is",
            )
            raise InputError("--distributed", wanted=wanted, got=error, hint=hint) from error
        hint = "start all of them with the same HOST:PORT and COUNT, each with a NUMBER of its own"
        wanted = f"{count} processes that reach {address}"
        raise InputError("--process", wanted=wanted, got=error, hint=hint) from error


@main.command()
@click.argument("out", type=FOLDER, default=Path("out/demo"))
@may_leave_out
@settings(*RUN, "teacher", "heads", "demo", toml="demo")
def demo(out: Path, config) -> dict[str, str]:
    """The whole loop on procedural people, nothing downloaded.

    \b
    jsplat demo out/demo
    """
    from jsplat.pipeline import demo as run_demo

    report = run_demo(out, config)
    click.echo(f"report: {out / 'run' / 'report.html'}")
    return report["failed"]


@main.command()
@click.argument("run", type=FOLDER)
def status(run: Path) -> None:
    """Prints the state of each stage of a RUN: done, running (with ETA and loss), waiting or failed.

    \b
    jsplat status out/demo/run
    """
    from jsplat.pipeline.status import status as stages

    rows = stages(run)
    width = max(len(name) for name, _ in rows)
    for name, found in rows:
        click.echo(f"{name:{width}}  {found}")
