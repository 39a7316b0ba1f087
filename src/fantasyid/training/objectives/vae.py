"""Objective of the video VAE: pixels, edges, what the face vision model sees, and latents that scale with pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from fantasyid.data.precompute import ClipPool
from fantasyid.face.align import FACE_SIZE
from fantasyid.models.frame_vae import decode_frames, frame_latents
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.trainer import Losses

_FRAMES_PER_CLIP = 5
_FACE_CENTRE, _FACE_SIDE = 0.56, 0.69  # height of the face crop's centre in the portrait frame, and its side


def reconstruct(
    vae: AutoencoderKLCogVideoX, picture: Tensor, noise: Tensor, half_share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode what was encoded, with noise, and the first pictures once more at half size.

    Args:
        vae: See `models.frame_vae`.
        picture: (B, 3, H, W) in [-1, 1].
        noise: (B, 1, 1, 1) standard deviation of noise on the latents.
        half_share: Share of the batch that is decoded at half size too.

    Returns:
        (B, 3, H, W), (share of B, 3, H / 2, W / 2) and the latents (B, C, h, w).
    """
    latents = frame_latents(vae, picture)
    noisy = latents + noise * torch.randn_like(latents)
    count = round(half_share * len(picture))
    half = decode_frames(vae, F.avg_pool2d(noisy[:count], 2))
    return decode_frames(vae, noisy), half, latents


@dataclass(frozen=True)
class VaeObjective:
    """Draws pictures and measures their reconstruction.

    Attributes:
        pictures: (N, 3, H, W) uint8 on the device.
        vision: Trained face vision model; what it sees in a face should survive.
        batch_size: Pictures a step.
        generator: Of batches and noise, on the device.
        edge_weight: Of the edge loss.
        vision_weight: Of the distance between what the vision model sees, in its tokens and its embedding.
        size_weight: Of the latents' mean square, which keeps them near unit size.
        noise: Largest standard deviation of noise on the latents, so that nearby latents decode alike.
        half_share: Share of the pictures that are also asked for at half size from latents at half size. It keeps fine
            detail out of the latents' fine detail, which a transformer learns more slowly (EQ-VAE, 2025).
        reconstruct: What encodes and decodes; compiled where that pays.
    """

    pictures: Tensor
    vision: FaceVisionModel
    batch_size: int
    generator: torch.Generator
    edge_weight: float = 1.0
    vision_weight: float = 0.1
    size_weight: float = 1e-4
    noise: float = 0.1
    half_share: float = 0.25
    reconstruct: Callable[..., tuple[Tensor, Tensor, Tensor]] = reconstruct

    def __call__(self, vae: AutoencoderKLCogVideoX) -> Losses:
        """Losses of one batch."""
        device = self.pictures.device
        rows = torch.randint(len(self.pictures), (self.batch_size,), generator=self.generator, device=device)
        picture = self.pictures[rows].to(torch.bfloat16) / 127.5 - 1
        mirrored = torch.rand(self.batch_size, generator=self.generator, device=device) < 0.5
        picture = torch.where(mirrored[:, None, None, None], picture.flip(-1), picture)
        picture = picture.contiguous(memory_format=torch.channels_last)
        amount = self.noise * torch.rand(self.batch_size, 1, 1, 1, generator=self.generator, device=device)
        decoded, half, latents = self.reconstruct(vae, picture, amount.bfloat16(), self.half_share)
        target = picture.float()
        error = (decoded.float() - target).abs().mean()
        edges = edge_loss(decoded.float(), target)
        small = F.avg_pool2d(target[: len(half)], 2)
        # Of a batch so small that its share is no picture, nothing is asked.
        coarse = (half.float() - small).abs().mean() if len(half) else error.new_zeros(())
        seen = self._vision_loss(decoded, picture)
        size = latents.float().square().mean()
        loss = error + self.edge_weight * edges + self.half_share * coarse
        loss = loss + self.vision_weight * seen + self.size_weight * size
        psnr = 10 * torch.log10(4 / F.mse_loss(decoded.float().clamp(-1, 1), target))
        return {"loss": loss, "l1": error, "edges": edges, "half": coarse, "seen": seen, "psnr": psnr, "size": size}

    def _vision_loss(self, decoded: Tensor, picture: Tensor) -> Tensor:
        """Mean of 1 - cosine between what the vision model sees before and after, over grid tokens and embedding."""
        with torch.autocast(decoded.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = self.vision(face_region(picture.float()))
            found = self.vision(face_region(decoded.float()))
        tokens = F.cosine_similarity(found.tokens.float(), wanted.tokens.float(), dim=-1).mean()
        person = (found.embedding.float() * wanted.embedding.float()).sum(-1).mean()
        loss: Tensor = 2 - tokens - person
        return loss


def training_pictures(pool: ClipPool, device: str) -> Tensor:
    """A few frames of all clips, and all references, as (N, 3, H, W) uint8 on a device."""
    every = max(1, pool.clips.shape[1] // _FRAMES_PER_CLIP)
    frames = np.array(pool.clips[:, ::every]).reshape(-1, *pool.clips.shape[2:])
    return torch.cat([torch.from_numpy(part).to(device) for part in (frames, np.array(pool.reference))])


@torch.no_grad()
def latent_statistics(
    vae: AutoencoderKLCogVideoX, pictures: Tensor, count: int = 4096
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the latents, over evenly spaced pictures.

    Args:
        vae: See `models.frame_vae`.
        pictures: (N, 3, H, W) uint8.
        count: How many pictures to encode at most.
    """
    chosen = pictures[:: max(1, len(pictures) // count)]
    parts = [frame_latents(vae, part.bfloat16() / 127.5 - 1).float() for part in torch.split(chosen, 64)]
    latents = torch.cat(parts).transpose(0, 1).flatten(1)
    mean, std = latents.mean(1), latents.std(1)
    return [round(x, 4) for x in mean.tolist()], [round(x, 4) for x in std.tolist()]


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
    return F.interpolate(crop, (FACE_SIZE, FACE_SIZE), mode="bilinear", align_corners=False, antialias=True)


def edge_loss(picture: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients at halving resolutions.

    Args:
        picture: (B, C, H, W).
        target: Same shape.
        scales: How many resolutions.
    """
    total = picture.new_zeros(())
    for scale in range(scales):
        if scale:
            picture, target = F.avg_pool2d(picture, 2), F.avg_pool2d(target, 2)
        difference = picture - target
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return total / scales
