"""Weights of other programs in, ours out."""

from pathlib import Path
from typing import Literal

import click

from jsplat.cli.group import FOLDER, main, prepare

FILE = click.Path(path_type=Path)


@main.command()
@click.argument("weights", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--labels", help="Label set, where the classes are not the 19 of the public files in their order.")
@click.option("--size", type=int, help="Pixels of the longer side the network sees.  [default: as trained, 512]")
@click.option("--inside", help="Which network, where a checkpoint holds several: model, ema/state_dict, ...")
def convert(weights: Path, out: Path, labels: str | None, size: int | None, inside: str | None) -> None:
    """Makes a parser of BiSeNet WEIGHTS: a torch checkpoint of any age, safetensors or ONNX, on disk or in the
    Hugging Face Hub (hub:OWNER/NAME/FILE or hub:OWNER/NAME/FILE@REVISION; extra `hub`).

    The auxiliary heads, which only training needs, may be missing, as in ONNX files. They are then initialised anew.

    \b
    jsplat convert 79999_iter.pth out/teacher
    jsplat convert resnet34.onnx out/teacher
    jsplat convert hub:OWNER/NAME/79999_iter.pth out/teacher
    jsplat convert last.ckpt out/teacher --labels celebamask-hq-official --inside ema
    """
    prepare()
    from jsplat.pipeline import commands

    click.echo(commands.convert(weights, out, labels, size, inside))


@main.command()
@click.argument("parser", type=FOLDER)
@click.argument("out", type=FILE)
@click.option(
    "--names",
    type=click.Choice(["zllrunning", "yakhyo"]),
    default="zllrunning",
    show_default=True,
    help="Whose names the weights get; zllrunning's are facexlib's too.",
)
def export(parser: Path, out: Path, names: Literal["zllrunning", "yakhyo"]) -> None:
    """Writes PARSER for others: OUT ends in .onnx or .safetensors.

    \b
    jsplat export out/demo/run/student student.onnx
    jsplat export out/demo/run/student student.safetensors --names yakhyo
    """
    prepare()
    from jsplat.pipeline import commands

    commands.export(parser, out, names)
