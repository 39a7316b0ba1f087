"""The `fantasyid` command."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fantasyid import __version__
from fantasyid.cli.convert import convert
from fantasyid.cli.data import data_app
from fantasyid.cli.doctor import doctor
from fantasyid.cli.edit import edit
from fantasyid.cli.evaluate import evaluate_app
from fantasyid.cli.evaluate_run import report, run, table
from fantasyid.cli.evaluate_sets import SET_COMMANDS
from fantasyid.cli.face import face_app
from fantasyid.cli.generate import generate
from fantasyid.cli.serve import serve, work
from fantasyid.cli.signals import handled
from fantasyid.cli.study import study_app
from fantasyid.cli.train import train_app
from fantasyid.cli.ui import ui
from fantasyid.core.errors import FantasyIDError

_BROKEN_PIPE = 128 + 13
"""What shells report of programs that SIGPIPE ended."""


class CommandGroup(TyperGroup):
    """Turns errors into exit codes: 2 with one sentence for bad input, 1 for our own faults."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program; a reader of its output that leaves (`| head`) ends it as it ends others, without a word."""
        try:
            return super().main(*arguments, **options)
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                raise SystemExit(_BROKEN_PIPE) from end.__context__
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a command in its click context."""
        try:
            return super().invoke(ctx)
        except FantasyIDError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error
        except Exception as error:
            if isinstance(error, typer.Abort | BrokenPipeError) or hasattr(error, "exit_code"):
                raise  # typer's own ways out: --help, wrong usage, Exit
            if ctx.params["debug"]:
                traceback.print_exc(file=sys.stderr)
            typer.echo(
                f"Error: something went wrong inside fantasyid {__version__} ({type(error).__name__}: {error}). "
                "Please report it with what `fantasyid --debug ...` and `fantasyid doctor` print.",
                err=True,
            )
            raise typer.Exit(1) from error


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as an error does, so that what it was writing is cleaned up."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    there = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    ours = [number for number in there if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    with handled(ours, end):
        yield


app = typer.Typer(
    cls=CommandGroup,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fantasyid {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an internal error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One face photo and one prompt become a video of that person.

    [bold]Start here[/bold]

      fantasyid generate photo.jpg --prompt "a person smiles" --out smile.mp4

    Exit codes: 0 done, 2 bad input or set-up, 1 our fault; above 128 a signal ended it.
    """
    ctx.with_resource(end_on_signals())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold any bytes
    # Before torch is imported: OpenMP threads that spin while they wait make a shared CPU several times as slow.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


app.command()(generate)
app.command()(ui)
app.command()(edit)
app.command()(convert)
app.command()(doctor)
app.command()(serve)
app.command("worker")(work)
evaluate_app.command(rich_help_panel="Several systems")(run)
evaluate_app.command(rich_help_panel="Several systems")(table)
evaluate_app.command(rich_help_panel="Several systems")(report)
for command in SET_COMMANDS:
    evaluate_app.command(rich_help_panel="Many people, in this order")(command)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(face_app, name="face")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(study_app, name="study")
