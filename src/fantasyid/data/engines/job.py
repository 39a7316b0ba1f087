"""Work that is cut into units, each a pure function of its number."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import cv2
import torch

from fantasyid.core.errors import FantasyIDError


class WorkerError(FantasyIDError):
    """A process that worked on a unit ended without finishing it."""


class Job(Protocol):
    """What is done with units; it is sent to other processes, so it holds plain values only."""

    def open(self) -> Callable[[int], None]:
        """Load what the work needs, once in each process.

        Returns:
            A function that does a unit and leaves its result in files, all of them or none.
        """
        ...


class Engine(Protocol):
    """Runs a job."""

    def run(self, job: Job, units: Sequence[int], done: Callable[[int], None]) -> None:
        """Do all units, in any order.

        Args:
            job: What to do.
            units: Numbers of those that are not done yet.
            done: Is called with how many are done, each time it grows.

        Raises:
            FantasyIDError: What a unit raised first, or a process ended.
        """
        ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that results do not depend on the machine, and processes don't wait for each other."""
    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(opencv_threads)
