"""The training loop of every stage: warm-up and cosine, clipped gradients, averaged weights, resuming."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import write_file
from fantasyid.core.seeds import seed_of
from fantasyid.training.average import WeightAverage
from fantasyid.training.chance import reseed
from fantasyid.training.checkpoint import Checkpoints, RunState, hash_of_frozen
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.groups import TrainedGroup, everything
from fantasyid.training.guard import Guard
from fantasyid.training.logs import Log, as_json
from fantasyid.training.optimisers import make_optimisers
from fantasyid.training.parallel import (
    any_says,
    average_gradients,
    clip_gradients,
    equalise,
    mean_over_processes,
    num_processes,
    rank,
    shared_out_like,
)
from fantasyid.training.stopping import StopSignals

Losses = dict[str, Tensor]
"""By name: () the mean over a batch's part, or (2,) the sum over those samples of it that count, and how many do."""
_LOG_EVERY = 50


@dataclass(frozen=True)
class BatchPart:
    """Which samples of which step are asked for.

    Attributes:
        step: The step, from 0.
        part: Which part of its batch, from 0.
        parts: How many parts it is shared out into.
    """

    step: int
    part: int = 0
    parts: int = 1

    def rows(self, batch_size: int) -> slice:
        """Where the part stands in a batch of all parts together."""
        count = batch_size // self.parts
        return slice(self.part * count, (self.part + 1) * count)


