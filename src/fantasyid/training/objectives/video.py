"""Objective of the video model: v-prediction (paper 4.1) on clips or pairs of frames, with identity or without."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor, nn

from fantasyid.conditioning.latents import offset, padding_frames, rotary_embedding, takes_reference, with_reference
from fantasyid.core.seeds import seed_of
from fantasyid.data.precompute import LatentPool
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.population_norm import drift
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.chance import clips_at
from fantasyid.training.clips import Clips
from fantasyid.training.trainer import BatchPart, Losses

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


@dataclass(frozen=True, eq=False)
class Draws:
    """What chance decides of B samples, each one's in a row of its own: processes that share a batch draw all of it.

    Attributes:
        noise: (B, T, C, h, w), T with padding.
        timesteps: (B,) int64.
        shape_noise: (B, K), standard deviation 1.
        view: (B,) in [0, 1), which of a clip's views is shown.
        noised: (B,) in [0, 1), which of the view's noised references is shown; negative for the clean one.
        keep_text: (B,) 1, or 0 for the empty prompt.
        keep_reference: (B,) 1, or 0 without the reference latent.
        keep_identity: (B,) 1, or 0 without identity tokens.
        keep_any: (B,) 0 for samples with none of the three; the three are 0 there too.
    """

    noise: Tensor
    timesteps: Tensor
    shape_noise: Tensor
    view: Tensor
    keep_text: Tensor
    keep_reference: Tensor
    keep_identity: Tensor
    keep_any: Tensor
    noised: Tensor

    def rows(self, part: slice) -> "Draws":
        """Some samples'."""
        return Draws(**{drawn.name: getattr(self, drawn.name)[part] for drawn in fields(self)})


