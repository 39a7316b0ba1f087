"""Telling people apart: the objective of the face vision net, and augmented pictures for all face nets."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.data.precompute import ClipPool
from fantasyid.data.repose.rig import RigSet
from fantasyid.face.align import FACE_SIZE, face_transform, jitter, warp
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.trainer import Losses


@dataclass(frozen=True)
class VisionObjective:
    """Two views of a person lie closer than views of different people (symmetric InfoNCE).

    Attributes:
        pool: Rendered pairs: the reference's face and the face of a frame.
        rigs: Photos; people with two give real pairs.
        batch_size: Pairs a step.
        rng: Of the batches.
        real_share: Share of real pairs.
        temperature: Of the softmax.
    """

    pool: ClipPool
    rigs: RigSet
    batch_size: int
    rng: np.random.Generator
    real_share: float = 0.1
    temperature: float = 0.07

    def __call__(self, model: FaceVisionModel) -> Losses:
        """Losses of one batch."""
        device = model.device
        num_real = int(self.batch_size * self.real_share)
        rows = np.sort(self.rng.choice(len(self.pool), self.batch_size - num_real, replace=False))
        views = []
        real = self._real_pairs(num_real)
        for name, pictures in zip(("face", "frame_face"), real, strict=True):
            rendered = torch.from_numpy(getattr(self.pool, name)[rows]).to(device).float() / 255
            views.append(augment(torch.cat([rendered, pictures]), self.rng))
        if self.rng.uniform() < 0.5:
            views = [view.flip(-1) for view in views]
        with torch.autocast(device.type, torch.bfloat16):
            embedding = model(torch.cat(views) * 2 - 1).embedding
        loss, rank1 = info_nce(embedding.float(), self.temperature)
        return {"loss": loss, "rank1": rank1}

    def _real_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        rigs = self.rigs
        paired = (rigs.other != torch.arange(len(rigs), device=rigs.other.device)).nonzero()[:, 0]
        people, first = np.unique(rigs.person[paired].cpu().numpy(), return_index=True)
        chosen = paired[torch.from_numpy(first[self.rng.permutation(len(people))[:count]]).to(paired.device)]
        views = []
        for index in (chosen, rigs.other[chosen]):
            affine = face_transform(rigs.landmarks[index][..., :2] + 0.5)
            views.append(warp(rigs.image[index].float() / 255, jitter(affine, 0.03, 0.015, 3.0), FACE_SIZE))
        return views[0], views[1]


def info_nce(codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE between two views of the same people.

    Args:
        codes: (2 B, K) unit length, the second views after the first ones.
        temperature: Of the softmax over people.

    Returns:
        The loss, and the share of first views whose nearest second view is the same person's.
    """
    first, second = codes.chunk(2)
    scores = first @ second.T / temperature
    label = torch.arange(len(scores), device=scores.device)
    loss = (F.cross_entropy(scores, label) + F.cross_entropy(scores.T, label)) / 2
    return loss, (scores.argmax(1) == label).float().mean()


def augment(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast, colour, sharpness and noise of (B, 3, H, W) in [0, 1]."""
    batch, device = len(pictures), pictures.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=device)

    mean = pictures.mean((1, 2, 3), keepdim=True)
    out = (pictures - mean) * (1 + 0.15 * normal(1, 1, 1)) + mean * (1 + 0.12 * normal(1, 1, 1))
    out = out * (1 + 0.04 * normal(3, 1, 1))
    grey = (torch.rand(batch, 1, 1, 1, device=device) < 0.1).float()
    out = out * (1 - grey) + out.mean(1, keepdim=True) * grey
    coarse = F.interpolate(F.avg_pool2d(out, 2), out.shape[-2:], mode="bilinear", align_corners=False)
    out = torch.lerp(out, coarse, torch.rand(batch, 1, 1, 1, device=device) * (rng.uniform() < 0.7))
    return (out + 0.015 * torch.randn_like(out)).clamp(0, 1)
