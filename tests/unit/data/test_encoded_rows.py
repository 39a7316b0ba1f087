"""Every row of an encoded pool is made of that row: clip, reference, face, caption and head shape."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fantasyid.conditioning.latents import encode_video, reference_latents
from fantasyid.conditioning.text import encode_text, load_text_encoder
from fantasyid.data.precompute import TEXT_LENGTH, ClipPool, LatentPool, encode_pool
from tests.tiny import tiny_face_vision
from tests.tiny_pipeline import tiny_frame_vae

CLIPS, FRAMES, SIDE = 3, 3, 32
CAPTIONS = ["A woman smiles.", "A man nods, lit from the left.", "A person in their 20s talks."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of noise, with smaller pictures than the renderer makes."""
    folder, draw = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    pictures = ("reference", "face", "frame_face", "neutral_face")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(pictures, (3, SIDE, SIDE))
    for name, shape in (shapes | {"clips": (FRAMES, 3, SIDE, SIDE)}).items():
        np.save(folder / f"{name}.npy", draw.integers(0, 256, (CLIPS, *shape), np.uint8))
    np.save(folder / "identity.npy", draw.normal(size=(CLIPS, 5)).astype(np.float16))
    (folder / "captions.json").write_text(json.dumps(CAPTIONS))
    return folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> ClipPool:
    return ClipPool.open(folder)


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any]:
    return tiny_frame_vae(), tiny_face_vision()


@pytest.fixture(scope="module")
def latents(folder: Path, networks: tuple[Any, Any]) -> LatentPool:
    vae, vision = networks
    encode_pool(folder, vae, vision, "cpu")
    return LatentPool.open(folder, "cpu")


def signed(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.array(pictures)).float() / 127.5 - 1


def nearest_row(found: torch.Tensor, expected: torch.Tensor) -> list[int]:
    """For every row of `found` the row of `expected` it is nearest to."""
    nearest: list[int] = torch.cdist(found.flatten(1).float(), expected.flatten(1).float()).argmin(1).tolist()
    return nearest


def test_latents_are_those_of_the_rendered_row(pool: ClipPool, latents: LatentPool, networks: tuple[Any, Any]) -> None:
    vae, vision = networks
    expected = {
        "clips": encode_video(vae, signed(pool.clips).transpose(1, 2)).transpose(1, 2),
        "reference": reference_latents(vae, signed(pool.reference)).transpose(1, 2),
        "face_tokens": vision(signed(pool.face)).tokens.detach(),
    }
    for name, value in expected.items():
        found = getattr(latents, name)
        assert found.shape == value.shape
        assert (found.float() - value.float()).abs().mean() < 0.02 * value.float().std()  # networks run in bfloat16
        assert nearest_row(found, value) == list(range(CLIPS))
    assert torch.equal(latents.identity, torch.from_numpy(np.array(pool.identity)))


def test_text_is_of_the_rows_own_caption(pool: ClipPool, latents: LatentPool) -> None:
    expected = encode_text(*load_text_encoder(), [*pool.captions, ""], TEXT_LENGTH)
    torch.testing.assert_close(latents.text.float(), expected[:-1], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(latents.null_text.float(), expected[-1:], atol=2e-3, rtol=1e-3)
    assert len({tuple(states.flatten().tolist()) for states in latents.text}) == CLIPS


def test_rows_and_joined_pools_keep_what_belongs_together(latents: LatentPool) -> None:
    order = torch.tensor([2, 0])
    some = latents.rows(order)
    assert len(some) == 2
    both = LatentPool.joined([some, latents.rows(torch.tensor([1]))])
    assert len(both) == CLIPS
    for field in fields(LatentPool):
        every, found, joined = (getattr(pool, field.name) for pool in (latents, some, both))
        if field.name == "null_text":
            assert torch.equal(found, every)
            assert torch.equal(joined, every)
        else:
            assert torch.equal(found, every[order])
            assert torch.equal(joined, every[[2, 0, 1]])
