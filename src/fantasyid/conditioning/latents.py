"""The VAE's side of the video model, shared by the pipeline and training.

Two orders of axes are in use, as in diffusers: the VAE's (B, C, T, H, W) and the transformer's (B, T, C, H, W).
`encode_*` and `decode_video` speak the VAE's order, `concat_reference` the transformer's. Latents that leave this file
are normalised to about unit variance: by the VAE's `latents_mean` and `latents_std` where its config has them, one pair
a channel, otherwise by its `scaling_factor`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from einops import rearrange

from fantasyid.core.errors import InvalidRequestError
from fantasyid.models.frame_vae import decode_frames, frame_latents, is_frame_vae

_FRAMES_AT_ONCE = 5


def allowed_frames(vae: AutoencoderKLCogVideoX, longest: int) -> range:
    """Lengths of video the VAE decodes to as many frames as it encoded: 1, 9, 17, ... for CogVideoX's.

    The VAE encodes 4k+1 frames, but decodes two latent frames at a time and takes the first of an odd number only for a
    single one; so the number of latent frames must be odd.

    Args:
        vae: The video VAE.
        longest: No length above this is given.

    Returns:
        The lengths, ascending.
    """
    return range(1, longest + 1, 2 * vae.config.temporal_compression_ratio)


@torch.no_grad()
def encode_video(vae: AutoencoderKLCogVideoX, video: torch.Tensor) -> torch.Tensor:
    """Encode clips to the latents the video model is trained on.

    Args:
        vae: The video VAE.
        video: (B, 3, T, H, W) in [-1, 1]; T is one that `allowed_frames` allows.

    Returns:
        (B, C, t, h, w): the distribution's mode, normalised, in the VAE's dtype.

    Raises:
        InvalidRequestError: T does not fit the VAE.
    """
    frames = video.shape[2]
    if frames not in allowed_frames(vae, frames):
        step = allowed_frames(vae, frames).step
        raise InvalidRequestError(f"The video has {frames} frames; the VAE takes {step}k+1, such as {2 * step + 1}.")
    return normalise_latents(vae, _mode(vae, video))


@torch.no_grad()
def reference_latents(vae: AutoencoderKLCogVideoX, image: torch.Tensor) -> torch.Tensor:
    """Encode reference pictures as single-frame latents; deterministic, so a photo always gives the same video.

    With `invert_scale_latents` in the VAE's config the reference latent is divided by the scaling factor, because the
    base was trained so; video latents are multiplied all the same, as upstream.

    Args:
        vae: The video VAE.
        image: (B, 3, H, W) in [-1, 1].

    Returns:
        (B, C, 1, h, w) in the VAE's dtype.
    """
    latents = _mode(vae, rearrange(image, "b c h w -> b c 1 h w"))
    if vae.config.invert_scale_latents:
        return latents / float(vae.config.scaling_factor)
    return normalise_latents(vae, latents)


def normalise_latents(vae: AutoencoderKLCogVideoX, latents: torch.Tensor) -> torch.Tensor:
    """Bring a VAE's latents (B, C, ...) to about zero mean and unit variance."""
    if vae.config.latents_std is None:
        scaled: torch.Tensor = latents * float(vae.config.scaling_factor)
        return scaled
    mean, std = _statistics(vae, latents)
    return (latents - mean) / std


