"""Objective of the video VAE: pixels, edges at several scales, the person, and a light pull toward unit Gaussians."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from torch import Tensor, nn

from fantasyid.data.precompute import ClipPool
from fantasyid.face.align import FACE_SIZE
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.trainer import Losses

_FACE_CENTRE, _FACE_SIDE = 0.56, 0.69  # height of the face crop's centre in the portrait frame, and its side


class Reconstruction(nn.Module):
    """Encode and decode in one call, so that all of it can run on bfloat16 copies of the weights."""

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded video, posterior mean and divergence per latent number, for (B, 3, T, H, W) in [-1, 1]."""
        posterior = self.vae.encode(video).latent_dist
        latents = posterior.mode() + noise * torch.randn_like(posterior.mean)
        return self.vae.decode(latents).sample, posterior.mean, posterior.kl().sum() / posterior.mean.numel()


@dataclass(frozen=True)
class VaeObjective:
    """Draws clips and measures their reconstruction.

    Attributes:
        pool: Training clips.
        vision: Trained face vision model; what it sees in a face should survive.
        batch_size: Clips a step.
        rng: Of the batches.
        edge_weight: Of the edge loss.
        person_weight: Of the distance between face embeddings.
        kl_weight: Of the divergence, per latent number.
        noise: Standard deviation of noise on the latents, so that nearby latents decode alike.
        short_share: Share of steps on 8 times as many single frames.
    """

    pool: ClipPool
    vision: FaceVisionModel
    batch_size: int
    rng: np.random.Generator
    edge_weight: float = 1.0
    person_weight: float = 0.05
    kl_weight: float = 1e-6
    noise: float = 0.02
    short_share: float = 0.3

    def __call__(self, vae: AutoencoderKLCogVideoX) -> Losses:
        """Losses of one batch."""
        video = self.batch(vae.device)
        weights = {f"vae.{name}": weight.bfloat16() for name, weight in vae.named_parameters()}
        args = (video.bfloat16(), self.noise)
        decoded, mean, divergence = torch.func.functional_call(Reconstruction(vae), weights, args)
        error = (decoded.float() - video).abs().mean()
        edges = edge_loss(decoded.float(), video)
        person = self._person_loss(decoded, video)
        loss = error + self.edge_weight * edges + self.person_weight * person + self.kl_weight * divergence
        square = F.mse_loss(decoded.float().clamp(-1, 1), video)
        psnr = 10 * torch.log10(4 / square)
        return {"loss": loss, "l1": error, "edges": edges, "person": person, "psnr": psnr, "std": mean.float().std()}

    def _person_loss(self, decoded: Tensor, video: Tensor) -> Tensor:
        """Mean of 1 - cosine between what the vision model sees before and after, in every fourth frame."""
        before, after = (rearrange(clip[:, :, ::4], "b c t h w -> (b t) c h w") for clip in (video, decoded))
        with torch.autocast(video.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = self.vision(face_region(before)).embedding
            found = self.vision(face_region(after)).embedding
        likeness: Tensor = (wanted.float() * found.float()).sum(-1).mean()
        return 1 - likeness

    def batch(self, device: torch.device) -> Tensor:
        """Clips (B, 3, 17, H, W), or 8 B single frames (8 B, 3, 1, H, W), in [-1, 1]."""
        single = self.rng.uniform() < self.short_share
        rows = np.sort(self.rng.choice(len(self.pool), self.batch_size * (8 if single else 1), replace=False))
        clips = self.pool.still[rows][:, None] if single else self.pool.clips[rows]
        video = torch.from_numpy(clips).to(device, non_blocking=True).float() / 127.5 - 1
        video = video.flip(-1) if self.rng.uniform() < 0.5 else video
        return video.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)


def face_region(frames: Tensor) -> Tensor:
    """Where the face lies in a frame of the portrait kind, about as `face.align.face_transform` would cut it.

    Args:
        frames: (B, 3, H, W) square frames.

    Returns:
        (B, 3, FACE_SIZE, FACE_SIZE).
    """
    size = frames.shape[-1]
    side = round(size * _FACE_SIDE)
    top, left = round(size * _FACE_CENTRE - side / 2), round((size - side) / 2)
    crop = frames[..., top : top + side, left : left + side]
    return F.interpolate(crop, (FACE_SIZE, FACE_SIZE), mode="bilinear", align_corners=False)


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
