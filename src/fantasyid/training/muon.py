"""Muon: matrices move by the momentum of their gradients, made orthogonal."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fantasyid.core.upstream import move_all_towards

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) with Nesterov's momentum, each update as large as AdamW's (Liu et al. 2025).

    PyTorch has it since 2.9, one matrix after the other; here matrices of one shape are made orthogonal together, so a
    transformer's blocks cost a few kernels and not thousands.

    Args:
        groups: As PyTorch's optimisers take them, of whole matrices; each with `weight_decay`.
        momentum: How much of the gradients' average stays in a step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights once."""
        assert closure is None, "gradients are computed before"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight.grad)
            gradients, averages = [w.grad for w in weights], [self.state[w]["momentum"] for w in weights]
            move_all_towards(averages, gradients, 1 - group["momentum"])
            alike: dict[torch.Size, list[int]] = defaultdict(list)
            for number, weight in enumerate(weights):
                alike[weight.shape].append(number)
            for (rows, columns), numbers in alike.items():
                ahead = torch.stack([gradients[number] for number in numbers])
                ahead = ahead.lerp_(torch.stack([averages[number] for number in numbers]), group["momentum"])
                rate = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                for number, update in zip(numbers, orthogonalised(ahead), strict=True):
                    weights[number].mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring all singular values near 1, within about 0.7 to 1.2, by five Newton-Schulz steps in bfloat16.

    Args:
        matrices: (N, rows, columns).

    Returns:
        The same shape in bfloat16, with the matrices' singular vectors.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    matrices = matrices.bfloat16()
    wide = matrices.mT if is_tall else matrices
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if is_tall else wide
