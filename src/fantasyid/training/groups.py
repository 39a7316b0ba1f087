"""What is trained, and how fast: weights in groups, each with its own learning rate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.models.transformer import is_injected
from fantasyid.training.config import GroupConfig, GroupName, OptimiserConfig
from fantasyid.training.lora import is_adapter


@dataclass(frozen=True, eq=False)
class TrainedGroup:
    """Weights that are trained alike.

    Attributes:
        name: What they are.
        learning_rate: Peak.
        weight_decay: AdamW's, on weights with two dimensions or more.
        weights: By their names in the model.
    """

    name: str
    learning_rate: float
    weight_decay: float
    weights: Mapping[str, nn.Parameter]


def _is_gain(name: str) -> bool:
    return ".injection.feature.norm." in name or name.endswith("injection_gain")


_BELONGS: Mapping[GroupName, Callable[[str], bool]] = MappingProxyType(
    {
        "identity_encoder": lambda name: name.startswith("identity_encoder."),
        "injection_gain": _is_gain,
        "injection": lambda name: name.startswith("transformer.") and is_injected(name),
        "patch_embed": lambda name: name.startswith("transformer.patch_embed."),
        "base": lambda name: name.startswith("transformer.") and not is_injected(name),
        "base_lora": is_adapter,
    }
)


def everything(model: nn.Module, config: OptimiserConfig) -> list[TrainedGroup]:
    """All weights that require gradients, in one group."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return [TrainedGroup("all", config.learning_rate, config.weight_decay, weights)]


def choose_groups(model: nn.Module, groups: Sequence[GroupConfig], config: OptimiserConfig) -> list[TrainedGroup]:
    """Share out the weights of a `VideoModel`, and freeze those of no group.

    Args:
        model: The model.
        groups: Each weight belongs to the first that names it; none trains everything.
        config: Has what a group leaves out.

    Raises:
        InvalidRequestError: A group has no weights.
    """
    if not groups:
        return everything(model, config)
    left = dict(model.named_parameters())
    chosen = []
    for group in groups:
        weights = {name: weight for name, weight in left.items() if _BELONGS[group.weights](name)}
        if not weights:
            raise InvalidRequestError(
                f"The group {group.weights} has no weights: the model has none, or an earlier group names them; leave "
                "it out, or put it first."
            )
        left = {name: weight for name, weight in left.items() if name not in weights}
        rate = config.learning_rate if group.learning_rate is None else group.learning_rate
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        chosen.append(TrainedGroup(group.weights, rate, decay, weights))
    for name, weight in model.named_parameters():  # a LoRA that was added has frozen all but itself
        weight.requires_grad_(name not in left)
    return chosen


def keep_frozen_in(dtype: torch.dtype, model: nn.Module) -> None:
    """Hold the matrices that are not trained in a narrower type; norms compute in float32 and keep theirs.

    Args:
        dtype: Such as bfloat16, in which CogVideoX's weights come.
        model: Changed in place.

    Raises:
        InvalidRequestError: A weight would be rounded, so the result would not hold the base that was given.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad or weight.ndim < 2:
            continue
        narrow = weight.data.to(dtype)
        if not torch.equal(narrow.to(weight.dtype), weight.data):
            raise InvalidRequestError(f"The frozen weight {name} would be rounded; set frozen_dtype to float32.")
        weight.data = narrow


def optimiser_groups(
    groups: Sequence[TrainedGroup], takes: Callable[[str, nn.Parameter], bool]
) -> list[dict[str, Any]]:
    """The groups as PyTorch's optimisers take them, with their peak rate as `peak`.

    Vectors don't decay; and weights that are shared out among devices stand apart from whole ones, because one kernel
    takes either.

    Args:
        groups: All that is trained.
        takes: Whether the optimiser takes a weight, by its name.
    """
    parts = []
    for group in groups:
        taken = [weight for name, weight in group.weights.items() if takes(name, weight)]
        for decays in (True, False):
            for is_shared in (False, True):
                weights = [
                    weight
                    for weight in taken
                    if (weight.ndim >= 2) == decays and isinstance(weight, DTensor) == is_shared
                ]
                decay = group.weight_decay if decays else 0.0
                if weights:
                    parts.append({"params": weights, "weight_decay": decay, "peak": group.learning_rate})
    return parts
