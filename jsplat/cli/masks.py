"""The commands that hand masks and scenes to other programs and take them back."""

from pathlib import Path

import click

from jsplat.cli.group import FOLDER, main, settings

FORMATS = ("indexed", "cvat", "labelme", "coco")


@main.command("export-masks")
@click.argument("labelled", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--format", "form", type=click.Choice(FORMATS), default="indexed", show_default=True)
@settings("size", "seed")
def export_masks(labelled: Path, out: Path, form: str, config) -> None:
    """Masks of LABELLED (a run, from `label`, an auxiliary set, or captures) for an annotation tool.

    Those of a run are in the pixels of the pictures that its captures were imported from. OUT may end in .zip.

    \b
    jsplat export-masks out/demo/run out/masks.zip --format cvat
    jsplat export-masks out/demo/run/label out/masks.zip --format cvat
    """
    from jsplat.pipeline import transfer

    transfer.write_masks(labelled, out, form, config)


@main.command("import-masks")
@click.argument("masks", type=FOLDER)
@click.argument("captures", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--labels", type=FOLDER, help="From `parse` or `label`: what classes there are, if CAPTURES do not say.")
@settings("size", "seed")
def import_masks(masks: Path, captures: Path, out: Path, labels: Path | None, config) -> None:
    """CAPTURES with the MASKS somebody drew (a folder, an archive or a file in any of the formats), by name of class.

    \b
    jsplat import-masks out/masks.zip out/demo/captures out/corrected --labels out/demo/run/label
    """
    from jsplat.pipeline import transfer

    transfer.read_masks(masks, captures, labels, out, config)


@main.command("export-splats")
@click.argument("fitted", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--labelled",
    type=FOLDER,
    help="From `label`: class ids and probabilities with the splats, and a file that shows them.",
)
@settings("seed")
def export_splats(fitted: Path, out: Path, labelled: Path | None, config) -> None:
    """FITTED scenes as .ply that splat viewers open.

    \b
    jsplat export-splats out/demo/run/fit out/splats --labelled out/demo/run/label
    """
    from jsplat.pipeline import transfer

    transfer.write_splats(fitted, labelled, out, config)


@main.command("check-sides")
@click.argument("data", type=FOLDER)
@settings("size", "dataset")
def check_sides(data: Path, config) -> None:
    """Prints whose left the labels of DATA mean: the subject's, the viewer's, or a mixture of both.

    \b
    jsplat check-sides LaPa --set dataset.limit=500
    """
    from jsplat.pipeline import transfer

    seen = transfer.sides(data, config)
    told = sum(v != 0 for v in seen.votes)
    click.echo(f"{seen.convention} (confidence {seen.confidence:.2f}, {told} of {len(seen.votes)} pictures tell)")
    click.echo(f"against the others: {len(seen.contradicting)}, parts disagree: {len(seen.inconsistent)}")
