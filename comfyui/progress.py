"""How ComfyUI learns what is going on: by its progress bar, with looks at the frames so far; Cancel ends the work."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from fantasyid.generation.progress import Progress

logger = logging.getLogger(__name__)

_LOOKS = 5


class NodeProgress(Progress):
    """Progress of the node that is being executed.

    Args:
        shows_frames: Whether the node shows the frames so far, five times a video.
    """

    def __init__(self, *, shows_frames: bool = False) -> None:
        self.notes: list[str] = []
        """What the user should read, in order and each once."""
        self._shows_frames = shows_frames
        self._bar = ProgressBar(1)
        self._done = self._total = 0

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """See `Progress.stage`."""
        throw_exception_if_processing_interrupted()
        logger.info("%s", what)
        yield
        throw_exception_if_processing_interrupted()

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `Progress.steps`."""
        self._bar, self._done, self._total = ProgressBar(total), 0, total

        def tell(done: int) -> None:
            throw_exception_if_processing_interrupted()
            self._done = done
            self._bar.update_absolute(done)

        yield tell
        throw_exception_if_processing_interrupted()

    def preview(self, draw: Callable[[], NDArray[np.uint8]]) -> None:
        """See `Progress.preview`: evenly spaced looks, and none after the last step."""
        before, now = ((_LOOKS + 1) * done // self._total for done in (self._done - 1, self._done))
        if self._shows_frames and before < now and self._done < self._total:
            strip = Image.fromarray(rearrange(draw(), "k h w c -> h (k w) c"))
            self._bar.update_absolute(self._done, preview=("JPEG", strip, None))

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        said = text.removeprefix("Warning: ")
        said = said[:1].upper() + said[1:]
        if said not in self.notes:
            self.notes.append(said)
            logger.warning("%s", said)
