"""The order of clips is a function of the seed and the step, whoever computes which part of it, and from where."""

import numpy as np
import pytest
import torch

from fantasyid.core.seeds import seed_of
from fantasyid.training.chance import clips_at, reseed
from fantasyid.training.trainer import BatchPart

CLIPS, BATCH, STEPS = 7, 72, 200
CPU = torch.device("cpu")


def order(seed: int = 0) -> torch.Tensor:
    return clips_at(seed, 0, STEPS * BATCH, CLIPS, CPU)


def test_every_epoch_shows_each_clip_once_in_an_order_of_its_own() -> None:
    epochs = order()[: STEPS * BATCH // CLIPS * CLIPS].reshape(-1, CLIPS)
    assert torch.equal(epochs.sort(1).values, torch.arange(CLIPS).expand_as(epochs))
    assert len(torch.unique(epochs, dim=0)) > 0.75 * len(epochs)  # of 5040 that there are
    assert not torch.equal(order(seed=1), order())


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_processes_and_parts_share_out_the_same_order(processes: int, accumulation: int) -> None:
    parts, seen = processes * accumulation, []
    for step in range(STEPS):
        numbers = clips_at(0, step * BATCH, BATCH, CLIPS, CPU)
        seen += [numbers[BatchPart(step, part, parts).rows(BATCH)] for part in range(parts)]
    assert torch.equal(torch.cat(seen), order())


def test_it_may_be_begun_anywhere() -> None:
    whole = order()
    for first in (0, 1, CLIPS, 100, STEPS * BATCH - 1):
        assert torch.equal(clips_at(0, first, len(whole) - first, CLIPS, CPU), whole[first:])


def test_words_have_seeds_of_their_own_which_generators_take() -> None:
    words = [("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("a", 1), (1, 2)]
    assert len({seed_of(*each) for each in words}) == len(words)
    drawn, random = [], np.random.default_rng()
    for each in (*words, words[0]):
        generator = torch.Generator()
        reseed(generator, *each)
        reseed(random, *each)
        drawn.append((torch.rand(1, generator=generator).item(), random.random()))
    assert len(set(drawn)) == len(words)
    assert drawn[0] == drawn[-1]
