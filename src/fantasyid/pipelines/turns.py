"""Calls of one pipeline from several threads: side by side where nothing is shared, else one after the other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import wraps
from typing import Any

from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.upstream import has_hooks


class Turns:
    """Lets one call run at a time; the others wait.

    Copies and pickles of it are new ones, so that a pipeline stays copyable.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self.timestep: Tensor | None = None
        """Of the step that is computed now."""

    def __reduce__(self) -> tuple[type["Turns"], tuple[()]]:
        return Turns, ()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            InvalidRequestError: This thread holds it already, in a callback of the running call.
        """
        if self._owner == threading.get_ident():
            raise InvalidRequestError(
                "This pipeline was called by a callback of its own call, and its step cache, memory plan or devices "
                "serve one call at a time; use a second pipeline in the callback."
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None


class RunningCall:
    """What a pipeline keeps of a call while it runs, in diffusers' names: on a copy of the pipeline, not on itself."""

    _guidance_scale = 1.0
    _num_timesteps = 0
    _interrupt = False
    _turns: Turns

    def _for_one_call(self, scheduler: Any, guidance_scale: float) -> Any:
        """The same networks with a scheduler, guidance and interrupt of their own, so that calls don't meet."""
        running: Any = copy(self)
        running.scheduler, running._num_timesteps = scheduler, len(scheduler.timesteps)
        running._guidance_scale, running._interrupt = guidance_scale, False
        return running

    def enter_step(self, timestep: Tensor | None) -> None:
        """Note the time of the step that begins, for this pipeline and its copies; None is after the last."""
        self._turns.timestep = timestep

    @property
    def guidance_scale(self) -> float:
        """Guidance of the running call, in a callback, which may change it between steps."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the running call, in a callback."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Time of the step that is computed now; for step caches that ask the pipeline, whose calls take turns."""
        timestep: Tensor | None = self._turns.timestep
        return timestep

    @property
    def interrupt(self) -> bool:
        """Whether a callback stopped its call after the current step, by setting `_interrupt`."""
        return self._interrupt


def keeps_state(networks: list[nn.Module]) -> bool:
    """Whether networks carry hooks, which remember something between two calls of a network.

    Step caches keep what earlier steps gave, memory plans and context parallelism move or split what passes through.

    Args:
        networks: Of a pipeline.
    """
    return any(has_hooks(module) for network in networks for module in network.modules())


def take_turns(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a pipeline's calls wait for each other where its networks or devices serve one at a time.

    Step caches, memory plans and several devices do. Otherwise calls run side by side: each has its own scheduler,
    guidance and interrupt, and the networks are only read.
    """

    @wraps(call)
    def in_turn(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
        if pipeline._devices is None and not keeps_state(networks):
            return call(pipeline, *args, **kwargs)
        with pipeline._turns.take():
            return call(pipeline, *args, **kwargs)

    return in_turn
