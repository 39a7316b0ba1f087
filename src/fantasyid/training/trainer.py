"""The training loop of every stage: AdamW, warm-up and cosine, clipped gradients, averaged weights, resuming."""

import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import link_or_copy
from fantasyid.core.upstream import move_all_towards
from fantasyid.training.chance import reseed, seed_of
from fantasyid.training.config import OptimiserConfig
from fantasyid.training.parallel import average_gradients, equalise, num_processes, rank

Losses = dict[str, Tensor]
_LOG_EVERY = 50
_SAVE_EVERY_SECONDS = 120


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
        model: What is trained; parameters that do not require gradients stay as they are.
        config: How.
        folder: Where `checkpoint.pt` and `log.jsonl` are written; a checkpoint found there is continued.
        seed: Of what the losses draw from `random` and from PyTorch's default generators.
        random: What the losses draw from beside those, if anything.

    Raises:
        InvalidRequestError: The checkpoint is damaged, or the processes cannot share a batch out.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimiserConfig,
        folder: Path,
        seed: int,
        random: np.random.Generator | torch.Generator | None = None,
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.seed, self.random = seed, random
        weights = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        fused = weights[0].is_cuda
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=fused)
        self.average = AveragedModel(model, multi_avg_fn=self._average, use_buffers=False)
        self.step, self.seconds = 0, 0.0
        equalise(model)
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """File a stopped run continues from."""
        return self.folder / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before that one."""
        return self.folder / "checkpoint-before.pt"

    @property
    def averaged(self) -> nn.Module:
        """The result: the model with averaged weights."""
        return self.average.module

    def fit(self, losses: Callable[[BatchPart], Losses]) -> None:
        """Train until the steps are taken.

        Args:
            losses: Draws a part of a batch and returns its losses; `"loss"` is minimised, the others are logged.
        """
        start, before = time.monotonic(), self.seconds
        saved = start
        is_first = rank() == 0
        with tqdm(
            total=self.config.steps, initial=self.step, desc=self.folder.name, mininterval=5.0, disable=not is_first
        ) as bar:
            while self.step < self.config.steps:
                for group in self.optimiser.param_groups:
                    group["lr"] = self._learning_rate()
                self._reseed()
                values = losses(BatchPart(self.step, rank(), num_processes()))
                self.optimiser.zero_grad(set_to_none=True)
                values["loss"].backward()  # type: ignore[no-untyped-call]
                average_gradients(self.model.parameters())
                norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
                self.optimiser.step()
                self.average.update_parameters(self.model)
                self.step += 1
                self.seconds = before + time.monotonic() - start
                bar.update()
                if self.step % _LOG_EVERY == 0 and is_first:
                    bar.set_postfix(self._log(values | {"norm": norm}))
                if time.monotonic() - saved > _SAVE_EVERY_SECONDS and is_first:
                    self.save()
                    saved = time.monotonic()
        if is_first:
            self.save()
        self._reseed()  # what is measured with the result does not depend on where this process began

    def save(self) -> None:
        """Write the checkpoint; the one before stays beside it.

        Raises:
            InvalidRequestError: A weight is not finite; nothing is written.
        """
        weights = (self.model.state_dict(), self.averaged.state_dict())
        spoilt = [name for state in weights for name, tensor in state.items() if not tensor.isfinite().all()]
        if spoilt:
            raise InvalidRequestError(
                f"After step {self.step} the weights {', '.join(spoilt[:3])} are not finite and were not saved; go on "
                f"from the last checkpoint, {self.checkpoint}, with a lower learning_rate."
            )
        state = {
            "model": weights[0],
            "average": weights[1],
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        if self.checkpoint.exists():
            self.previous.unlink(missing_ok=True)
            link_or_copy(self.checkpoint, self.previous)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
            remedy = f"put {self.previous} in its place" if self.previous.exists() else "start anew in another folder"
            raise InvalidRequestError(f"{self.checkpoint} is damaged ({error}); {remedy}.") from error
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.average.n_averaged.fill_(self.step)

    def _reseed(self) -> None:
        here = (self.seed, self.step, rank())
        torch.manual_seed(seed_of("torch", *here))
        if self.random is not None:
            reseed(self.random, "own", *here)

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / (self.config.warmup_steps + 1))
        falling = max(0.0, (self.step / self.config.steps - 1 + self.config.cooldown) / self.config.cooldown)
        return self.config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * falling))

    def _average(self, averaged: Any, current: Any, count: Any) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        move_all_towards(averaged, current, 1 - decay)

    def _log(self, values: Losses) -> dict[str, str]:
        numbers = {name: float(value.detach()) for name, value in values.items()}
        if not math.isfinite(numbers["loss"] + numbers["norm"]):
            raise InvalidRequestError(
                f"The loss of step {self.step} is {numbers['loss']} and its gradient's norm {numbers['norm']}; go on "
                f"from the last checkpoint, {self.checkpoint}, with a lower learning_rate."
            )
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **numbers}) + "\n")
        return {name: f"{number:.4f}" for name, number in numbers.items()}
