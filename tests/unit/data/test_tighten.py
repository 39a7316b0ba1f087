"""Some references end within their frame, as tightly cropped photos do."""

import numpy as np
import torch

from fantasyid.data.precompute import tighten

SIDE = 50


def test_only_grey_beyond_a_rectangle() -> None:
    """What stays is the picture, and reaches over its middle; what is left out is grey."""
    pictures = torch.ones(300, 3, SIDE, SIDE) * torch.tensor([0.1, 0.7, 0.9])[:, None, None]
    out = tighten(pictures, np.random.default_rng(0))
    assert out.shape == pictures.shape
    changed = (out != pictures).any(1)
    assert torch.equal(changed, (out == 0.5).all(1))
    for grey in changed:
        rows, columns = (~grey).any(1), (~grey).any(0)
        assert torch.equal(~grey, rows[:, None] & columns)
        assert rows[SIDE // 2 - 5 : SIDE // 2 + 5].all()
        assert columns[SIDE // 2 - 5 : SIDE // 2 + 5].all()
        for line in (rows, columns):
            assert line.diff().sum() <= 2


def test_a_quarter_is_tight_on_some_of_its_sides() -> None:
    out = tighten(torch.ones(2000, 3, SIDE, SIDE), np.random.default_rng(1))
    grey = (out == 0.5).all(1)
    tight = grey.flatten(1).any(1)
    assert 0.18 < tight.float().mean() < 0.26  # a few of the quarter lose less than a pixel, or no side
    edges = torch.stack([grey[:, 0].all(1), grey[:, :, 0].all(1), grey[:, -1].all(1), grey[:, :, -1].all(1)], 1)[tight]
    assert ((edges.float().mean(0) > 0.4) & (edges.float().mean(0) < 0.75)).all()
    assert len(edges.unique(dim=0)) > 8


def test_the_same_seed_cuts_alike() -> None:
    pictures = torch.rand(40, 3, SIDE, SIDE)
    first, second, other = (tighten(pictures, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
