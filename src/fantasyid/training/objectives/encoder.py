"""Teaching the identity encoder people before the video model meets it: paint the face, give the shape, tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from fantasyid.data.precompute import ClipPool
from fantasyid.face.align import FACE_SIZE
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.population_norm import drift, token_spread
from fantasyid.models.qformer import QFormerLayer
from fantasyid.models.spiral import SpiralEncoder
from fantasyid.models.vision import FaceVisionModel, FaceVisionOutput
from fantasyid.training.objectives.vae import edge_loss
from fantasyid.training.objectives.vision import augment, info_nce
from fantasyid.training.trainer import Losses

_PATCH = 8
_CODE = 128


@dataclass(frozen=True)
class Answers:
    """What `TaughtEncoder` says of people.

    Attributes:
        embedding: (B, D) unit embedding of the vision model.
        described: (B, N, C) identity tokens before what people have in common is taken out.
        painted: (B, 3, 96, 96) the face from the front, without expression.
        offsets: (B, N, 3) of the coarse vertices from the mean head in cm.
        code: (B, K) unit code of the tokens.
    """

    embedding: Tensor
    described: Tensor
    painted: Tensor
    offsets: Tensor
    code: Tensor


class TaughtEncoder(nn.Module):
    """Face vision and identity encoder, with what asks them questions and is thrown away afterwards.

    Args:
        vision: The face vision model.
        encoder: The identity encoder.
        width: Of the painter.
        num_layers: Of the painter.
    """

    def __init__(
        self, vision: FaceVisionModel, encoder: IdentityEncoder, width: int = 192, num_layers: int = 3
    ) -> None:
        super().__init__()
        self.vision, self.encoder = vision, encoder
        token_dim, side = encoder.config.token_dim, FACE_SIZE // _PATCH
        self.queries = nn.Parameter(0.02 * torch.randn(1, side * side, width))
        self.painter = nn.ModuleList([QFormerLayer(width, token_dim, width // 64) for _ in range(num_layers)])
        self.to_pixels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * _PATCH * _PATCH))
        self.to_offset = nn.Linear(token_dim, 3)
        self.to_code = nn.Linear(token_dim, _CODE)

    def describe(self, faces: Tensor, vertices: Tensor) -> tuple[FaceVisionOutput, Tensor]:
        """What is seen, and the identity tokens before what people have in common is taken out; as in `forward`."""
        seen = self.vision(faces)
        with torch.autocast(faces.device.type, enabled=False):
            return seen, self.encoder.describe(seen.tokens.float(), vertices)

    def forward(self, faces: Tensor, vertices: Tensor) -> Answers:
        """Describe people and answer.

        Args:
            faces: (B, 3, 96, 96) in [-1, 1].
            vertices: Neutral heads (B, N, 3) in cm.

        Returns:
            What is known of them.
        """
        seen, described = self.describe(faces, vertices)
        tokens = self.encoder.centred(described)
        queries = repeat(self.queries, "1 n c -> b n c", b=len(faces))
        for layer in self.painter:
            queries = layer(queries, tokens)
        patches = self.to_pixels(queries)
        side = FACE_SIZE // _PATCH
        painted = rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=side, w=side, p=_PATCH, q=_PATCH)
        code = F.normalize(self.to_code(tokens).mean(dim=1), dim=-1)
        return Answers(seen.embedding, described, painted, self.to_offset(tokens), code)


@dataclass(frozen=True)
class EncoderObjective:
    """Two views of each person are painted as one frontal, neutral face, and lie closer than other people's.

    Attributes:
        pools: Rendered clips; the reference's face and that of a frame are the views.
        head: Head model, for the vertices of known shapes.
        batch_size: People a step.
        rng: Of the batches.
        temperature: Of the softmax over people.
        contrast_weight: Of telling people apart, by the vision model's embedding and by the tokens.
        shape_weight: Of the error of the coarse vertices, in cm.
        shape_noise: Standard deviation added to the known head shape, about the error of reading it from a photo.
        drift_weight: Of what keeps the tokens from running away.
    """

    pools: Sequence[ClipPool]
    head: HeadModel
    batch_size: int
    rng: np.random.Generator
    temperature: float = 0.07
    contrast_weight: float = 0.1
    shape_weight: float = 0.5
    shape_noise: float = 0.2
    drift_weight: float = 0.01

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        """What is read of all pools, on the device."""

        def together(name: str) -> Tensor:
            parts = [torch.from_numpy(np.array(getattr(pool, name))) for pool in self.pools]
            return torch.cat(parts).to(self.head.mean.device)

        return {name: together(name) for name in ("face", "frame_face", "neutral_face", "identity")}

    def __call__(self, model: TaughtEncoder) -> Losses:
        """Losses of one batch."""
        faces, vertices, identity, target = self._batch()
        with torch.autocast(faces.device.type, torch.bfloat16):
            answers = model(faces, vertices)
        target, painted = target.repeat(2, 1, 1, 1), answers.painted.float()
        paint = (painted - target).abs().mean() + edge_loss(painted, target)
        apart, rank1 = info_nce(answers.embedding.float(), self.temperature)
        apart_tokens, rank1_tokens = info_nce(answers.code.float(), self.temperature)
        loss = paint + self.contrast_weight * (apart + apart_tokens) + self.drift_weight * drift(answers.described)
        reports = {"paint": paint, "rank1": rank1, "rank1_tokens": rank1_tokens}
        if model.encoder.vertex_encoder is not None:
            truth = self._coarse_offsets(model.encoder.vertex_encoder, identity).repeat(2, 1, 1)
            reports["shape_cm"] = (answers.offsets.float() - truth).norm(dim=-1).mean()
            loss = loss + self.shape_weight * reports["shape_cm"]
        return {"loss": loss, **reports, "token_spread": token_spread(answers.described.detach())}

    @torch.no_grad()
    def measure_population(self, model: TaughtEncoder, batches: int = 8) -> None:
        """Measure what people have in common with the encoder's final weights, over many of them."""
        if model.encoder.population is None:
            return
        described = []
        for _ in range(batches):
            faces, vertices, _, _ = self._batch()
            described.append(model.describe(faces, vertices)[1])
        model.encoder.population.measure(torch.cat(described))

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two views of each person (2 B, 3, 96, 96), heads (2 B, N, 3), shapes (B, K) and what to paint."""
        rows = self._rows
        people = torch.from_numpy(self.rng.integers(0, len(rows["identity"]), self.batch_size))
        people = people.to(self.head.mean.device)
        views = torch.cat([rows["face"][people], rows["frame_face"][people]])
        identity = rows["identity"][people].float()
        noise = torch.randn((2, *identity.shape), device=identity.device)
        vertices = self.head.neutral((identity + self.shape_noise * noise).flatten(0, 1))
        faces = augment(views.float() / 255, self.rng) * 2 - 1
        return faces, vertices, identity, rows["neutral_face"][people].float() / 127.5 - 1

    def _coarse_offsets(self, encoder: SpiralEncoder, identity: Tensor) -> Tensor:
        """Offsets of the coarse vertices from the mean head, (B, N_last, 3) cm."""
        with torch.no_grad():
            heads = torch.cat([self.head.neutral(identity), self.head.mean[None]])
            coarse = encoder.coarse_vertices(heads)
        return coarse[:-1] - coarse[-1:]
