"""The face abstractor and its ablation, the Q-Former."""

import pytest
import torch
from torch import nn

from fantasyid.models.face_abstractor import FaceAbstractor
from fantasyid.models.qformer import QFormer
from tests.tiny import noise, seeded

SIZES = {"in_channels": 32, "out_channels": 64, "grid_size": 16, "pool_factor": 2}


@pytest.mark.parametrize("build", [FaceAbstractor, QFormer])
def test_both_give_the_same_shape(build) -> None:
    tokens = noise(2, 16, 16, 32)
    before = tokens.clone()
    assert seeded(build, **SIZES)(tokens).shape == (2, 8, 8, 64)
    assert torch.equal(tokens, before)


def test_paper_size_pools_24_to_6() -> None:
    with torch.device("meta"):
        model = FaceAbstractor(in_channels=1024, out_channels=128, grid_size=24, pool_factor=4)
        assert model(torch.empty(1, 24, 24, 1024)).shape == (1, 6, 6, 128)


def corner_difference(model: nn.Module) -> torch.Tensor:
    """How much each output cell changes when the input's top left token does."""
    tokens = noise(1, 16, 16, 32)
    changed = tokens.clone()
    changed[:, 0, 0] += 1.0
    return (model(changed) - model(tokens)).abs().sum(dim=-1)[0]


def test_abstractor_is_local_but_for_squeeze_excitation() -> None:
    model = seeded(FaceAbstractor, **SIZES)
    for block in (*model.before, *model.after):
        nn.init.zeros_(block.excitation.gate[2].weight)
    difference = corner_difference(model)
    # Three 3x3 convolutions reach 3 tokens, pooling makes that cell 1, three more reach cell 4.
    assert difference[5:].max() == 0
    assert difference[:, 5:].max() == 0
    assert difference[:5, :5].min() > 0


def test_abstractor_keeps_the_layout_with_squeeze_excitation() -> None:
    difference = corner_difference(seeded(FaceAbstractor, **SIZES))
    assert difference.argmax() == 0
    assert difference[0, 0] > 10 * difference[5:, 5:].max()


def test_abstractor_pools_by_averaging() -> None:
    model = seeded(FaceAbstractor, **SIZES, num_blocks=0)
    tokens = noise(1, 16, 16, 32)
    position = model.position.permute(0, 2, 3, 1)
    averaged = (tokens + position).reshape(1, 8, 2, 8, 2, 32).mean(dim=(2, 4))
    torch.testing.assert_close(model(tokens), model.mlp(averaged))


def test_abstractor_rejects_a_grid_it_cannot_pool() -> None:
    with pytest.raises(ValueError, match="a grid of 15 tokens cannot be pooled by 2"):
        FaceAbstractor(**{**SIZES, "grid_size": 15})
