"""A job whose units write their numbers, and three that go wrong in one of them."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fantasyid.core.errors import InvalidRequestError

BAD_UNIT = 2


@dataclass(frozen=True)
class Numbers:
    """Writes `UNIT.txt`: which process it was, and on how many threads it computed."""

    folder: Path
    fault: Literal["none", "error", "death", "sleep"] = "none"

    def open(self) -> Callable[[int], None]:
        (self.folder / f"opened-{os.getpid()}").touch()

        def work(unit: int) -> None:
            if unit == BAD_UNIT and self.fault == "error":
                raise InvalidRequestError("Unit 2 is not allowed; leave it out.")
            if unit == BAD_UNIT and self.fault == "death":
                os._exit(9)
            if self.fault == "sleep":
                time.sleep(60)
            (self.folder / f"{unit}.txt").write_text(f"{os.getpid()} {torch.get_num_threads()}")

        return work
