"""One way to break the package, and trying it: a copy is broken, and the test that guards it is run on the copy."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "fantasyid"


@dataclass(frozen=True)
class Mutation:
    """A change of one place in the package that a test must see.

    Attributes:
        breaks: What is true no longer, in a few words; no two mutations say the same.
        file: Below `src/fantasyid`.
        find: Text that is there exactly once.
        replacement: What stands there instead; still Python.
        test: The test that must fail, as pytest names it from the root of the repository.
    """

    breaks: str
    file: str
    find: str
    replacement: str
    test: str


@dataclass(frozen=True)
class Trial:
    """What became of a mutation.

    Attributes:
        killed: Whether the test failed, as it must.
        report: What is wrong otherwise.
    """

    killed: bool
    report: str = ""


def mutated(mutation: Mutation) -> str:
    """The text of the mutation's file with the change.

    Raises:
        ValueError: The text to find is not there exactly once, or what comes out is not Python.
    """
    text = (PACKAGE / mutation.file).read_text(encoding="utf-8")
    found = text.count(mutation.find)
    if found != 1 or mutation.find == mutation.replacement:
        raise ValueError(f"its text is {found} times in {mutation.file}, and must be there once and be changed")
    changed = text.replace(mutation.find, mutation.replacement)
    try:
        compile(changed, mutation.file, "exec")
    except SyntaxError as error:
        raise ValueError(f"{mutation.file} is no longer Python: {error}") from error
    return changed


def attempt(mutation: Mutation) -> Trial:
    """Break a copy of the package and run the test on it, in this process; nothing of the package may be loaded yet."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            changed = mutated(mutation)
        except ValueError as error:
            return Trial(False, f"does not apply: {error}")
        _copy_package(Path(folder))
        (Path(folder) / "fantasyid" / mutation.file).write_text(changed, encoding="utf-8")
        code, output = _run(Path(folder), [mutation.test])
    if code == 0:
        return Trial(False, f"survived: {mutation.test} passes")
    return Trial(code == 1, f"{mutation.test} could not be run:\n{output}" if code != 1 else "")


def attempt_unbroken(tests: Sequence[str]) -> Trial:
    """Run tests on an unbroken copy, where they must pass; otherwise as `attempt`."""
    with tempfile.TemporaryDirectory() as folder:
        _copy_package(Path(folder))
        code, output = _run(Path(folder), tests)
    return Trial(code == 0, f"tests fail without a mutation:\n{output}" if code else "")


def _copy_package(folder: Path) -> None:
    copy = folder / "fantasyid"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    (copy / "weights").symlink_to(PACKAGE / "weights")


def _run(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's exit code (0: all passed, 1: some failed) and output."""
    assert "fantasyid" not in sys.modules, "the package was loaded before its copy could be"
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)  # of processes that tests start
    os.chdir(ROOT)
    import pytest

    import fantasyid

    assert Path(fantasyid.__file__).is_relative_to(folder), fantasyid.__file__
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
        code = pytest.main([*options, *tests])
    return int(code), output.getvalue()
