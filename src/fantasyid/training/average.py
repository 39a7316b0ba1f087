"""A running average of the weights that are trained, in float32: the result of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fantasyid.core.upstream import copy_all, move_all_towards
from fantasyid.training.parallel import own_part


class WeightAverage:
    """An exponential moving average, which follows fast at first.

    Args:
        weights: The trained weights by name.
        decay: At most this much of the average stays in a step.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.tensors = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after a step, counted from 0; the first takes them over."""
        average, current = self._parts(self.tensors), self._parts(self.weights)
        if step == 0:
            copy_all(average, current)
        else:
            move_all_towards(average, current, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average as its weights for a while."""
        kept = [part.clone() for part in self._parts(self.weights)]
        with torch.no_grad():
            copy_all(self._parts(self.weights), self._parts(self.tensors))
        try:
            yield
        finally:
            with torch.no_grad():
                copy_all(self._parts(self.weights), kept)

    def _parts(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        return [own_part(tensor.detach()) for tensor in tensors.values()]
