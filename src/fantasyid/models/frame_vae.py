"""CogVideoX's video VAE on single frames, as the 2-D network that it is when its convolutions look at no other frame.

A VAE with `temporal_compression_ratio` 1 whose convolutions have weights for the newest frame alone encodes and decodes
every frame by itself: no two frames can melt into each other. Run frame by frame it costs a third, trains on single
pictures, and needs no chunks. `AutoencoderKLCogVideoX` itself gives the same pictures, one frame at a time exactly,
several at a time up to the statistics of its norms, which it then takes over all of them.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXCausalConv3d,
    CogVideoXResnetBlock3D,
    CogVideoXSpatialNorm3D,
)
from torch import Tensor, nn


def is_frame_vae(vae: AutoencoderKLCogVideoX) -> bool:
    """Whether the VAE treats every frame by itself; reads all its weights, so ask once."""
    if vae.config.temporal_compression_ratio != 1:
        return False
    return all(not older.any() for older in _older_taps(vae))


@torch.no_grad()
def forget_older_frames(vae: AutoencoderKLCogVideoX) -> None:
    """Set every weight that looks at an earlier frame to zero; trained through this module it stays so.

    Args:
        vae: With `temporal_compression_ratio` 1.
    """
    assert vae.config.temporal_compression_ratio == 1, "a VAE that compresses time needs its neighbours"
    for older in _older_taps(vae):
        older.zero_()


def encode_frames(vae: AutoencoderKLCogVideoX, frames: Tensor) -> Tensor:
    """Encode pictures.

    Args:
        vae: One for which `is_frame_vae` holds; its weights are used in the pictures' dtype.
        frames: (N, 3, H, W) in [-1, 1].

    Returns:
        (N, 2 C, h, w): mean and logarithm of the variance of the latents, not scaled.
    """
    encoder = vae.encoder
    hidden = _conv(encoder.conv_in, frames)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, None)
        for downsampler in block.downsamplers or ():
            hidden = _plain_conv(downsampler.conv, F.pad(hidden, (0, 1, 0, 1)))
    for resnet in encoder.mid_block.resnets:
        hidden = _resnet(resnet, hidden, None)
    moments = _conv(encoder.conv_out, F.silu(_group_norm(encoder.norm_out, hidden)))
    return moments if vae.quant_conv is None else _plain_conv3d(vae.quant_conv, moments)


def frame_latents(vae: AutoencoderKLCogVideoX, frames: Tensor) -> Tensor:
    """The mode of the distribution that `encode_frames` gives, (N, C, h, w), not scaled; arguments as there."""
    return encode_frames(vae, frames).chunk(2, dim=1)[0]


def decode_frames(vae: AutoencoderKLCogVideoX, latents: Tensor) -> Tensor:
    """Decode pictures.

    Args:
        vae: One for which `is_frame_vae` holds; its weights are used in the latents' dtype.
        latents: (N, C, h, w), not scaled.

    Returns:
        (N, 3, H, W), about [-1, 1] and not clamped.
    """
    decoder = vae.decoder
    if vae.post_quant_conv is not None:
        latents = _plain_conv3d(vae.post_quant_conv, latents)
    hidden = _conv(decoder.conv_in, latents)
    for resnet in decoder.mid_block.resnets:
        hidden = _resnet(resnet, hidden, latents)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, latents)
        for upsampler in block.upsamplers or ():
            hidden = _plain_conv(upsampler.conv, F.interpolate(hidden, scale_factor=2.0))
    return _conv(decoder.conv_out, F.silu(_norm(decoder.norm_out, hidden, latents)))


def _older_taps(vae: AutoencoderKLCogVideoX) -> list[Tensor]:
    convolutions = (module.conv for module in vae.modules() if isinstance(module, CogVideoXCausalConv3d))
    return [conv.weight[:, :, :-1] for conv in convolutions]


def _resnet(block: CogVideoXResnetBlock3D, inputs: Tensor, latents: Tensor | None) -> Tensor:
    hidden = _conv(block.conv1, F.silu(_norm(block.norm1, inputs, latents)))
    hidden = _conv(block.conv2, F.silu(_norm(block.norm2, hidden, latents)))
    if block.in_channels != block.out_channels:
        inputs = _plain_conv3d(block.conv_shortcut, inputs)
    return hidden + inputs


def _norm(norm: nn.GroupNorm | CogVideoXSpatialNorm3D, hidden: Tensor, latents: Tensor | None) -> Tensor:
    """Group norm; in the decoder scaled and shifted by the latents, whose 1x1 convolutions come before they grow."""
    if isinstance(norm, nn.GroupNorm):
        return _group_norm(norm, hidden)
    assert latents is not None, "the decoder's norms look at the latents"
    size = hidden.shape[-2:]
    scale, shift = (F.interpolate(_conv(conv, latents), size) for conv in (norm.conv_y, norm.conv_b))
    return _group_norm(norm.norm_layer, hidden) * scale + shift


def _group_norm(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
    return F.group_norm(hidden, norm.num_groups, norm.weight.to(hidden), norm.bias.to(hidden), norm.eps)


def _conv(conv: CogVideoXCausalConv3d, hidden: Tensor) -> Tensor:
    newest = conv.conv.weight[:, :, -1]
    return F.conv2d(hidden, newest.to(hidden), _bias(conv.conv, hidden), padding=(conv.height_pad, conv.width_pad))


def _plain_conv(conv: nn.Conv2d, hidden: Tensor) -> Tensor:
    return F.conv2d(hidden, conv.weight.to(hidden), _bias(conv, hidden), conv.stride, conv.padding)


def _plain_conv3d(conv: nn.Conv3d, hidden: Tensor) -> Tensor:
    return F.conv2d(hidden, conv.weight[:, :, -1].to(hidden), _bias(conv, hidden))


def _bias(conv: nn.Conv2d | nn.Conv3d, hidden: Tensor) -> Tensor:
    assert conv.bias is not None
    return conv.bias.to(hidden)
