"""CogVideoX's VAE frame by frame, against the class it comes from."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d
from torch import nn

from fantasyid.models.frame_vae import decode_frames, encode_frames, forget_older_frames, is_frame_vae
from tests.tiny import noise
from tests.tiny_pipeline import tiny_frame_vae, tiny_vae

# CogVideoX's own quant convolutions fit latents of as many channels as pictures only.
SHAPES: list[dict[str, Any]] = [
    {},
    {"block_out_channels": (4, 8, 8)},
    {"use_quant_conv": True, "latent_channels": 3, "layers_per_block": 2},
    {"use_post_quant_conv": True, "latent_channels": 3},
]


def scrambled(**shape: Any) -> AutoencoderKLCogVideoX:
    """A frame VAE whose norms scale and shift too."""
    vae = tiny_frame_vae(**shape)
    generator = torch.Generator().manual_seed(1)
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.3, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.3, generator=generator)
    return vae


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_single_frames_are_those_of_cogvideox(shape: dict[str, Any]) -> None:
    vae = scrambled(**shape)
    frames, latents = noise(3, 3, 24, 16), noise(3, vae.config.latent_channels, 6, 4, seed=1)
    expected = vae.encode(frames[:, :, None]).latent_dist.parameters[:, :, 0]
    torch.testing.assert_close(encode_frames(vae, frames), expected, atol=1e-5, rtol=1e-5)
    decoded = vae.decode(latents[:, :, None]).sample[:, :, 0]
    torch.testing.assert_close(decode_frames(vae, latents), decoded, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_frame_does_not_depend_on_the_others() -> None:
    vae, frames = scrambled(), noise(3, 3, 16, 16)
    together = encode_frames(vae, frames)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], encode_frames(vae, frames[k : k + 1]), atol=1e-5, rtol=1e-5)


def test_a_frame_vae_has_no_weight_for_an_older_frame() -> None:
    assert is_frame_vae(tiny_frame_vae())
    assert not is_frame_vae(tiny_vae())
    convolutions = [module.conv for module in tiny_frame_vae().modules() if isinstance(module, CogVideoXCausalConv3d)]
    for number in range(len(convolutions)):
        for age in range(convolutions[number].kernel_size[0] - 1):
            vae = tiny_frame_vae()
            changed = [module.conv for module in vae.modules() if isinstance(module, CogVideoXCausalConv3d)][number]
            with torch.no_grad():
                changed.weight[-1, -1, age] += 1e-3
            assert not is_frame_vae(vae), (number, age)


def test_a_vae_that_compresses_time_is_none_even_without_older_weights() -> None:
    vae = tiny_frame_vae(temporal_compression_ratio=1)
    vae.register_to_config(temporal_compression_ratio=2)
    assert not is_frame_vae(vae)
    with pytest.raises(AssertionError, match="compresses time"):
        forget_older_frames(vae)


def test_forgetting_leaves_the_newest_frame_alone() -> None:
    vae = tiny_frame_vae()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, CogVideoXCausalConv3d):
                module.conv.weight[:, :, :-1] = 1.0
    forget_older_frames(vae)
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())


def test_training_through_it_keeps_it_a_frame_vae() -> None:
    vae = tiny_frame_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=0.1)
    latents = encode_frames(vae, noise(2, 3, 16, 16)).chunk(2, dim=1)[0]
    decode_frames(vae, latents).square().mean().backward()
    optimiser.step()
    assert is_frame_vae(vae)


@torch.no_grad()
def test_weights_are_used_in_the_pictures_precision() -> None:
    vae = scrambled()
    half = encode_frames(vae, noise(1, 3, 16, 16).bfloat16())
    assert half.dtype == torch.bfloat16
    exact = encode_frames(vae, noise(1, 3, 16, 16))
    assert (half.float() - exact).abs().mean() < 0.05 * exact.std()
    assert decode_frames(vae, noise(1, 4, 4, 4).bfloat16()).dtype == torch.bfloat16
