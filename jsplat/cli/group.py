"""The group that every command belongs to, and what the commands share."""

import contextlib
import functools
import io
import os
import signal
import sys
from pathlib import Path

import click

from jsplat.errors import InputError, Stopped
from jsplat.version import VERSION

LEFT_OUT = 3  # exit status: done, but for people, or pictures, that were left out
SHOWN = 10  # of them are named
FOLDER = click.Path(path_type=Path)


def settings(function):
    """Adds --config and --set; the command gets the loaded RunConfig as `config`."""

    @click.option("--config", "toml", type=click.Path(path_type=Path), help="TOML file: differences from the defaults.")
    @click.option("--set", "overrides", multiple=True, metavar="STAGE.FIELD=VALUE", help="Changes one setting.")
    @functools.wraps(function)
    def command(*args, toml: Path | None, overrides: tuple[str, ...], **options):
        prepare()
        from jsplat.config import load
        from jsplat.pipeline import RunConfig

        return function(*args, config=load(RunConfig, toml, list(overrides)), **options)

    return command


def may_leave_out(function):
    """Adds --allow-failures to a command that returns whom it left out ({name: why}), which decides its exit status."""

    @click.option(
        "--allow-failures",
        "allowed",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help=f"End with status 0, not {LEFT_OUT}, when at most N people (or pictures) are left out.  [default: 0]",
    )
    @functools.wraps(function)
    def command(*args, allowed: int, **options):
        left = function(*args, **options)
        if left:
            click.echo(
                f"left out: {len(left)} ({', '.join(sorted(left)[:SHOWN])}{', ...' * (len(left) > SHOWN)})", err=True
            )
        if len(left) > allowed:
            click.get_current_context().exit(LEFT_OUT)

    return command


def prepare() -> None:
    """An XLA device for each CPU core it may use, to fit identities side by side; compiled programs are kept on disk.

    SIGTERM lets long loops save before they end.
    """
    import jax

    from jsplat.runtime.devices import cores
    from jsplat.runtime.programs import configure_xla, count_compiles
    from jsplat.runtime.stop import STOP

    configure_xla()
    count_compiles()
    signal.signal(signal.SIGTERM, lambda *_: STOP.set())

    with contextlib.suppress(RuntimeError):  # within a program that runs JAX already: its devices stay as they are
        jax.config.update("jax_num_cpu_devices", cores())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jsplat"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # most programs are small, and many


class _Group(click.Group):
    def invoke(self, ctx: click.Context):
        """Bad input ends in one line, not in a traceback; a stop on request in a line and a status of its own."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that the console has not ends no work of hours
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from error
        except (RuntimeError, AssertionError) as error:
            from jsplat.runtime.programs import missing_platform

            if (named := missing_platform()) is None:
                raise
            wanted = f"JAX_PLATFORMS: wanted a platform that is here, or nothing for the best one, got {named}"
            raise click.ClickException(wanted) from error
        except Stopped as stopped:
            click.echo(f"{stopped}; the same command goes on from there", err=True)
            ctx.exit(128 + signal.SIGTERM)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="jsplat")
def main() -> None:
    """Label refinement for head images by Gaussian splatting, in JAX.

    \b
    The whole loop on procedural heads:   jsplat demo out/demo
    The same on your captures:            jsplat train-parser FRONTAL out/teacher
                                          jsplat run out/run --captures DIR --parser out/teacher
    """
