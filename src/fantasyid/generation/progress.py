"""How whoever asked for a video learns what is going on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

# numpy is for the types alone: commands import this before they need it.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fantasyid.face.types import FaceReading


class Progress:
    """Says nothing; a command line, a page or a server say what they are told in their own way.

    A function that raises ends the generation: the way to cancel one.
    """

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Work without steps, as long as it lasts.

        Args:
            what: Such as "Loading the model".
        """
        yield

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Work that consists of steps.

        Args:
            what: Such as "Generating".
            total: How many there are.

        Yields:
            A function that is called with the number of steps done, each time it grows.
        """
        yield lambda done: None

    def preview(self, draw: "Callable[[], NDArray[np.uint8]]") -> None:
        """How a video looks so far, after each step; not told where the model's memory is short.

        Args:
            draw: Gives up to four of its frames, RGB uint8 (K,H,W,3); to be called, if at all, before this returns.
                That takes as long as decoding them, and the video comes out the same.
        """

    def note(self, text: str) -> None:
        """A sentence the user should read.

        Args:
            text: Such as a warning.
        """

    def several_faces(self, reading: "FaceReading") -> None:
        """A photo holds more than one face; a door says how another is chosen.

        Args:
            reading: Of the face that is used.
        """
        self.note(reading.choice_note)


SILENT = Progress()