@dataclass(frozen=True, eq=False)
class VideoObjective:
    """Noises clips and measures the predicted velocity.

    Which clips a step shows, in which order, and all that is drawn for them are functions of the seed and the step.

    Attributes:
        clips: Encoded clips of one size; they may lie on another device than the model.
        scheduler: Noise levels, on the model's device; v-prediction.
        head: Head model, for the vertices of known shapes.
        batch_size: Samples a step, of all its parts together.
        seed: Of the order of clips, noise, times, views and drops.
        device: Where noise is drawn: the model's.
        drop_text: Share of samples with the empty prompt (paper: 0.1).
        drop_reference: Share of samples without the reference latent, for a base that takes one.
        noised_reference: Share of samples whose reference was noised before it was encoded.
        drop_identity: Share of samples without identity tokens.
        drop_all: Share of samples with none of the three, for guidance.
        views: Which of a clip's views the person is shown by; `"first"` is the ablation "w/o MFC".
        shape_noise: Standard deviation added to the known coefficients, about the error of reading them from a photo.
        drift_weight: Of what keeps the tokens of an encoder with `centre` from running away.
        precision: What the transformer computes in.
    """

    clips: Clips
    scheduler: CogVideoXDDIMScheduler
    head: HeadModel
    batch_size: int
    seed: int
    device: torch.device
    drop_text: float = 0.1
    drop_reference: float = 0.1
    noised_reference: float = 0.0
    drop_identity: float = 0.1
    drop_all: float = 0.05
    views: Literal["any", "first"] = "any"
    shape_noise: float = 0.2
    drift_weight: float = 0.01
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    _rotary: dict[tuple[int, int, int], tuple[Tensor, Tensor] | None] = field(
        default_factory=dict, init=False, repr=False
    )

    def __call__(self, model: VideoModel, part: BatchPart) -> Losses:
        """Losses of a part of a step's batch."""
        draws = self.draw(model.transformer, part.step).rows(part.rows(self.batch_size))
        return self.measure(model, self._shown(part, draws), draws)

    def explain(self, step: int) -> dict[str, Any]:
        """Which clips a step shows, by their numbers, in the order of its batch."""
        return {"clips": self.numbers(step).tolist()}

    def numbers(self, step: int) -> Tensor:
        """Which clips a step shows (batch_size,), on the clips' device."""
        return clips_at(self.seed, step * self.batch_size, self.batch_size, len(self.clips), self.clips.device)

    def draw(self, transformer: FantasyIDTransformer3DModel, step: int) -> Draws:
        """What chance decides of a step's whole batch.

        Args:
            transformer: The model's.
            step: From 0.
        """
        rows = self.clips.rows(torch.zeros(0, dtype=torch.int64, device=self.clips.device))  # for their size
        generator = torch.Generator(self.device).manual_seed(seed_of("draws", self.seed, step))
        batch, identity = self.batch_size, rows.identity
        frames, *picture = rows.clips.shape[1:]
        frames += padding_frames(transformer.config, frames)
        on: dict[str, Any] = {"generator": generator, "device": self.device}

        def keep(drop: float) -> Tensor:
            return (torch.rand(batch, **on) >= drop).float()

        noise = torch.randn((batch, frames, *picture), **on)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (batch,), **on)
        keep_any = keep(self.drop_all)
        return Draws(
            noise=noise,
            timesteps=timesteps,
            shape_noise=torch.randn((batch, identity.shape[1] if identity.ndim == 2 else 0), **on),
            view=torch.rand(batch, **on) * (self.views == "any"),
            keep_text=keep_any * keep(self.drop_text),
            keep_reference=keep_any * keep(self.drop_reference),
            keep_identity=keep_any * keep(self.drop_identity),
            keep_any=keep_any,
            noised=torch.rand(batch, **on).where(keep(self.noised_reference) == 0, -1.0),
        )

    def measure(self, model: VideoModel, rows: LatentPool, draws: Draws) -> Losses:
        """Losses of clips, of one view each, with what was drawn for them."""
        error, runaway = self.errors(model, rows, draws)
        losses = {"loss": error.mean() + self.drift_weight * runaway, "drift": runaway}
        if takes_reference(model.transformer.config):
            kept = {"with": draws.keep_reference, "without": draws.keep_any * (1 - draws.keep_reference)}
            losses |= {f"{name}_reference": torch.stack([(error * k).sum(), k.sum()]) for name, k in kept.items()}
        return losses

    @torch.no_grad()
    def samples(self, model: VideoModel, part: BatchPart) -> list[dict[str, Any]]:
        """Of each sample of a part of a step's batch: the clip's number, its noise's time, what it kept, its loss."""
        mine = part.rows(self.batch_size)
        draws = self.draw(model.transformer, part.step).rows(mine)
        error, _ = self.errors(model, self._shown(part, draws), draws)
        columns = {"clip": self.numbers(part.step)[mine], "timestep": draws.timesteps, "loss": error}
        columns |= {name: getattr(draws, name) > 0 for name in ("keep_text", "keep_reference", "keep_identity")}
        lists = {name: column.tolist() for name, column in columns.items()}
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]

    def errors(self, model: VideoModel, rows: LatentPool, draws: Draws) -> tuple[Tensor, Tensor]:
        """Each sample's squared error (B,), and how far the tokens run away; the clips are of one view each."""
        transformer, timesteps = model.transformer, draws.timesteps
        clean = rows.clips.float()
        padding = padding_frames(transformer.config, clean.shape[1])
        clean = torch.cat([clean[:, :1].expand(-1, padding, -1, -1, -1), clean], dim=1)
        noisy, velocity = self._diffuse(clean, draws.noise, timesteps)
        text = torch.where(draws.keep_text[:, None, None] > 0, rows.text.float(), rows.null_text.float())
        reference = rows.reference.float() * draws.keep_reference[:, None, None, None, None]
        _, frames, _, height, width = clean.shape
        # Each weight is used once, so casts are not kept: of a model that is shared out they would be all of it.
        with torch.autocast(clean.device.type, torch.bfloat16, self.precision == "bfloat16", cache_enabled=False):
            tokens, runaway = self._identity_tokens(model.identity_encoder, rows, draws.shape_noise)
            predicted = transformer(
                with_reference(transformer.config, noisy, reference),
                text,
                timesteps,
                ofs=offset(transformer.config, noisy),
                image_rotary_emb=self._rotary_of(transformer, (frames, height, width)),
                identity_tokens=tokens,
                identity_scale=1.0 if tokens is None else draws.keep_identity,
                return_dict=False,
            )[0]
        return (predicted.float() - velocity).square().mean((1, 2, 3, 4)), runaway

    def _shown(self, part: BatchPart, draws: Draws) -> LatentPool:
        """The clips of a part of a step's batch, on the model's device, as drawn for them."""
        numbers = self.numbers(part.step)[part.rows(self.batch_size)]
        view, noised = draws.view.to(numbers.device), draws.noised.to(numbers.device)
        return self.clips.shown(numbers, view, noised).to(self.device)

    def _rotary_of(
        self, transformer: FantasyIDTransformer3DModel, size: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor] | None:
        """The positions' code of a grid of latents, computed once: it takes many small kernels."""
        if size not in self._rotary:
            self._rotary[size] = rotary_embedding(transformer.config, *size, device=self.device)
        return self._rotary[size]

    def _diffuse(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.scheduler.alphas_cumprod[timesteps].to(clean)[:, None, None, None, None]
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return signal * clean + sigma * noise, signal * noise - sigma * clean

    def _identity_tokens(
        self, encoder: IdentityEncoder | None, rows: LatentPool, shape_noise: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Tokens of a batch, and how far they run away."""
        if encoder is None:
            return None, shape_noise.new_zeros(())
        described = self.described(encoder, rows, shape_noise)
        runaway = described.new_zeros(()) if encoder.population is None else drift(described)
        return encoder.centred(described), runaway

    def described(self, encoder: IdentityEncoder, rows: LatentPool, shape_noise: Tensor) -> Tensor:
        """Tokens of a batch before what people have in common is taken out."""
        shape = rows.identity.float()
        with torch.autocast(shape.device.type, enabled=False):
            # Coefficients of the built-in head, or the vertices of another one as its reconstructor read them.
            vertices = shape if shape.ndim == 3 else self.head.neutral(shape + self.shape_noise * shape_noise)
            tokens: Tensor = encoder.describe(rows.face_tokens.float(), vertices)
        return tokens

    @torch.no_grad()
    def measure_population(self, model: VideoModel, first_step: int, batches: int = 16) -> None:
        """Measure what people have in common with the encoder's final weights, over the batches of steps to come."""
        encoder = model.identity_encoder
        if encoder is None or encoder.population is None:
            return
        tokens = []
        for step in range(first_step, first_step + batches):
            draws = self.draw(model.transformer, step)
            tokens.append(self.described(encoder, self._shown(BatchPart(step), draws), draws.shape_noise))
        encoder.population.measure(torch.cat(tokens))
