"""Saying on stderr what is going on: moving on a terminal, in lines elsewhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from fantasyid.core.errors import FantasyIDWarning
from fantasyid.generation.progress import Progress

if TYPE_CHECKING:
    from fantasyid.face.types import FaceReading

_MOST_LINES = 10


class ConsoleProgress(Progress):
    """Tells on stderr, or on another console.

    Args:
        console: Where; a copy in another process takes its stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def __reduce__(self) -> tuple[type["ConsoleProgress"], tuple[()]]:
        return ConsoleProgress, ()

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """See `Progress.stage`."""
        with self._told_warnings():
            if self.console.is_terminal:
                with self.console.status(what):
                    yield
            else:
                self._line(what)
                yield

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `Progress.steps`."""
        with self._told_warnings():
            if self.console.is_terminal:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                with ProgressBar(*columns, console=self.console, transient=True) as bar:
                    task = bar.add_task(what, total=total)
                    yield lambda done: bar.update(task, completed=done)
                return

            def tell(done: int) -> None:
                if done * _MOST_LINES // total > (done - 1) * _MOST_LINES // total:
                    self._line(f"{what}: {done} of {total}")

            self._line(f"{what}: {total} steps")
            yield tell

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self.console.print(text, markup=False)

    def several_faces(self, reading: "FaceReading") -> None:
        """See `Progress.several_faces`."""
        self.note(f"{reading.choice_note} Choose with --face.")

    @contextmanager
    def _told_warnings(self) -> Iterator[None]:
        """Print our own warnings as one line each; others show as they always do."""
        with warnings.catch_warnings():
            show = warnings.showwarning
            warnings.simplefilter("always", FantasyIDWarning)

            def tell(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
                if issubclass(category, FantasyIDWarning):
                    self.note(f"Warning: {message}")
                else:
                    show(message, category, *rest, **more)

            warnings.showwarning = tell
            yield

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def quieten_libraries() -> None:
    """Keep the libraries' own progress bars and hints out of ours; errors still show."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
