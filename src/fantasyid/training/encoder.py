"""Teaching the identity encoder people before the video model meets it: paint the face, give the shape, tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from fantasyid.data.precompute import ClipPool
from fantasyid.face.align import FACE_SIZE
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.qformer import QFormerLayer
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.face import disturb
from fantasyid.training.trainer import Losses
from fantasyid.training.vae import edge_loss
from fantasyid.training.video import token_spread

_PATCH = 8
_CODE = 128


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

    def forward(self, faces: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Describe people and answer.

        Args:
            faces: (B, 3, 96, 96) in [-1, 1].
            vertices: Neutral heads (B, N, 3) in cm.

        Returns:
            Embedding of the vision model, identity tokens, the painted frontal face (B, 3, 96, 96), offsets of the
            coarse vertices from the mean head in cm, and a unit code of the tokens.
        """
        seen = self.vision(faces)
        with torch.autocast(faces.device.type, enabled=False):
            tokens = self.encoder(seen.tokens.float(), vertices)
        queries = repeat(self.queries, "1 n c -> b n c", b=len(faces))
        for layer in self.painter:
            queries = layer(queries, tokens)
        patches = self.to_pixels(queries)
        side = FACE_SIZE // _PATCH
        painted = rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=side, w=side, p=_PATCH, q=_PATCH)
        code = F.normalize(self.to_code(tokens).mean(dim=1), dim=-1)
        return seen.embedding, tokens, painted, self.to_offset(tokens), code


@dataclass(frozen=True)
class EncoderObjective:
    """Two views of each person are painted as one frontal, neutral face, and lie closer than other people's.

    Attributes:
        pools: Rendered clips; the reference's face and that of a frame are the views.
        head: Head model, for the vertices of known shapes.
        batch_size: People a step.
        generator: Of the batches, on the device.
        rng: Of what disturbs the pictures.
        temperature: Of the softmax over people.
        contrast_weight: Of telling people apart, by the vision model's embedding and by the tokens.
        shape_weight: Of the error of the coarse vertices, in cm.
        shape_noise: Standard deviation added to the known head shape, about the error of reading it from a photo.
    """

    pools: Sequence[ClipPool]
    head: HeadModel
    batch_size: int
    generator: torch.Generator
    rng: np.random.Generator
    temperature: float = 0.07
    contrast_weight: float = 0.1
    shape_weight: float = 0.5
    shape_noise: float = 0.2

    def __post_init__(self) -> None:
        device = self.generator.device

        def together(name: str) -> Tensor:
            return torch.cat([torch.from_numpy(getattr(pool, name)[:]) for pool in self.pools]).to(device)

        names = ("face", "frame_face", "neutral_face", "identity")
        object.__setattr__(self, "_rows", {name: together(name) for name in names})

    def __call__(self, model: TaughtEncoder) -> Losses:
        """Losses of one batch."""
        rows, device = self._rows, self.generator.device  # type: ignore[attr-defined]
        count = len(rows["identity"])
        people = torch.randint(count, (self.batch_size,), generator=self.generator, device=device)
        views = torch.cat([rows["face"][people], rows["frame_face"][people]])
        identity = rows["identity"][people].float()
        target = rows["neutral_face"][people].float() / 127.5 - 1
        noise = torch.randn((2, *identity.shape), generator=self.generator, device=device)
        neutral = torch.zeros(2 * self.batch_size, self.head.expression_basis.shape[0], device=device)
        vertices = self.head.shape((identity + self.shape_noise * noise).flatten(0, 1), neutral)
        faces = disturb(views.float() / 255, self.rng) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16):
            embedding, tokens, painted, offset, code = model(faces, vertices)
        target = target.repeat(2, 1, 1, 1)
        paint = (painted.float() - target).abs().mean() + edge_loss(painted.float(), target)
        apart, rank1 = self._contrast(embedding.float())
        apart_tokens, rank1_tokens = self._contrast(code.float())
        truth = self._coarse_offsets(model.encoder, identity)
        shape = (offset.float() - truth.repeat(2, 1, 1)).norm(dim=-1).mean()
        loss = paint + self.contrast_weight * (apart + apart_tokens) + self.shape_weight * shape
        reports = {"paint": paint, "shape_cm": shape, "rank1": rank1, "rank1_tokens": rank1_tokens}
        return {"loss": loss, **reports, "token_spread": token_spread(tokens.detach())}

    def _contrast(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        first, second = codes.chunk(2)
        scores = first @ second.T / self.temperature
        label = torch.arange(len(scores), device=scores.device)
        loss = (F.cross_entropy(scores, label) + F.cross_entropy(scores.T, label)) / 2
        return loss, (scores.argmax(1) == label).float().mean()

    def _coarse_offsets(self, encoder: IdentityEncoder, identity: Tensor) -> Tensor:
        """Offsets of the coarse vertices from the mean head, (B, N_last, 3) cm."""
        assert encoder.vertex_encoder is not None
        neutral = torch.zeros(len(identity), self.head.expression_basis.shape[0], device=identity.device)
        with torch.no_grad():
            heads = torch.cat([self.head.shape(identity, neutral), self.head.mean[None]])
            coarse = encoder.vertex_encoder.coarse_vertices(heads)
        return coarse[:-1] - coarse[-1:]
