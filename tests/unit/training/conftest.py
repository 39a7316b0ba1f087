"""A head and a pool of latents, as tiny as the tiny models."""

from dataclasses import replace

import pytest

from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from tests.tiny import BASE_CONFIG, noise

ROWS = 5


@pytest.fixture(scope="session")
def head() -> HeadModel:
    """The first 60 vertices of the head, as many as the tiny identity encoder takes."""
    full = HeadModel.load()
    bases = {name: getattr(full, name)[:, :60] for name in ("identity_basis", "expression_basis")}
    return replace(full, mean=full.mean[:60], **bases)


@pytest.fixture(scope="session")
def pool(head: HeadModel) -> LatentPool:
    return LatentPool(
        clips=noise(ROWS, 3, BASE_CONFIG["out_channels"], 6, 4, seed=1).half(),
        reference=noise(ROWS, 1, BASE_CONFIG["out_channels"], 6, 4, seed=3).half(),
        face_tokens=noise(ROWS, 4, 4, 32, seed=4).half(),
        identity=noise(ROWS, len(head.identity_basis), seed=5).half(),
        text=noise(ROWS, 6, 20, seed=6).half(),
        null_text=noise(1, 6, 20, seed=7).half(),
    )
