"""Objective of the video VAE: pixels, edges at several scales, and a light pull toward unit Gaussians."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from fantasyid.data.precompute import ClipPool
from fantasyid.training.trainer import Losses


@dataclass(frozen=True)
class VaeObjective:
    """Draws clips and measures their reconstruction.

    Attributes:
        pool: Training clips.
        batch_size: Clips a step.
        rng: Of the batches.
        edge_weight: Of the edge loss.
        kl_weight: Of the divergence, per latent number.
        short_share: Share of steps on 8 times as many single frames.
    """

    pool: ClipPool
    batch_size: int
    rng: np.random.Generator
    edge_weight: float = 1.0
    kl_weight: float = 1e-6
    short_share: float = 0.3

    def __call__(self, vae: AutoencoderKLCogVideoX) -> Losses:
        """Losses of one batch."""
        video = self._batch(vae.device)
        with torch.autocast(video.device.type, torch.bfloat16):
            posterior = vae.encode(video).latent_dist
            decoded = vae.decode(posterior.mode() + 0.02 * torch.randn_like(posterior.mean)).sample
        error = (decoded.float() - video).abs().mean()
        edges = edge_loss(decoded.float(), video)
        divergence = posterior.kl().sum() / posterior.mean.numel()
        loss = error + self.edge_weight * edges + self.kl_weight * divergence
        return {"loss": loss, "l1": error, "edges": edges, "kl": divergence, "std": posterior.mean.float().std()}

    def _batch(self, device: torch.device) -> Tensor:
        single = self.rng.uniform() < self.short_share
        rows = np.sort(self.rng.choice(len(self.pool), self.batch_size * (8 if single else 1), replace=False))
        clips = self.pool.still[rows][:, None] if single else self.pool.clips[rows]
        video = torch.from_numpy(clips).to(device, non_blocking=True).float() / 127.5 - 1
        video = video.flip(-1) if self.rng.uniform() < 0.5 else video
        return video.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)


def edge_loss(picture: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients at halving resolutions.

    Args:
        picture: (B, C, T, H, W).
        target: Same shape.
        scales: How many resolutions.
    """
    total = picture.new_zeros(())
    for scale in range(scales):
        if scale:
            picture, target = (F.avg_pool3d(x, (1, 2, 2)) for x in (picture, target))
        difference = picture - target
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return total / scales
