"""A look at a video that is still noise: a few frames of what the last denoising step takes it to become."""

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from fantasyid.conditioning.latents import decode_video
from fantasyid.pipelines.fantasyid import FantasyIDPipeline

_MOST_FRAMES = 4


def frames_so_far(pipeline: FantasyIDPipeline, estimate: torch.Tensor, num_frames: int) -> NDArray[np.uint8]:
    """Decode up to four evenly spaced frames, each by itself, which takes a fraction of decoding the video.

    Args:
        pipeline: Has the VAE.
        estimate: (1, T, C, h, w), `pred_original_sample` of a step; frames that only fill up are at its start.
        num_frames: Of the video.

    Returns:
        RGB (K, H, W, 3), the first and the last frame among them.
    """
    length = (num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
    picks = np.unique(np.linspace(0, length - 1, _MOST_FRAMES).round().astype(int))
    latents = estimate[:, -length:].to(pipeline.vae.device)
    pictures = [decode_video(pipeline.vae, rearrange(latents[:, k : k + 1], "b t c h w -> b c t h w")) for k in picks]
    video = torch.cat([picture[:, :, :1] for picture in pictures], dim=2)
    frames = pipeline.video_processor.postprocess_video(video.float(), output_type="np")[0]
    pixels: NDArray[np.uint8] = (frames * 255).round().astype(np.uint8)
    return pixels
