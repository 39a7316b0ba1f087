"""Saying on stderr what is going on: moving on a terminal, in lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_MOST_LINES = 10


@contextmanager
def stage(console: Console, what: str) -> Iterator[None]:
    """Say what is being done as long as it lasts.

    Args:
        console: Where to say it.
        what: Such as `"Loading the model"`.
    """
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        _line(console, what)
        yield


@contextmanager
def told_steps(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Say how many of several steps are done.

    Args:
        console: Where to say it.
        what: What consists of them.
        total: How many there are.

    Yields:
        A function to call with the number of steps done, each time it grows.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)
        return

    def tell(done: int) -> None:
        if done * _MOST_LINES // total > (done - 1) * _MOST_LINES // total:
            _line(console, f"{what}: {done} of {total}")

    _line(console, f"{what}: {total} steps")
    yield tell


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
