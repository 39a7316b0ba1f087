"""Stopping a run between two steps, when the system that started it asks."""

import signal
from threading import current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While it is entered, SIGTERM and SIGUSR1 are noted instead of ending the program.

    Attributes:
        asked: Whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if current_thread() is main_thread():  # Python gives signals to no other
            for name in ("SIGTERM", "SIGUSR1"):
                if (number := getattr(signal, name, None)) is not None:  # Windows has no SIGUSR1
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
