"""What a run draws at random: functions of its seed and of where it stands, so that nothing of it need be kept."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fantasyid.core.seeds import seed_of


def reseed(random: np.random.Generator | torch.Generator, *words: int | str) -> None:
    """Let a generator begin anew with the numbers of these words."""
    if isinstance(random, torch.Generator):
        random.manual_seed(seed_of(*words))
    else:
        random.bit_generator.state = np.random.PCG64(seed_of(*words)).state


def clips_at(seed: int, first: int, count: int, clips: int, device: torch.device) -> Tensor:
    """Which clips stand at some positions of an endless order in which every epoch shows each clip once.

    Args:
        seed: Of the order.
        first: The first position, from 0.
        count: How many positions.
        clips: How many clips there are.
        device: Where the numbers are wanted; an epoch's order is brought there once.

    Returns:
        (count,) int64 numbers of clips.
    """
    parts, end = [], first + count
    while first < end:
        epoch, place = divmod(first, clips)
        taken = min(end - first, clips - place)
        parts.append(_permutation(seed, epoch, clips, device)[place : place + taken])
        first += taken
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, clips: int, device: torch.device) -> Tensor:
    return torch.randperm(clips, generator=torch.Generator().manual_seed(seed_of("order", seed, epoch))).to(device)