class Trainer:
    """Trains one module and keeps a running average of its weights, in one process or in several.

    All that a step draws is a function of the seed, the step and the process, and nothing of it is kept: a run that was
    stopped and resumed on a CPU ends with the weights of an unbroken one, bit for bit.

    Args:
        model: What is trained; its weights may be shared out, see `parallel.share_out`.
        config: How.
        folder: Where `checkpoints` and `log.jsonl` are written; the last checkpoint found there is continued.
        seed: Of what the losses draw from `random` and from PyTorch's default generators.
        random: What the losses draw from beside those, if anything.
        groups: What of the model is trained; by default all that requires gradients.
        frozen: Hash of the rest; by default it is computed.
        up_to: Go on from a checkpoint of at most so many steps; by default from the last.
        tensorboard: Whether TensorBoard's files are written beside the log.

    Raises:
        InvalidRequestError: The checkpoint is damaged, or of a run with other frozen weights.
        MissingBackendError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimiserConfig,
        folder: Path,
        seed: int,
        random: np.random.Generator | torch.Generator | None = None,
        groups: Sequence[TrainedGroup] | None = None,
        frozen: str | None = None,
        up_to: int | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.seed, self.random = seed, random
        equalise(model)
        groups = everything(model, config) if groups is None else groups
        self.weights = {name: weight for group in groups for name, weight in group.weights.items()}
        self.optimisers = make_optimisers(groups, config)
        self._states = {w: o.state for o in self.optimisers for group in o.param_groups for w in group["params"]}
        self.average = WeightAverage(self.weights, config.ema_decay)
        self.frozen = hash_of_frozen(model) if frozen is None else frozen
        self.guard = Guard(config.spike_factor)
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.log = Log(folder, tensorboard and rank() == 0)
        self.checkpoints = Checkpoints(folder)
        self._resume(up_to)

    @contextmanager
    def averaged(self) -> Iterator[Any]:
        """The result: the model, which has averaged weights for as long as it is looked at."""
        with self.average.in_place():
            yield self.model

    def fit(
        self, losses: Callable[[BatchPart], Losses], explain: Callable[[int], dict[str, Any]] | None = None
    ) -> bool:
        """Train until the steps are taken, or until SIGTERM or SIGUSR1 asks to stop; then save.

        Args:
            losses: Draws a part of a batch and returns its losses; `"loss"` is minimised, the others are logged.
            explain: Says of a step what it shows, for `bad_step.json`.

        Returns:
            Whether the steps are taken.

        Raises:
            InvalidRequestError: A loss or gradient is not finite, or too many are far too large; `bad_step.json` says
                which, and nothing was changed by it.
        """
        start, before = time.monotonic(), self.seconds
        is_first = rank() == 0
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc=self.folder.name, mininterval=5.0, disable=not is_first
        )
        with StopSignals() as stop, bar:
            while self.step < self.config.steps and not any_says(stop.asked):
                values = self._take_step(losses, explain)
                self.seconds = before + time.monotonic() - start
                bar.update()
                if self.step % _LOG_EVERY == 0:
                    shown = self._log(values)
                    bar.set_postfix(shown)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()
        self._reseed()  # what is measured with the result does not depend on where this process began
        return self.step >= self.config.steps

    def replay(self, step: int, losses: Callable[[BatchPart], Losses]) -> dict[str, float]:
        """What a step logs, computed again: those before it are taken, and nothing of all that is kept.

        Args:
            step: From 0; not before the checkpoint that was continued.
            losses: As in `fit`.

        Returns:
            The step's losses and its gradient's norm.
        """
        while self.step < step:
            self._take_step(losses, None)
        return _numbers(self._differentiate(losses))

    def save(self) -> None:
        """Write a checkpoint, with all processes together."""
        tensors = self._tensors()
        state = RunState(
            step=self.step,
            seconds=self.seconds,
            frozen=self.frozen,
            norms=list(self.guard.norms),
            skipped=list(self.guard.skipped),
            tensors=len(tensors),
        )
        self.checkpoints.save(state, tensors)

    def _take_step(
        self, losses: Callable[[BatchPart], Losses], explain: Callable[[int], dict[str, Any]] | None
    ) -> Losses:
        """Change the weights once; what is logged of it."""
        values = self._differentiate(losses)
        if self._is_taken(values, explain):
            for optimiser in self.optimisers:
                optimiser.step()
            self.average.update(self.step)
        self.step += 1
        return values

    def _differentiate(self, losses: Callable[[BatchPart], Losses]) -> Losses:
        """Compute a step's gradients; what is logged of it, the mean over all parts of the batch."""
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * self._learning_rate()
        self._reseed()
        parts = self.config.accumulation
        sums: Losses = {}
        for part in range(parts):
            values = losses(BatchPart(self.step, rank() * parts + part, num_processes() * parts))
            (values["loss"] / parts).backward()  # type: ignore[no-untyped-call]
            sums = {name: sums.get(name, 0) + value.detach() / parts for name, value in values.items()}
        average_gradients(self.weights.values())
        means = mean_over_processes(torch.cat([value.float().reshape(-1) for value in sums.values()]))
        split = torch.split(means, [value.numel() for value in sums.values()])
        values = {name: mean.reshape(value.shape) for (name, value), mean in zip(sums.items(), split, strict=True)}
        values["norm"] = clip_gradients(self.weights.values(), self.config.clip_norm)
        return values

    def _is_taken(self, values: Losses, explain: Callable[[int], dict[str, Any]] | None) -> bool:
        """Whether the step's update counts; looked at before it is made, and the same in all processes."""
        loss, norm = torch.stack([values["loss"], values["norm"]]).tolist()  # the one look at the device in a step
        verdict = self.guard.judge(self.step, loss, norm)
        if verdict.fault is not None:
            if rank() == 0:
                facts = {name: as_json(number) for name, number in _numbers(values).items()}
                content = json.dumps(
                    {"step": self.step + 1, **facts, **({} if explain is None else explain(self.step))}
                )
                write_file(self.folder / "bad_step.json", content.encode())
            raise InvalidRequestError(
                f"{verdict.fault}; {self.folder / 'bad_step.json'} says what it shows. Go on from the last checkpoint "
                "with a lower learning_rate."
            )
        return verdict.is_taken

    def _tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, by name."""
        parameters = {name for name, _ in self.model.named_parameters()}
        kept = {f"weight/{name}": weight.detach() for name, weight in self.weights.items()}
        kept |= {f"average/{name}": tensor for name, tensor in self.average.tensors.items()}
        kept |= {f"buffer/{name}": t for name, t in self.model.state_dict().items() if name not in parameters}
        for name, weight in self.weights.items():
            kept |= {f"{kind}/{name}": tensor for kind, tensor in self._states[weight][weight].items()}
        return kept

    def _resume(self, up_to: int | None) -> None:
        loaded = self.checkpoints.load(up_to)
        if loaded is None:
            return
        state, tensors = loaded
        if state.frozen != self.frozen:
            raise InvalidRequestError(
                f"The run in {self.folder} was begun on other frozen weights; give the base it was begun with by "
                "--init, or begin another run elsewhere with --out."
            )
        places = {f"weight/{name}": weight.data for name, weight in self.weights.items()}
        places |= {f"average/{name}": tensor for name, tensor in self.average.tensors.items()}
        places |= {f"buffer/{name}": buffer for name, buffer in self.model.named_buffers()}
        for name, tensor in tensors:
            if name in places:
                places[name].copy_(shared_out_like(tensor, places[name]))
            else:
                kind, _, of = name.partition("/")
                weight = self.weights[of]
                self._states[weight][weight][kind] = (
                    tensor.to(weight.device if weight.is_cuda else "cpu")
                    if kind == "step"
                    else shared_out_like(tensor, weight)
                )
        self.step, self.seconds = state.step, state.seconds
        self.guard = Guard(self.config.spike_factor, state.norms, state.skipped)

    def _reseed(self) -> None:
        here = (self.seed, self.step, rank())
        torch.manual_seed(seed_of("torch", *here))
        if self.random is not None:
            reseed(self.random, "own", *here)

    def _learning_rate(self) -> float:
        """Of the peak, in this step."""
        warm = min(1.0, (self.step + 1) / (self.config.warmup_steps + 1))
        level = self.config.steps * (1 - self.config.cooldown)
        falling = self.config.cycles * max(0.0, self.step - level) / (self.config.steps - level) % 1
        return warm * 0.5 * (1 + math.cos(math.pi * falling))

    def _log(self, values: Losses) -> dict[str, str]:
        numbers = _numbers(values)
        if rank() == 0:
            self.log.write(self.step, self.seconds, numbers)
        return {name: f"{number:.4f}" for name, number in numbers.items()}


def _numbers(values: Losses) -> dict[str, float]:
    """Losses as numbers, but for means over some samples where there were none."""
    found: dict[str, float] = {}
    for name, value in values.items():
        total, count = value.tolist() if value.ndim else (value.item(), 1.0)
        if count:
            found[name] = total / count
    return found
