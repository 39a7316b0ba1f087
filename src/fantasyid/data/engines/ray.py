"""Ray's actors, on one machine or many that share the folders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fantasyid.core.errors import FantasyIDError
from fantasyid.core.optional import require
from fantasyid.data.engines.job import Job, WorkerError, one_thread


class _Worker:
    """Does units, in a process of Ray's."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._work: Callable[[int], None] | None = None

    def run(self, unit: int) -> FantasyIDError | None:
        """One unit; what a user can meet is given back, because Ray would wrap it."""
        with one_thread():
            try:
                if self._work is None:
                    self._work = self._job.open()
                self._work(unit)
            except FantasyIDError as error:
                return error
        return None


@dataclass(frozen=True)
class RayEngine:
    """Runs units in actors of the cluster that `ray.init()` finds, or of one on this machine.

    Attributes:
        workers: How many actors.
        gpus: Of a GPU for each actor, such as 0.5.
    """

    workers: int
    gpus: float = 0.0

    def run(self, job: Job, units: Sequence[int], done: Callable[[int], None]) -> None:
        """See `Engine.run`."""
        ray = require("ray", "ray", "run on Ray")
        pools = require("ray.util", "ray", "run on Ray")
        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        actor: Any = ray.remote(num_cpus=1, num_gpus=self.gpus)(_Worker)
        pool = pools.ActorPool([actor.remote(job) for _ in range(min(self.workers, max(1, len(units))))])
        try:
            answers = pool.map_unordered(lambda worker, unit: worker.run.remote(unit), list(units))
            for count, error in enumerate(answers, 1):
                if error is not None:
                    raise error
                done(count)
        except ray.exceptions.RayError as error:
            raise WorkerError(f"Ray could not finish a unit ({str(error).splitlines()[0]}); run it again.") from error
        finally:
            ray.shutdown()
