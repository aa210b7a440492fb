"""The group that every command belongs to, and what the commands share."""

import contextlib
import errno
import functools
import importlib.resources
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from jsplat.errors import InputError, Stopped
from jsplat.version import VERSION

LEFT_OUT = 3  # exit status: done, but for people, or pictures, that were left out
SHOWN = 10  # of them are named
FOLDER = click.Path(path_type=Path)


def settings(*reads: str, toml: str | None = None, idle: Callable[[dict], str] = lambda given: ""):
    """Adds --config and --set; the command gets the loaded RunConfig as `config`.

    Args:
        reads: the settings that the command reads: stages, or single ones as "stage.field". --set of another one is
            refused; a file may hold more, for it serves several commands.
        toml: the installed settings to start from where --config names none.
        idle: which of these is not read with the options given.
    """

    def decorate(function):
        @click.option(
            "--config",
            "toml",
            metavar="FILE|NAME",
            default=toml,
            show_default=toml is not None,
            help="TOML file with differences from the defaults, or the name of an installed one: gpu, cpu, demo, ...",
        )
        @click.option("--set", "overrides", multiple=True, metavar="STAGE.FIELD=VALUE", help="Changes one setting.")
        @functools.wraps(function)
        def command(*args, toml: str | None, overrides: tuple[str, ...], **options):
            prepare()
            from jsplat.config import load
            from jsplat.pipeline import RunConfig

            config = load(RunConfig, None if toml is None else settings_file(toml), overrides)
            _check_read(overrides, [name for name in reads if name != idle(options)])
            return function(*args, config=config, **options)

        command.reads = reads  # type: ignore[attr-defined]
        return command

    return decorate


def settings_file(given: str) -> Path:
    """The file that --config names; a bare name that is no file is one of those that come with jsplat."""
    path = Path(given)
    if path.is_file() or path.suffix == ".toml" or path.name != given:
        return path
    known = {p.stem: p for p in Path(str(importlib.resources.files("jsplat.configs"))).glob("*.toml")}
    if given not in known:
        wanted = f"a TOML file, or a name that comes along: {', '.join(sorted(known))}"
        raise InputError(f"--config {given}", wanted=wanted, got="neither")
    return known[given]


def readers(setting: str) -> list[str]:
    """Names of the commands that read a setting, or something of a stage."""
    commands = ((name, getattr(command.callback, "reads", ())) for name, command in main.commands.items())
    return sorted(name for name, reads in commands if _holds(reads, setting) or _holds([setting], *reads))


def _holds(names: Iterable[str], *settings: str) -> bool:
    return any(f"{setting}.".startswith(f"{name}.") for name in names for setting in settings)


def _check_read(overrides: Sequence[str], reads: Sequence[str]) -> None:
    """InputError for a setting that would change nothing."""
    from jsplat.config import named

    own = click.get_current_context().info_name
    for name in named(overrides):
        if not _holds(reads, name):
            others = (f"{other} with other options" if other == own else other for other in readers(name))
            wanted = f"a setting that {own} reads ({', '.join(reads)})"
            raise InputError(f"--set {name}", wanted=wanted, got=f"one that is read by {', '.join(others)}")


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
        left_out = function(*args, **options)
        if left_out:
            names = sorted(left_out)[:SHOWN]
            click.echo(f"left out: {len(left_out)} ({', '.join(names)}{', ...' * (len(left_out) > SHOWN)})", err=True)
            for name in names:  # said before only by the command that found it out
                click.echo(f"  {name}: {left_out[name]}", err=True)
        if len(left_out) > allowed:
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


SECTIONS = {  # of `jsplat --help`: each command once, those that are used first in front
    "Run": ("demo", "run", "status", "settings", "parse", "fit", "label", "render"),
    "Look and correct": ("edit", "view", "turntable", "study", "study-results"),
    "Exchange": ("export-masks", "import-masks", "export-splats"),
    "Parser": ("predict", "evaluate", "train-parser", "convert", "export"),
    "Make data": ("import", "heads", "check-sides"),
}


class _Group(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])

    def invoke(self, ctx: click.Context):
        """Bad input ends in one line, not in a traceback; a stop on request in a line and a status of its own."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that the console has not ends no work of hours
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise _one_line(error) from error
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # a reader that went away is click's to end
                raise
            what = str(error.filename or "the system")
            raise _one_line(InputError(what, wanted="files that can be read and written", got=error)) from error
        except MemoryError as error:
            raise _one_line(_out_of_memory(error)) from error
        except (RuntimeError, AssertionError) as error:
            from jsplat.runtime.programs import missing_platform

            if "RESOURCE_EXHAUSTED" in str(error):  # XLA's word, which has no type of its own
                raise _one_line(_out_of_memory(error)) from error
            if (named := missing_platform()) is None:
                raise
            wanted = "a platform that is here, or nothing for the best one"
            hint = "`JAX_PLATFORMS=cpu` always works; for NVIDIA's GPUs install `jsplat[cuda13]` or `jsplat[cuda12]`"
            raise _one_line(InputError("JAX_PLATFORMS", wanted=wanted, got=named, hint=hint)) from error
        except Stopped as stopped:
            click.echo(f"{stopped}; the same command goes on from there", err=True)
            ctx.exit(128 + signal.SIGTERM)


def _one_line(error: InputError) -> click.ClickException:
    return click.ClickException(" ".join(str(error).splitlines()))


def _out_of_memory(error: BaseException) -> InputError:
    hint = (
        "take smaller pictures (`--set size=PIXELS`), or fit fewer people at once (`--set fit.identities_per_device=1`)"
    )
    return InputError("memory", wanted="enough for this work", got=str(error)[:200] or "too little", hint=hint)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="jsplat")
@click.option("-q", "--quiet", is_flag=True, help="No progress: only results, warnings and errors.")
def main(quiet: bool) -> None:
    """Label refinement for head images by Gaussian splatting, in JAX.

    \b
    The whole loop on procedural heads:   jsplat demo out/demo
    The same on your captures:            jsplat train-parser FRONTAL out/teacher
                                          jsplat run out/run --captures DIR --parser out/teacher
    """
    from jsplat.runtime.progress import set_quiet

    set_quiet(quiet)
