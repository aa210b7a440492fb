"""Commands that show results: films, a viewer, and studies with raters."""

from pathlib import Path

import click

from jsplat.cli.group import FOLDER, main, prepare, settings

FILE = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
CAPTURES = click.option(
    "--captures", type=FOLDER, help="The run's captures, if they moved.  [default: as run.json says]"
)
IDENTITY = click.option("--identity", help="Whose head.  [default: the first]")


@main.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=FOLDER)
@CAPTURES
@click.option("--against", type=FOLDER, help="Another program's masks of the same views: IDENTITY/labels/000.png, ...")
@click.option("--pairs", default=20, show_default=True, help="Pairs of masks in each comparison.")
@click.option(
    "--ratings", default=5, show_default=True, help="Photographs of each comparison with masks to rate singly."
)
@click.option("--checks", default=4, show_default=True, help="Attention checks.")
@click.option("--seed", default=0, show_default=True, help="Decides which photographs, sides and order.")
def study(
    run: Path, out: Path, captures: Path | None, against: Path | None, pairs: int, ratings: int, checks: int, seed: int
) -> None:
    """Makes a study for raters: OUT/study.html to give them, OUT/key.json to keep.

    \b
    jsplat study out/demo/run out/study
    jsplat study out/demo/run out/study --captures out/demo/captures --pairs 30 --against other/masks
    """
    prepare()
    from jsplat.pipeline import studies

    config = studies.StudyConfig(pairs=pairs, ratings=ratings, checks=checks)
    key = studies.make_study(run, out, config, seed, captures=captures, against=against)
    compared = ", ".join(" against ".join(pair) for pair in key["comparisons"])
    click.echo(f"{len(key['items'])} questions ({compared}): give raters {out / 'study.html'} and nothing else")


@main.command("study-results")
@click.argument("study", type=FOLDER)
@click.argument("answers", type=FILE, nargs=-1, required=True)
@click.option("--run", type=FOLDER, help="The run the study was made of: its next report shows the results.")
def study_results(study: Path, answers: tuple[Path, ...], run: Path | None) -> None:
    """Computes what raters prefer from the ANSWERS files they sent: STUDY/study.json.

    \b
    jsplat study-results out/study answers-1.json answers-2.json --run out/demo/run
    """
    from jsplat.pipeline import studies

    found = studies.study_results(study, answers, run)
    click.echo(f"{found['raters']} raters, {len(found['dropped'])} dropped for failed attention checks")
    for pair in found["pairs"]:
        counts, ends = pair["all"], pair["all"]["interval"]
        preferred = "no preferences" if ends is None else f"{counts['share']:.0%} [{ends[0]:.0%}, {ends[1]:.0%}]"
        click.echo(f"{pair['a']} preferred to {pair['b']}: {preferred}; {counts['same']} saw no difference")
    for method, rated in found["ratings"].items():
        ends = rated["interval"]
        click.echo(f"{method}: {rated['mean']:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"))


@main.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=FILE)
@CAPTURES
@IDENTITY
@click.option("--seconds", default=6.0, show_default=True)
@click.option("--fps", default=24, show_default=True, help="Frames a second.")
@click.option("--pitch", default=5.0, show_default=True, help="Degrees the camera stands above the head.")
@click.option("--size", default=320, show_default=True, help="Height in pixels.")
def turntable(
    run: Path, out: Path, captures: Path | None, identity: str | None, seconds: float, fps: int, pitch: float, size: int
) -> None:
    """Films a fitted head of RUN from all sides, colours beside classes: an MP4.

    \b
    jsplat turntable out/demo/run out/turn.mp4
    jsplat turntable out/demo/run out/turn.mp4 --captures out/demo/captures --identity head0003 --seconds 10 --size 512
    """
    prepare()
    from jsplat.pipeline import showing

    config = showing.TurntableConfig(seconds, fps, pitch, size)
    frames = showing.turntable(run, out, config, captures=captures, identity=identity)
    click.echo(f"{out}: {frames} frames")


@main.command()
@click.argument("shown", metavar="RUN|PLY", type=FOLDER)
@CAPTURES
@IDENTITY
@click.option("--port", type=PORT, default=8080, show_default=True, help="Port on this machine, or the next free one.")
def view(shown: Path, captures: Path | None, identity: str | None, port: int) -> None:
    """Shows a fitted head of a run, or a PLY, in the browser: RGB, labels and confidence to turn by hand.

    Needs jsplat[view]. A PLY shows labels where `jsplat export-splats --labelled` wrote them.

    From another machine: ssh -L 8080:127.0.0.1:8080 HOST, and the address it prints.

    \b
    jsplat view out/demo/run
    jsplat view out/demo/run --captures out/demo/captures --identity head0003
    jsplat view out/splats/head0003.ply
    """
    prepare()
    from jsplat.pipeline import showing
    from jsplat.runtime.stop import STOP

    server, address = showing.view(shown, captures=captures, identity=identity, port=port)
    click.echo(f"view: {address}  (this machine only; Ctrl+C ends it)")
    try:
        while not STOP.wait(1):
            pass
    except KeyboardInterrupt:
        click.echo()
    finally:
        server.stop()


@main.command()
@click.argument("run", type=FOLDER)
@CAPTURES
@click.option("--port", type=PORT, default=0, help="Port on this machine.  [default: any free one]")
@click.option(
    "--from",
    "corrected",
    type=FOLDER,
    metavar="MASKS",
    help="Takes as edits what somebody changed in masks of `export-masks RUN`, and serves no page.",
)
@click.option("--exported", type=FOLDER, help="With --from: what was exported, if RUN has other masks since.")
@settings("edit", "queue")
def edit(run: Path, captures: Path | None, port: int, corrected: Path | None, exported: Path | None, config) -> None:
    """Serves a local page to correct the masks of a finished RUN; every edit is evidence for the other views.

    With --from it takes corrections made in CVAT, labelme or another tool. `jsplat run` again votes on edits and brings
    them into masks, renders and students.

    From another machine: ssh -L 9000:127.0.0.1:PORT HOST, and the address it prints with 9000 instead of PORT.

    \b
    jsplat edit out/demo/run
    jsplat edit out/demo/run --captures out/demo/captures --port 8000
    jsplat edit out/demo/run --from corrected.zip
    """
    if corrected is None:
        if exported is not None:
            raise click.UsageError("--exported goes with --from MASKS")
        from jsplat.pipeline import editing

        editing.serve(run, captures, port, config.edit, config.queue)
        return
    from jsplat.pipeline.corrections import take_corrections

    taken = take_corrections(run, corrected, captures, config.edit, exported)
    click.echo(
        f"{len(taken.edited)} pictures corrected ({sum(taken.edited.values())} pixels), {len(taken.same)} the same"
    )
    if taken.small:
        click.echo(f"changes too small for the run's size: {len(taken.small)} ({', '.join(taken.small[:5])})")
    if taken.edited:
        click.echo("`jsplat run` again votes on them")
