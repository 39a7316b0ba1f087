"""Work that takes long, told as it goes on, and stopped when its visitor wants that or leaves."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fantasyid import __version__
from fantasyid.core.errors import FantasyIDError
from fantasyid.face.types import FaceReading
from fantasyid.generation.progress import Progress
from fantasyid.ui.notices import Notices

logger = logging.getLogger(__name__)

_PREVIEWS = 5


@dataclass(frozen=True)
class Stage:
    """Work of a kind has begun; `total` is 0 where it has no steps."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, eq=False)
class Preview:
    """Frames as they look so far, RGB uint8 (K,H,W,3)."""

    frames: NDArray[np.uint8]


@dataclass(frozen=True)
class Note:
    """A sentence the visitor should read."""

    text: str


@dataclass(frozen=True)
class End:
    """The work is over: done, or failed with a sentence, or cancelled."""

    error: str | None = None
    cancelled: bool = False


Event: TypeAlias = Stage | Preview | Note | End


class CancelledError(Exception):
    """The visitor wants no more of it."""


class JobProgress(Progress):
    """Puts what it is told into a queue, and ends the work once it is cancelled.

    Args:
        put: Takes the events.
        cancel: Set when the work should end.
    """

    def __init__(self, put: Callable[[Event], None], cancel: threading.Event) -> None:
        self._put, self._cancel = put, cancel
        self._done = self._total = 0

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """See `Progress.stage`."""
        self._check()
        self._put(Stage(what))
        yield
        self._check()

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `Progress.steps`."""
        self._done, self._total = 0, total

        def tell(done: int) -> None:
            self._check()
            self._done = done
            self._put(Stage("Decoding the frames") if done == total else Stage(what, done, total))

        self._check()
        self._put(Stage(what, 0, total))
        yield tell
        self._check()

    def preview(self, draw: Callable[[], NDArray[np.uint8]]) -> None:
        """See `Progress.preview`: five looks, evenly spaced, and none after the last step."""
        shares = [done * (_PREVIEWS + 1) // self._total for done in (self._done - 1, self._done)]
        if self._done < self._total and shares[0] < shares[1]:
            self._put(Preview(draw()))

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        said = text.removeprefix("Warning: ")
        self._put(Note(said[:1].upper() + said[1:]))

    def several_faces(self, reading: FaceReading) -> None:
        """See `Progress.several_faces`; the faces bear their numbers beside the photo, and are chosen there."""
        used = f"face {reading.face_index + 1}"
        self.note(f"{reading.num_faces} faces found; using {used}. Choose another one under the photo.")

    def _check(self) -> None:
        if self._cancel.is_set():
            raise CancelledError


def explain(error: Exception) -> str:
    """The sentence for an error: its own, or for a fault of ours one that says so; that is logged with its traceback.

    Args:
        error: Whatever was raised.
    """
    if isinstance(error, FantasyIDError):
        return str(error)
    logger.error("a fault of ours, shown on the page as one sentence", exc_info=error)
    return (
        f"Something went wrong inside fantasyid {__version__} ({type(error).__name__}); the terminal that the page was "
        "started from shows more, please report it with that."
    )


def follow(work: Callable[[Progress], None], notices: Notices, cancel: threading.Event) -> Iterator[Event]:
    """Do work in a thread of its own.

    Args:
        work: Is given where to tell what it does.
        notices: Hears its warnings.
        cancel: Ends it when set; set also when nobody reads the events any more.

    Yields:
        What happens, `End` last.
    """
    events: SimpleQueue[Event] = SimpleQueue()

    def run() -> None:
        progress = JobProgress(events.put, cancel)
        try:
            with notices.told(progress.note):
                work(progress)
        except CancelledError:
            events.put(End(cancelled=True))
        except Exception as error:  # the visitor must learn of any
            events.put(End(explain(error)))
        else:
            events.put(End())

    threading.Thread(target=run, name="fantasyid-job", daemon=True).start()
    try:
        while True:
            event = events.get()
            yield event
            if isinstance(event, End):
                return
    finally:
        cancel.set()
