"""Running the command line in this process."""

import runpy
import sys
import warnings

import pytest
from typer.testing import CliRunner, Result

from fantasyid.cli.main import app


def run(*arguments: object) -> Result:
    """Run `fantasyid` with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    """Run `fantasyid`, which must refuse with exit code 2 and one line; gives that line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: "), result.output
    assert "Traceback" not in result.output
    return lines[-1]


def run_module(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run `python -m name`; gives what it exits with."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already
        with pytest.raises(SystemExit) as end:
            runpy.run_module(name, run_name="__main__")
    return end.value.code
