"""Latents between VAE and transformer: scaling, layout and positions, equal to upstream's pipeline."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel

from fantasyid.conditioning.latents import (
    allowed_frames,
    concat_reference,
    decode_video,
    encode_video,
    normalise_latents,
    padding_frames,
    reference_latents,
    restore_latents,
    rotary_embedding,
)
from fantasyid.core.errors import InvalidRequestError
from tests.tiny_pipeline import tiny_frame_vae


def make_vae(invert_scale_latents: bool = False) -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
        invert_scale_latents=invert_scale_latents,
    ).eval()


def make_transformer(**changes: object) -> CogVideoXTransformer3DModel:
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 8,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 8,
        "num_layers": 1,
        "sample_width": 16,
        "sample_height": 16,
        "sample_frames": 17,
        "patch_size": 1,
        "max_text_seq_length": 8,
        "use_rotary_positional_embeddings": True,
    }
    return CogVideoXTransformer3DModel(**{**config, **changes}).eval()


def test_video_round_trip_has_the_shapes_of_mini() -> None:
    vae = make_vae()
    video = torch.rand(1, 3, 17, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_video(vae, video)
    assert latents.shape == (1, 4, 5, 8, 8)
    expected = vae.encode(video).latent_dist.mode() * 0.7
    torch.testing.assert_close(latents, expected.detach())
    decoded = decode_video(vae, latents)
    assert decoded.shape == video.shape
    torch.testing.assert_close(decoded, vae.decode(expected / 0.7).sample)


@pytest.mark.parametrize("frames", [1, 9])
def test_allowed_lengths_come_back_as_long(frames: int) -> None:
    vae = make_vae()
    assert frames in allowed_frames(vae, 49)
    assert decode_video(vae, encode_video(vae, torch.zeros(1, 3, frames, 16, 16))).shape[2] == frames


@pytest.mark.parametrize("frames", [5, 13, 16])
def test_a_length_the_vae_does_not_give_back_is_refused(frames: int) -> None:
    assert list(allowed_frames(make_vae(), 24)) == [1, 9, 17]
    with pytest.raises(InvalidRequestError, match=f"{frames} frames; the VAE takes 8k\\+1"):
        encode_video(make_vae(), torch.zeros(1, 3, frames, 16, 16))


@pytest.mark.parametrize(("invert", "factor"), [(False, 0.7), (True, 1 / 0.7)])
def test_reference_follows_the_scaling_rule_and_is_deterministic(invert: bool, factor: float) -> None:
    vae = make_vae(invert)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = reference_latents(vae, image)
    assert latents.shape == (2, 4, 1, 4, 4)
    assert torch.equal(latents, reference_latents(vae, image))
    torch.testing.assert_close(latents, vae.encode(image[:, :, None]).latent_dist.mode().detach() * factor)


def test_reference_stands_in_the_first_frame_only() -> None:
    noisy, reference = torch.randn(2, 5, 4, 3, 3), torch.randn(2, 1, 4, 3, 3)
    before = noisy.clone()
    joined = concat_reference(noisy, reference)
    assert joined.shape == (2, 5, 8, 3, 3)
    assert torch.equal(joined[:, :, :4], before)
    assert torch.equal(noisy, before)
    assert torch.equal(joined[:, :1, 4:], reference)
    assert not joined[:, 1:, 4:].any()
    assert not concat_reference(noisy, None)[:, :, 4:].any()
    assert torch.equal(concat_reference(noisy, torch.zeros_like(reference)), concat_reference(noisy, None))


def test_reference_stands_beside_every_frame_where_asked() -> None:
    noisy, reference = torch.randn(2, 5, 4, 3, 3), torch.randn(2, 1, 4, 3, 3)
    joined = concat_reference(noisy, reference, in_all_frames=True)
    assert torch.equal(joined[:, :, :4], noisy)
    assert torch.equal(joined[:, :, 4:], reference.expand(-1, 5, -1, -1, -1))
    assert torch.equal(concat_reference(noisy, None, in_all_frames=True), concat_reference(noisy, None))


@pytest.mark.parametrize(
    ("frames", "height", "width", "patch", "patch_t"),
    [
        (5, 16, 16, 1, None),
        (1, 16, 16, 1, None),
        (5, 12, 16, 2, None),
        (13, 24, 20, 2, None),
        (6, 16, 16, 2, 2),
        (2, 8, 12, 2, 2),
    ],
)
def test_positions_equal_the_upstream_pipeline(
    frames: int, height: int, width: int, patch: int, patch_t: int | None
) -> None:
    transformer = make_transformer(patch_size=patch, patch_size_t=patch_t)
    pipeline = CogVideoXImageToVideoPipeline(None, None, make_vae(), transformer, None)
    expected = pipeline._prepare_rotary_positional_embeddings(height * 8, width * 8, frames, torch.device("cpu"))
    actual = rotary_embedding(transformer.config, frames, height, width)
    assert actual is not None
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
    assert actual[0].shape == (frames * height * width // patch**2 // (patch_t or 1), 16)


def test_models_without_rotary_positions_get_none() -> None:
    assert rotary_embedding(make_transformer(use_rotary_positional_embeddings=False).config, 5, 16, 16) is None


@pytest.mark.parametrize(("patch_t", "frames", "padding"), [(None, 5, 0), (2, 21, 1), (2, 4, 0), (3, 4, 2)])
def test_padding_makes_temporal_patches_fit(patch_t: int | None, frames: int, padding: int) -> None:
    assert padding_frames({"patch_size_t": patch_t}, frames) == padding


def statistics(vae: AutoencoderKLCogVideoX) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(vae.config[name])[None, :, None, None, None] for name in ("latents_mean", "latents_std"))
    return mean, std


@torch.no_grad()
def test_latents_of_a_vae_with_statistics_are_normalised_by_channel() -> None:
    vae, latents = tiny_frame_vae(), torch.randn(2, 4, 3, 5, 6)
    mean, std = statistics(vae)
    torch.testing.assert_close(normalise_latents(vae, latents), (latents - mean) / std)
    torch.testing.assert_close(restore_latents(vae, normalise_latents(vae, latents)), latents)
    flat = latents[:, :, 0]
    torch.testing.assert_close(normalise_latents(vae, flat), normalise_latents(vae, latents)[:, :, 0])
    assert normalise_latents(vae, latents.half()).dtype == torch.float16


@torch.no_grad()
def test_clips_of_a_frame_vae_are_coded_frame_by_frame() -> None:
    """More frames than are coded at once, in two clips; each is as CogVideoX's own class codes it alone."""
    vae, video = tiny_frame_vae(), torch.rand(2, 3, 7, 16, 16) * 2 - 1
    mean, std = statistics(vae)
    latents = encode_video(vae, video)
    assert latents.shape == (2, 4, 7, 4, 4)
    decoded = decode_video(vae, latents)
    assert decoded.shape == video.shape
    for frame in range(7):
        alone = slice(frame, frame + 1)
        expected = (vae.encode(video[:, :, alone]).latent_dist.mode() - mean) / std
        torch.testing.assert_close(latents[:, :, alone], expected, atol=1e-4, rtol=1e-4)
        picture = vae.decode(latents[:, :, alone] * std + mean).sample
        torch.testing.assert_close(decoded[:, :, alone], picture, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reference_latents(vae, video[:, :, 3]), latents[:, :, 3:4], atol=1e-4, rtol=1e-4)


def test_a_vae_that_mixes_frames_is_not_coded_frame_by_frame() -> None:
    vae = tiny_frame_vae(latents_mean=None, latents_std=None)
    with torch.no_grad():
        vae.decoder.conv_in.conv.weight[:, :, 0] += 0.3
        latents = torch.randn(1, 4, 3, 4, 4)
        torch.testing.assert_close(decode_video(vae, latents), vae.decode(latents / vae.config.scaling_factor).sample)
