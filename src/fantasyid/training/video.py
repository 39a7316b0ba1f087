"""Objective of the video model: v-prediction (paper 4.1) on single frames or clips, with or without identity tokens."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor, nn

from fantasyid.conditioning.latents import concat_reference, rotary_embedding
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.trainer import Losses

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
}
"""Noise levels of the built-in model, CogVideoX-5B's."""


class VideoModel(nn.Module):
    """Everything trained together: the transformer and, once identity tokens are, their encoder."""

    def __init__(self, transformer: FantasyIDTransformer3DModel, identity_encoder: IdentityEncoder | None) -> None:
        super().__init__()
        self.transformer, self.identity_encoder = transformer, identity_encoder


@dataclass(frozen=True)
class VideoObjective:
    """Draws noisy latents and measures the predicted velocity.

    Attributes:
        pool: Encoded clips.
        scheduler: Noise levels; v-prediction.
        head: Head model, for the vertices of known shapes.
        batch_size: Samples a step.
        generator: Of batches, noise and drops, on the pool's device.
        kind: Single frames or whole clips.
        drop_text: Share of samples with the empty prompt (paper: 0.1).
        drop_reference: Share of samples without the reference latent.
        drop_identity: Share of samples without identity tokens.
        drop_all: Share of samples with none of the three, for guidance.
        shape_noise: Standard deviation added to the known head shape, about the error of reading it from a photo.
    """

    pool: LatentPool
    scheduler: CogVideoXDDIMScheduler
    head: HeadModel
    batch_size: int
    generator: torch.Generator
    kind: Literal["stills", "clips"]
    drop_text: float = 0.1
    drop_reference: float = 0.1
    drop_identity: float = 0.1
    drop_all: float = 0.05
    shape_noise: float = 0.2

    def __call__(self, model: VideoModel) -> Losses:
        """Losses of one batch."""
        transformer, device = model.transformer, self.pool.clips.device
        rows = self._integers(len(self.pool))
        clean = self._clean(rows)
        noise = torch.randn(clean.shape, generator=self.generator, device=device)
        timesteps = self._integers(self.scheduler.config.num_train_timesteps)
        noisy, velocity = self._diffuse(clean, noise, timesteps)

        everything = self._keep(self.drop_all)
        text = torch.where(
            (everything * self._keep(self.drop_text))[:, None, None] > 0,
            self.pool.text[rows].float(),
            self.pool.null_text.float(),
        )
        reference = (
            self.pool.reference[rows].float()
            * (everything * self._keep(self.drop_reference))[:, None, None, None, None]
        )
        _, frames, _, height, width = clean.shape
        rotary = rotary_embedding(transformer.config, frames, height, width, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            tokens = None if model.identity_encoder is None else self._identity_tokens(model.identity_encoder, rows)
            predicted = transformer(
                concat_reference(noisy, reference),
                text,
                timesteps,
                image_rotary_emb=rotary,
                identity_tokens=tokens,
                identity_scale=1.0 if tokens is None else everything * self._keep(self.drop_identity),
                return_dict=False,
            )[0]
        return {"loss": F.mse_loss(predicted.float(), velocity)}

    def _clean(self, rows: Tensor) -> Tensor:
        if self.kind == "clips":
            return self.pool.clips[rows].float()
        which = self._integers(self.pool.stills.shape[1])
        return self.pool.stills[rows, which][:, None].float()

    def _diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.scheduler.alphas_cumprod.to(clean)[timesteps][:, None, None, None, None]
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return signal * clean + sigma * noise, signal * noise - sigma * clean

    def _identity_tokens(self, encoder: IdentityEncoder, rows: Tensor) -> Tensor:
        identity = self.pool.identity[rows].float()
        identity = identity + self.shape_noise * torch.randn(
            identity.shape, generator=self.generator, device=identity.device
        )
        neutral = torch.zeros(len(rows), self.head.expression_basis.shape[0], device=identity.device)
        with torch.autocast(identity.device.type, enabled=False):
            vertices = self.head.shape(identity, neutral)
            tokens: Tensor = encoder(self.pool.face_tokens[rows].float(), vertices)
        return tokens

    def _integers(self, limit: int) -> Tensor:
        return torch.randint(limit, (self.batch_size,), generator=self.generator, device=self.pool.clips.device)

    def _keep(self, drop: float) -> Tensor:
        drawn = torch.rand(self.batch_size, generator=self.generator, device=self.pool.clips.device)
        return (drawn >= drop).float()
