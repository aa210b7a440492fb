"""What can be set, and what it is: TOML to begin a file for --config with."""

import dataclasses

import click

from jsplat.cli.group import main, readers
from jsplat.errors import InputError


@main.command()
@click.argument("stage", required=False)
def settings(stage: str | None) -> None:
    """Prints every setting with its default and what it is, or those of one STAGE: a settings file to begin with.

    \b
    jsplat settings
    jsplat settings fit
    """
    from jsplat.config import to_toml
    from jsplat.pipeline import RunConfig

    config = RunConfig()
    names = [f.name for f in dataclasses.fields(config)]
    stages = {name: getattr(config, name) for name in names if dataclasses.is_dataclass(getattr(config, name))}
    if stage is not None and stage not in stages:
        raise InputError("STAGE", wanted=f"a stage ({', '.join(stages)}), or nothing for all", got=repr(stage))
    notes = {name: f"Read by: {', '.join(readers(name))}." for name in stages}
    click.echo(to_toml(config, notes, stage), nl=False)
