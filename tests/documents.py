"""The blocks of code in the documentation, and the commands in them."""

import argparse
import ast
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
LANGUAGES = ("bash", "python", "yaml", "json", "")
"""What a block may be; one without a language is a drawing or what a program prints."""


@dataclass(frozen=True)
class Block:
    """A block of code, and where it stands."""

    page: Path
    line: int
    """Of its first line, from 1."""
    language: str
    code: str

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command in a block, and where it stands."""

    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        """Where it stands, and what it is."""
        return f"{self.page.relative_to(ROOT)}:{self.line}: {shlex.join(self.words)}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, from top to bottom."""
    start, language, lines = 0, "", list[str]()
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif not start:
            start, language, lines = number + 1, line.removeprefix("```").strip(), []
        else:
            yield Block(page, start, language, "\n".join(lines) + "\n")
            start = 0
    assert not start, f"{page}:{start}: the block is not closed"


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block for the shell; a backslash or an open quote joins lines."""
    text, start = "", 0
    for number, line in enumerate(block.code.splitlines()):
        start = start if text else number
        text += line + "\n"
        if text.endswith("\\\n"):
            text = text.removesuffix("\\\n")
            continue
        try:
            words = shlex.split(text, comments=True)
        except ValueError:
            continue
        if words:
            yield Command(block.page, block.line + start, tuple(words))
        text = ""
    assert not text, f"{block}: a quote or a backslash joins nothing"


def examples_of(command: Any) -> Iterator[tuple[str, ...]]:
    """The commands in the help of a command and of all below it; each is a paragraph."""
    for paragraph in re.split(r"\n\s*\n", command.help or ""):
        if paragraph.strip().startswith("fantasyid "):
            yield tuple(shlex.split(paragraph))
    for child in getattr(command, "commands", {}).values():
        yield from examples_of(child)


def parse(words: tuple[str, ...]) -> None:
    """Read the words of a command as the program does that gets them; fails for words that it does not know."""
    program = "python" if re.fullmatch(r"(\S*/)?python[0-9.]*", words[0]) else words[0]
    assert program in PROGRAMS, f"{words[0]} is no program that tests/documents.py knows"
    PROGRAMS[program](words[1:])


class _Parsed(BaseException):
    """Stops a program where it has read its words."""


def _fantasyid(words: tuple[str, ...]) -> None:
    from fantasyid.cli.main import app

    _typer(get_command(app), words)


def _typer(command: Any, words: tuple[str, ...]) -> None:
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    assert not getattr(command, "hidden", False), "it answers an old name"
    command.make_context("command", rest).close()


def _python(words: tuple[str, ...]) -> None:
    option, *rest = words
    if option == "-c":
        check_python(rest[0])
    elif option == "-m" and rest[0] == "pip":
        _pip(tuple(rest[1:]))
    elif option == "-m" and rest[0] == "venv":
        assert rest[1:] == [".venv"]
    else:
        is_module = option == "-m"
        name = rest[0] if is_module else option
        assert re.match(r"(benchmarks|fantasyid|tests)\." if is_module else "examples/", name), f"{name} is not of ours"
        with pytest.MonkeyPatch.context() as patch:
            _stop_after_parsing(patch)
            patch.syspath_prepend(str(ROOT))
            patch.setattr(sys, "argv", list(rest if is_module else words))
            start = runpy.run_module if is_module else runpy.run_path
            with pytest.raises(_Parsed):
                start(name if is_module else str(ROOT / name), run_name="__main__")


def _stop_after_parsing(patch: pytest.MonkeyPatch) -> None:
    """Let argparse and typer end a program once its words are read."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        parse_args(self, args, namespace)
        raise _Parsed

    def stop(*_: Any) -> None:
        raise _Parsed

    patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    patch.setattr("typer.core.TyperCommand.invoke", stop)


def _torchrun(words: tuple[str, ...]) -> None:
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(list(words))
    assert options.module, "give the program as -m MODULE"
    program = options.training_script
    parse((*(() if program in PROGRAMS else ("python", "-m")), program, *options.training_script_args))


def _pip(words: tuple[str, ...]) -> None:
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[1:]:
        if match := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(match[1].split(",")) <= set(extras), f"no such extra: {word}"


def _make(words: tuple[str, ...]) -> None:
    (target,) = words
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"


def _hf(words: tuple[str, ...]) -> None:
    """The Hub's own program; its options are its own affair."""
    assert entry_points(group="console_scripts", name="hf")
    assert words[0] == "download"


def _checks(words: tuple[str, ...]) -> None:
    assert not words
    assert (ROOT / ".ci" / "run").is_file()


def _source(words: tuple[str, ...]) -> None:
    assert words == (".venv/bin/activate",)


def _cp(words: tuple[str, ...]) -> None:
    """Something of a checkout named FantasyID is copied."""
    *_, source, _ = words
    assert (ROOT / Path(source).relative_to("FantasyID")).exists(), f"there is no {source}"


PROGRAMS: Mapping[str, Callable[[tuple[str, ...]], None]] = {
    ".ci/run": _checks,
    "cp": _cp,
    "fantasyid": _fantasyid,
    "hf": _hf,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "source": _source,
    "torchrun": _torchrun,
}
"""How the words of each program are checked."""


def check_python(code: str) -> None:
    """Compile code and find the names that it imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                found = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert found, ast.unparse(node)
