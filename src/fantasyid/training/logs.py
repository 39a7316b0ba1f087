"""What a run tells of its steps: lines of JSON, and TensorBoard's files for who wants them."""

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fantasyid.core.optional import require


def as_json(number: float) -> float | str:
    """A number as JSON can hold it, which has no word for infinity and what is no number."""
    return number if math.isfinite(number) else str(number)


class Log:
    """Writes a run's numbers; in one process of several.

    Args:
        folder: The run's; `log.jsonl` and `tensorboard` are put there.
        tensorboard: Whether TensorBoard's files are written too.

    Raises:
        MissingBackendError: They are, and TensorBoard is not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self._file = folder / "log.jsonl"
        self._board: Any = None
        if tensorboard:
            require("tensorboard", "tensorboard", "write its files")
            self._board = import_module("torch.utils.tensorboard").SummaryWriter(folder / "tensorboard")

    def write(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Tell of a step.

        Args:
            step: Steps taken.
            seconds: Spent on all of them.
            numbers: By name.
        """
        with self._file.open("a") as log:
            log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **numbers}) + "\n")
        if self._board is not None:
            for name, number in numbers.items():
                self._board.add_scalar(name, number, step)
            self._board.flush()
