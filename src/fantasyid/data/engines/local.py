"""Processes of this machine."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from signal import SIGTERM, raise_signal
from threading import Thread
from typing import Any

from fantasyid.data.engines.job import Job, WorkerError, one_thread


@dataclass(frozen=True)
class LocalEngine:
    """Runs units in this process, or in several others.

    Attributes:
        workers: How many processes; 1 is this one.
    """

    workers: int = 1

    def run(self, job: Job, units: Sequence[int], done: Callable[[int], None]) -> None:
        """See `Engine.run`."""
        if self.workers == 1 or len(units) <= 1:
            if units:
                with one_thread():
                    work = job.open()
                    for count, unit in enumerate(units, 1):
                        work(unit)
                        done(count)
            return
        context = get_context("spawn")
        with ExitStack() as stack:
            ends = []
            for _ in range(min(self.workers, len(units))):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(job, there), daemon=True)
                process.start()
                there.close()
                stack.callback(process.join)
                stack.callback(process.terminate)
                stack.callback(here.close)
                ends.append(here)
            _hand_out(ends, units, done)


def _hand_out(ends: Sequence[Any], units: Sequence[int], done: Callable[[int], None]) -> None:
    """Give each process its next unit when it has done one."""
    waiting, count = list(reversed(units)), 0
    busy: dict[Any, int] = {}
    for end in ends:
        busy[end] = waiting.pop()
        end.send(busy[end])
    while busy:
        ready: list[Any] = connection.wait(list(busy))
        for end in ready:
            try:
                error = end.recv()
            except EOFError as ended:
                raise WorkerError(
                    f"A process ended while it worked on unit {busy[end]}, as when memory runs out; run the command "
                    "again with fewer workers, and it goes on."
                ) from ended
            if error is not None:
                raise error
            count += 1
            done(count)
            del busy[end]
            if waiting:
                busy[end] = waiting.pop()
                end.send(busy[end])


def _work(job: Job, end: Any) -> None:
    """Do units as they come, until nobody asks any more."""
    Thread(target=_end_with_parent, daemon=True).start()
    with one_thread():
        try:
            work = job.open()
            while True:
                work(end.recv())
                end.send(None)
        except EOFError:
            return
        except Exception as error:
            end.send(error)


def _end_with_parent() -> None:
    """A killed parent can tell nobody."""
    parent = parent_process()
    assert parent is not None, "started by run"
    parent.join()
    raise_signal(SIGTERM)
