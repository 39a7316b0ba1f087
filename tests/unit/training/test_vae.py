"""What the stages vae and decoder minimise."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from torch import Tensor, nn

from fantasyid.data.precompute import ClipPool
from fantasyid.models.frame_vae import encode_frames
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.objectives.vae import (
    VaeObjective,
    face_region,
    latent_statistics,
    reconstruct,
    training_pictures,
)
from tests.tiny import noise, seeded
from tests.tiny_pipeline import tiny_frame_vae

SIDE, BATCH = 32, 8


@pytest.fixture(scope="module")
def vision() -> FaceVisionModel:
    fields = {"image_size": 96, "patch_size": 32, "width": 32, "num_layers": 1, "num_heads": 2, "embedding_dim": 8}
    return seeded(FaceVisionModel, **fields).requires_grad_(False)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    smooth = nn.functional.interpolate(noise(12, 3, 4, 4).sigmoid(), size=(SIDE, SIDE), mode="bilinear")
    return (smooth * 255).byte()


def objective(pictures: Tensor, vision: FaceVisionModel, **changes: Any) -> VaeObjective:
    fields = {"batch_size": BATCH, "generator": torch.Generator().manual_seed(0), **changes}
    return VaeObjective(pictures, vision, **fields)


def answer(change: float = 0.0, half_change: float = 0.0) -> Any:
    """Gives the pictures back, as they are or too bright."""

    def reconstructed(vae: Any, picture: Tensor, _: Tensor, half_share: float) -> tuple[Tensor, Tensor, Tensor]:
        half = nn.functional.avg_pool2d(picture.float()[: round(half_share * len(picture))], 2)
        return picture + change, half + half_change, torch.zeros(len(picture), 4, 8, 8)

    return reconstructed


def test_a_perfect_reconstruction_costs_next_to_nothing(pictures: Tensor, vision: FaceVisionModel) -> None:
    losses = objective(pictures, vision, reconstruct=answer())(None)  # type: ignore[arg-type]
    assert losses["loss"] < 1e-3
    assert losses["psnr"] > 50


def test_errors_are_counted_where_they_are(pictures: Tensor, vision: FaceVisionModel) -> None:
    brighter = objective(pictures, vision, reconstruct=answer(0.25))(None)  # type: ignore[arg-type]
    assert float(brighter["l1"]) == pytest.approx(0.25, abs=0.01)
    assert brighter["edges"] < 0.02
    assert brighter["half"] < 0.01
    coarse = objective(pictures, vision, reconstruct=answer(half_change=0.25))(None)  # type: ignore[arg-type]
    assert float(coarse["half"]) == pytest.approx(0.25, abs=0.01)
    assert float(coarse["loss"]) == pytest.approx(0.25 * 0.25, abs=0.01)
    without = objective(pictures, vision, half_share=0.0, reconstruct=lambda *given: answer()(*given[:3], 1.0))
    assert without(None)["half"] < 0.01  # type: ignore[arg-type]


def older_taps(vae: AutoencoderKLCogVideoX) -> list[Tensor]:
    """Gradients of the weights that look at earlier frames."""
    convolutions = [module.conv for module in vae.modules() if isinstance(module, CogVideoXCausalConv3d)]
    return [conv.weight.grad[:, :, :-1] for conv in convolutions if conv.weight.grad is not None]


@pytest.mark.parametrize("decoder_only", [False, True])
def test_every_parameter_that_may_move_gets_a_gradient(
    pictures: Tensor, vision: FaceVisionModel, decoder_only: bool
) -> None:
    vae = tiny_frame_vae()
    vae.encoder.requires_grad_(not decoder_only)
    losses = objective(pictures, vision)(vae)
    assert losses["loss"].dtype == torch.float32
    losses["loss"].backward()
    silent = {name for name, p in vae.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    encoder = {name for name, _ in vae.named_parameters() if name.startswith("encoder.")}
    assert silent == (encoder if decoder_only else set())
    taps = older_taps(vae)
    assert taps
    assert all(tap.numel() == 0 or tap.abs().max() == 0 for tap in taps)


def test_the_loss_falls(pictures: Tensor, vision: FaceVisionModel) -> None:
    vae = tiny_frame_vae(block_out_channels=(8, 8, 8))
    goal, optimiser = objective(pictures, vision), torch.optim.AdamW(vae.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        loss = goal(vae)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


@torch.no_grad()
def test_what_is_decoded_is_decoded_with_noise_and_at_half_size() -> None:
    vae, picture = tiny_frame_vae(), noise(4, 3, SIDE, SIDE).clamp(-1, 1)
    silence = torch.zeros(4, 1, 1, 1)
    exact, half, latents = reconstruct(vae, picture, silence, 0.5)
    assert exact.shape == picture.shape
    assert half.shape == (2, 3, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(latents, encode_frames(vae, picture)[:, :4])
    noisy, _, same = reconstruct(vae, picture, silence + 1.0, 0.5)
    torch.testing.assert_close(same, latents)
    assert (noisy - exact).abs().mean() > 1e-3


def test_pictures_are_frames_and_references_of_all_clips() -> None:
    draw, empty = np.random.default_rng(0), np.zeros((2, 1))
    clips = draw.integers(0, 256, (2, 12, 3, 8, 8), np.uint8)
    reference = draw.integers(0, 256, (2, 3, 8, 8), np.uint8)
    pool = ClipPool(clips, reference, empty, empty, empty, empty, ["a", "b"])
    found = training_pictures(pool, "cpu").numpy()
    assert len(found) == 2 * 6 + 2
    assert np.array_equal(found[-2:], reference)
    assert np.array_equal(found[:12], clips[:, ::2].reshape(12, 3, 8, 8))


def test_statistics_are_those_of_the_latents(pictures: Tensor) -> None:
    vae = tiny_frame_vae()
    mean, std = latent_statistics(vae, pictures)
    with torch.no_grad():
        latents = encode_frames(vae, pictures.float() / 127.5 - 1)[:, :4].transpose(0, 1).flatten(1)
    assert np.abs(np.array(mean) - latents.mean(1).numpy()).max() < 0.05 * float(latents.std())
    assert np.allclose(std, latents.std(1).numpy(), rtol=0.05)


def test_the_face_is_the_middle_of_the_frame() -> None:
    frame = torch.zeros(1, 3, 100, 100)
    frame[:, :, 56, 50] = 1
    crop = face_region(frame)
    assert crop.shape == (1, 3, 96, 96)
    rows, columns = crop[0, 0].nonzero().float().mean(0)
    assert abs(float(rows) - 48) < 3
    assert abs(float(columns) - 48) < 3
