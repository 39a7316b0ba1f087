"""Killing real code at every step that a file system sees.

A step is a call of one of `os`'s functions that change a disk, or an opening for writing. The code runs in a forked
process, which is killed before the step; the code itself is not changed. A disk can be full, too.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fantasyid.cli.main import end_on_signals

_STEPS = ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink", "link", "close")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder by its path, hidden ones too; an empty folder counts as a file."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }
    return dict(sorted(found.items()))


def count_steps(run: Callable[[], Any], until: str | None = None, nth: int = 1) -> int:
    """How many steps a run has, or how many come before the nth call of one of `os`'s functions."""
    reader, writer = os.pipe()
    child = _fork()
    if child == 0:
        names: list[str] = []
        _watch(names.append)
        run()
        os.write(writer, ",".join(names).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read().split(",")
    os.waitpid(child, 0)
    if until is None:
        return len(names)
    return [index for index, name in enumerate(names) if name == until][nth - 1]


def kill_at(step: int, number: int, run: Callable[[], Any]) -> None:
    """Run in another process that gets a signal before a step, with the command's own handling of signals."""
    child = _fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        left = step

        def maybe(_: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                os.kill(os.getpid(), number)

        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with end_on_signals():
                _watch(maybe)
                run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 1)


def _fork() -> int:
    """As `os.fork`; the child computes on one thread, since it has none of its parent's to wait for."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
    return child


def _watch(tell: Callable[[str], Any]) -> None:
    """Tell of each step before it is made."""

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            tell(name)
            return function(*arguments, **named)

        return call

    for name in _STEPS:
        setattr(os, name, watched(name, getattr(os, name)))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            tell("open")

    sys.addaudithook(audit)


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond it: like a disk that is full, also for libraries in C."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
