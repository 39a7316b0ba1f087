"""Five steps of the video objective give the losses they always gave."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.training.objectives.video import SCHEDULER, Draws, VideoModel, VideoObjective
from tests.tiny import open_injection, tiny_identity_encoder, tiny_transformer

GOLDEN = Path(__file__).parents[2] / "golden" / "training_losses.json"
BATCH = 4


def drawn(generator: torch.Generator, clips: int, coefficients: int) -> tuple[torch.Tensor, Draws]:
    """Numbers of clips, and what chance decides, in the order in which the golden losses' version drew them."""

    def keep(drop: float) -> torch.Tensor:
        return (torch.rand(BATCH, generator=generator) >= drop).float()

    index = torch.randint(clips, (BATCH,), generator=generator)
    noise = torch.randn(BATCH, 4, 4, 6, 4, generator=generator)
    timesteps = torch.randint(1000, (BATCH,), generator=generator)
    keep_any = keep(0.05)
    keep_text, keep_reference = keep_any * keep(0.1), keep_any * keep(0.1)
    shape_noise = torch.randn(BATCH, coefficients, generator=generator)
    keep_identity = keep_any * keep(0.1)
    view, clean = torch.zeros(BATCH), -torch.ones(BATCH)
    return index, Draws(noise, timesteps, shape_noise, view, keep_text, keep_reference, keep_identity, keep_any, clean)


def test_the_losses_are_golden(pool: LatentPool, head: HeadModel) -> None:
    """To the last bit on the machine that wrote them; another CPU's kernels round bfloat16 otherwise."""
    transformer = tiny_transformer(patch_size=2, patch_size_t=2, sample_frames=8)
    open_injection(transformer)
    model = VideoModel(transformer, tiny_identity_encoder(centre=True)).train()
    scheduler = CogVideoXDDIMScheduler(**SCHEDULER)
    goal = VideoObjective(pool, scheduler, head, BATCH, seed=0, device=torch.device("cpu"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(5):
        index, draws = drawn(generator, len(pool), pool.identity.shape[1])
        loss = goal.measure(model, pool.rows(index), draws)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)
