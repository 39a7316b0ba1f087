"""Objective of the video model: v-prediction (paper 4.1) on clips or pairs of frames, with identity or without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor, nn

from fantasyid.conditioning.latents import concat_reference, padding_frames, rotary_embedding
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.population_norm import drift
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.trainer import Losses

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
}
"""Noise levels of the built-in model: CogVideoX's, moved towards noise as in CogVideoX-2B, because neighbouring latents
of a VAE that does not compress time say the same thing twice."""


class VideoModel(nn.Module):
    """Everything trained together: the transformer and, once identity tokens are, their encoder."""

    def __init__(self, transformer: FantasyIDTransformer3DModel, identity_encoder: IdentityEncoder | None) -> None:
        super().__init__()
        self.transformer, self.identity_encoder = transformer, identity_encoder


@dataclass(frozen=True)
class VideoObjective:
    """Draws noisy latents and measures the predicted velocity.

    Attributes:
        pools: Encoded clips, all of the same number of frames.
        scheduler: Noise levels; v-prediction.
        head: Head model, for the vertices of known shapes.
        batch_size: Samples a step.
        generator: Of batches, noise and drops, on the pool's device.
        drop_text: Share of samples with the empty prompt (paper: 0.1).
        drop_reference: Share of samples without the reference latent.
        drop_identity: Share of samples without identity tokens.
        drop_all: Share of samples with none of the three, for guidance.
        shape_noise: Standard deviation added to the known head shape, about the error of reading it from a photo.
        drift_weight: Of what keeps the tokens of an encoder with `centre` from running away.
    """

    pools: Sequence[LatentPool]
    scheduler: CogVideoXDDIMScheduler
    head: HeadModel
    batch_size: int
    generator: torch.Generator
    drop_text: float = 0.1
    drop_reference: float = 0.1
    drop_identity: float = 0.1
    drop_all: float = 0.05
    shape_noise: float = 0.2
    drift_weight: float = 0.01

    def __call__(self, model: VideoModel) -> Losses:
        """Losses of one batch."""
        transformer, device = model.transformer, self.generator.device
        rows = self._rows()
        clean = rows.clips.float()
        padding = padding_frames(transformer.config, clean.shape[1])
        clean = torch.cat([clean[:, :1].expand(-1, padding, -1, -1, -1), clean], dim=1)
        noise = torch.randn(clean.shape, generator=self.generator, device=device)
        timesteps = self._integers(self.scheduler.config.num_train_timesteps)
        noisy, velocity = self._diffuse(clean, noise, timesteps)

        everything = self._keep(self.drop_all)
        keep_text = everything * self._keep(self.drop_text)
        text = torch.where(keep_text[:, None, None] > 0, rows.text.float(), rows.null_text.float())
        keep_reference = everything * self._keep(self.drop_reference)
        reference = rows.reference.float() * keep_reference[:, None, None, None, None]
        _, frames, _, height, width = clean.shape
        rotary = rotary_embedding(transformer.config, frames, height, width, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            tokens, runaway = self._identity_tokens(model.identity_encoder, rows)
            predicted = transformer(
                concat_reference(noisy, reference),
                text,
                timesteps,
                image_rotary_emb=rotary,
                identity_tokens=tokens,
                identity_scale=1.0 if tokens is None else everything * self._keep(self.drop_identity),
                return_dict=False,
            )[0]
        error = (predicted.float() - velocity).square().mean((1, 2, 3, 4))
        kept = {"with": keep_reference, "without": everything * (1 - keep_reference)}
        parts = {f"{name}_reference": (error * k).sum() / k.sum().clamp(min=1) for name, k in kept.items()}
        return {"loss": error.mean() + self.drift_weight * runaway, **parts, "drift": runaway}

    def _rows(self) -> LatentPool:
        """A batch, drawn from all pools alike."""
        sizes = [len(pool) for pool in self.pools]
        which = torch.randint(sum(sizes), (self.batch_size,), generator=self.generator, device=self.generator.device)
        parts, start = [], 0
        for pool, size in zip(self.pools, sizes, strict=True):
            parts.append(pool.rows(which[(which >= start) & (which < start + size)] - start))
            start += size
        return LatentPool.joined(parts)

    def _diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.scheduler.alphas_cumprod.to(clean)[timesteps][:, None, None, None, None]
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return signal * clean + sigma * noise, signal * noise - sigma * clean

    def _identity_tokens(self, encoder: IdentityEncoder | None, rows: LatentPool) -> tuple[Tensor | None, Tensor]:
        """Tokens of a batch, and how far they run away."""
        if encoder is None:
            return None, rows.identity.new_zeros(())
        described = self.described(encoder, rows)
        runaway = described.new_zeros(()) if encoder.population is None else drift(described)
        return encoder.centred(described), runaway

    def described(self, encoder: IdentityEncoder, rows: LatentPool) -> Tensor:
        """Tokens of a batch before what people have in common is taken out."""
        identity = rows.identity.float()
        identity = identity + self.shape_noise * torch.randn(
            identity.shape, generator=self.generator, device=identity.device
        )
        with torch.autocast(identity.device.type, enabled=False):
            tokens: Tensor = encoder.describe(rows.face_tokens.float(), self.head.neutral(identity))
        return tokens

    @torch.no_grad()
    def measure_population(self, encoder: IdentityEncoder, batches: int = 16) -> None:
        """Measure what people have in common with the encoder's final weights, over many of them."""
        if encoder.population is not None:
            tokens = [self.described(encoder, self._rows()) for _ in range(batches)]
            encoder.population.measure(torch.cat(tokens))

    def _integers(self, limit: int) -> Tensor:
        return torch.randint(limit, (self.batch_size,), generator=self.generator, device=self.generator.device)

    def _keep(self, drop: float) -> Tensor:
        drawn = torch.rand(self.batch_size, generator=self.generator, device=self.generator.device)
        return (drawn >= drop).float()
