"""`fantasyid doctor`: what is installed, what can be used, what is missing and how to get it."""

from typing import Annotated

import typer

from fantasyid.cli.diagnosis import report


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell what is installed, which backends and weights are usable, what is missing and how to get it.

    The first line says whether this machine can run the built-in model (mini), the released checkpoint (full size) and
    training. Exits with 0 if `fantasyid generate` works with the built-in model, else with 2.
    """
    raise typer.Exit(report(as_json))