def restore_latents(vae: AutoencoderKLCogVideoX, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalise_latents`."""
    if vae.config.latents_std is None:
        scaled: torch.Tensor = latents / vae.config.scaling_factor
        return scaled
    mean, std = _statistics(vae, latents)
    return latents * std + mean


def decode_video(vae: AutoencoderKLCogVideoX, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents to frames.

    Args:
        vae: The video VAE.
        latents: (B, C, t, h, w) as `encode_video` gives them.

    Returns:
        (B, 3, T, H, W), about [-1, 1] and not clamped, in the VAE's dtype.
    """
    restored = restore_latents(vae, latents.to(vae.dtype))
    if is_frame_vae(vae):
        return _by_frame(restored, lambda frames: decode_frames(vae, frames))
    return vae.decode(restored).sample  # type: ignore[no-any-return]


def concat_reference(noisy: torch.Tensor, reference: torch.Tensor | None, in_all_frames: bool = False) -> torch.Tensor:
    """Append the reference channels to noisy latents, in CogVideoX-I2V's layout.

    The reference latent stands in the extra channels of latent frame 0; the other frames' are zero, and all are zero
    without a reference.

    Args:
        noisy: (B, T, C, h, w), the transformer's order.
        reference: (B, 1, C, h, w), or None for plain text-to-video. A sample that is all zero has no reference.
        in_all_frames: The reference latent stands beside every frame instead, so that none has to fetch it from the
            first.

    Returns:
        (B, T, 2C, h, w) in the dtype of `noisy`.
    """
    conditions = torch.zeros_like(noisy)
    if reference is not None:
        batch, _, channels, height, width = noisy.shape
        assert reference.shape == (batch, 1, channels, height, width), (reference.shape, noisy.shape)
        conditions[:, : None if in_all_frames else 1] = reference
    return torch.cat([noisy, conditions], dim=2)


def takes_reference(config: Mapping[str, Any]) -> bool:
    """Whether a base has channels for a reference latent (CogVideoX-I2V), or the noisy latents' alone (text-to-video).

    Args:
        config: The transformer's config.
    """
    return bool(config["in_channels"] != config["out_channels"])


def with_reference(config: Mapping[str, Any], noisy: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """Make noisy latents what a base takes: with a reference beside them, or as they are.

    Args:
        config: The transformer's config.
        noisy: (B, T, C, h, w), the transformer's order.
        reference: As in `concat_reference`; unused by a base without channels for it.

    Returns:
        (B, T, in_channels, h, w) in the dtype of `noisy`.
    """
    if not takes_reference(config):
        return noisy
    return concat_reference(noisy, reference, config["reference_in_all_frames"])


def offset(config: Mapping[str, Any], noisy: torch.Tensor) -> torch.Tensor | None:
    """What CogVideoX 1.5's image-to-video base is told beside the time; it was trained with the value 2 only.

    Args:
        config: The transformer's config.
        noisy: Gives device and dtype.

    Returns:
        (1,), or None for models that are not told one.
    """
    return None if config["ofs_embed_dim"] is None else noisy.new_full((1,), 2.0)


def padding_frames(config: Mapping[str, Any], frames: int) -> int:
    """Count the latent frames to put before a video so that CogVideoX 1.5's temporal patches divide it.

    They are denoised with the others and thrown away; a reference stands in the first of them, as upstream has it.

    Args:
        config: The transformer's config.
        frames: Latent frames of the video.

    Returns:
        The number; 0 for models without temporal patches.
    """
    return -frames % (config["patch_size_t"] or 1)


def rotary_embedding(
    config: Mapping[str, Any], frames: int, height: int, width: int, device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Rotary position code of a latent grid, as CogVideoX computes it.

    Version 1.0 scales positions so that the model's own sample size keeps its range and fits another shape inside it;
    version 1.5 counts them from the top left corner.

    Args:
        config: The transformer's config.
        frames: Latent frames, 5 for 17 video frames and 1 for a single one; with the padding of `padding_frames`.
        height: Latent rows, before patching.
        width: Latent columns, before patching.
        device: Where the code is computed.

    Returns:
        (cos, sin), each (frames * rows * columns of patches, attention_head_dim) float32, or None for models without
        rotary positions.
    """
    if not config["use_rotary_positional_embeddings"]:
        return None
    patch, patch_t, dim = config["patch_size"], config["patch_size_t"], config["attention_head_dim"]
    grid = (height // patch, width // patch)
    sample = (config["sample_height"] // patch, config["sample_width"] // patch)
    if patch_t is None:
        crops = get_resize_crop_region_for_grid(grid, sample[1], sample[0])
        cos, sin = get_3d_rotary_pos_embed(dim, crops, grid, frames, device=device)
    else:
        assert frames % patch_t == 0, f"{frames} latent frames are not padded to a multiple of {patch_t}"
        cos, sin = get_3d_rotary_pos_embed(
            dim, None, grid, frames // patch_t, grid_type="slice", max_size=sample, device=device
        )
    return cos, sin


def _mode(vae: AutoencoderKLCogVideoX, video: torch.Tensor) -> torch.Tensor:
    video = video.to(vae.dtype)
    if is_frame_vae(vae):
        return _by_frame(video, lambda frames: frame_latents(vae, frames))
    return vae.encode(video).latent_dist.mode()  # type: ignore[no-any-return]


def _by_frame(video: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Change the frames of (B, C, T, H, W) a few at a time, each by itself."""
    frames = rearrange(video, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
    changed = torch.cat([change(part) for part in torch.split(frames, _FRAMES_AT_ONCE)])
    return rearrange(changed, "(b t) c h w -> b c t h w", b=len(video))


def _statistics(vae: AutoencoderKLCogVideoX, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, -1, *[1] * (latents.ndim - 2))
    mean, std = (latents.new_tensor(vae.config[name]).view(shape) for name in ("latents_mean", "latents_std"))
    return mean, std
