"""Reading a face: the objective of the face reader (paper 3.3, in the role of DECA's encoder)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from fantasyid.data.face_views import FaceViews
from fantasyid.data.repose.rig import CANVAS, RigSet
from fantasyid.face.align import (
    READER_SIZE,
    jittered_reader_transform,
    reader_transform,
    square_transform,
    tilt_deg,
    transform_points,
    warp,
)
from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.projection import euler_degrees
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.training.objectives.vision import augment
from fantasyid.training.trainer import Losses


@dataclass(frozen=True)
class _Crops:
    """B crops and what is known of them; the first half and the second half show the same people in the same order."""

    pictures: Tensor
    landmarks: Tensor
    identity: Tensor
    expression: Tensor
    pose_deg: Tensor


@dataclass(frozen=True)
class ReaderObjective:
    """Landmarks, shape, expression and pose of rendered and real crops; faces against other pictures.

    The shape is asked for in two ways: near the known one, in cm over the face, and nearer to the same person's in
    another photo than to anyone else's (InfoNCE on the cosine of the coefficients and on the distance in cm).

    Attributes:
        views: Rendered crops with known answers.
        rigs: Photos; landmarks were detected in them, shape, expression and pose fitted to those.
        head: The head model, on the views' device.
        batch_size: Crops of faces a step; a multiple of 2.
        rng: Of the batches.
        real_share: Share of crops that are photos.
        other_share: Crops that show no face, over `batch_size`.
        real_weight: Weight of fitted shape, expression and pose, which are estimates, against known ones.
        temperature: Of the InfoNCE softmax over cosines.
        near: Distance over the face, measured by the batch's mean distance, at which the InfoNCE softmax over distances
            falls by a factor of e. Not in cm, because exaggerated shapes would lower the loss then.
        identity_weight: Weight of the shape's distance in cm.
        prior_weight: Weight of the mean square of the coefficients' error, which decides what the face does not show.
        contrast_weight: Weight of the InfoNCE term.
        expression_weight: Weight of the expression's distance in cm.
        pose_weight: Weight of the angles' error in units of 10 degrees.
        confidence_weight: Weight of the cross entropy of the confidence.
    """

    views: FaceViews
    rigs: RigSet
    head: HeadModel
    batch_size: int
    rng: np.random.Generator
    real_share: float = 0.25
    other_share: float = 0.125
    real_weight: float = 0.3
    temperature: float = 0.1
    near: float = 0.35
    identity_weight: float = 6.0
    prior_weight: float = 0.1
    contrast_weight: float = 0.3
    expression_weight: float = 4.0
    pose_weight: float = 1.0
    confidence_weight: float = 0.3

    def __call__(self, model: FaceReaderModel) -> Losses:
        """Losses of one batch; lengths in percent of the crop, cm and degrees."""
        num_real = int(self.batch_size * self.real_share) // 2 * 2
        crops = _join(self._rendered(self.batch_size - num_real), self._real(num_real))
        others = self._other_pictures(int(self.batch_size * self.other_share))
        pictures = degrade(augment(torch.cat([crops.pictures, others]), self.rng), self.rng)
        with torch.autocast(model.device.type, torch.bfloat16):
            reading = model(pictures * 2 - 1)
        faces = len(crops.pictures)
        known = torch.ones(faces, device=model.device)
        known[self._is_real(faces, num_real)] = self.real_weight
        total = known.sum()

        difference = (reading.landmarks[:faces].float() - crops.landmarks).abs()
        flat, depth = difference[..., :2].mean(), difference[..., 2].mean()
        offset = reading.identity[:faces].float() - crops.identity
        identity_cm = _length_cm(offset, self._identity_gram)
        expression = reading.expression[:faces].float() - crops.expression
        expression_cm = _length_cm(expression, self._expression_gram)
        angles = F.smooth_l1_loss(reading.pose_deg[:faces].float() / 10, crops.pose_deg / 10, reduction="none").mean(-1)
        contrast, rank1 = self._contrast(reading.identity[:faces].float(), crops.identity)
        is_face = torch.arange(len(pictures), device=model.device) < faces
        confidence = F.binary_cross_entropy_with_logits(reading.confidence.float(), is_face.float())
        shape = (known * identity_cm).sum() / total
        loss = (
            100 * (flat + 0.3 * depth)
            + self.identity_weight * shape
            + self.prior_weight * (known * offset.square().mean(-1)).sum() / total
            + self.contrast_weight * contrast
            + self.expression_weight * (known * expression_cm).sum() / total
            + self.pose_weight * (known * angles).sum() / total
            + self.confidence_weight * confidence
        )
        return {
            "loss": loss,
            "xy_percent": 100 * flat,
            "identity_cm": shape,
            "expression_cm": (known * expression_cm).sum() / total,
            "pose_deg": (reading.pose_deg[:faces].float() - crops.pose_deg).abs().mean(),
            "contrast": contrast,
            "rank1": rank1,
            "confidence": confidence,
        }

    @cached_property
    def _identity_gram(self) -> Tensor:
        return _gram(self.head.identity_basis, self.head)

    @cached_property
    def _expression_gram(self) -> Tensor:
        return _gram(self.head.expression_basis, self.head)

    def _contrast(self, identity: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """InfoNCE between the halves of (B, K) coefficients, and how often the nearest is the same person."""
        first, second = F.normalize(identity, dim=-1).chunk(2)
        in_cm = torch.linalg.cholesky(self._identity_gram)
        placed = identity @ in_cm
        distance = torch.cdist(placed[: len(first)], placed[len(first) :])
        distance = distance / distance.mean()
        label = torch.arange(len(first), device=identity.device)
        # A person drawn twice is no other person.
        exact = "donot_use_mm_for_euclid_dist"  # by products, equal coefficients would seem up to 0.007 apart
        twice = torch.cdist(known[: len(first)], known[len(first) :], compute_mode=exact) < 1e-3
        twice = twice & (label[:, None] != label)
        losses = []
        for scores in (first @ second.T / self.temperature, -((distance / self.near) ** 2)):
            scores = scores.masked_fill(twice, -torch.inf)
            losses += [F.cross_entropy(scores, label), F.cross_entropy(scores.T, label)]
        nearest = (first @ second.T).masked_fill(twice, -torch.inf).argmax(1)
        return torch.stack(losses).mean(), (nearest == label).float().mean()

    def _is_real(self, faces: int, num_real: int) -> Tensor:
        """Where photos stand among the crops: at the end of each half."""
        place = torch.arange(faces, device=self.views.crops.device) % (faces // 2)
        return place >= (faces - num_real) // 2

    def _rendered(self, count: int) -> _Crops:
        """Two views of each of `count / 2` people, one from either photo."""
        views, device = self.views, self.views.crops.device
        people = torch.from_numpy(self.rng.choice(len(views), count // 2, replace=False)).to(device)
        half = views.crops.shape[1] // 2
        picked = [torch.from_numpy(self.rng.integers(0, half, count // 2)).to(device) + side * half for side in (0, 1)]

        def gather(values: Tensor) -> Tensor:
            return torch.cat([values[people, view].float() for view in picked])

        identity = repeat(views.identity[people], "m k -> (s m) k", s=2)
        crops = (gather(views.crops) / 255, gather(views.landmarks))
        return _Crops(*crops, identity, gather(views.expression), gather(views.pose_deg))

    def _real(self, count: int) -> _Crops:
        """Photos of `count / 2` people, half of them with two photos, cut twice."""
        rigs, device = self.rigs, self.rigs.image.device
        two = np.flatnonzero((rigs.other != torch.arange(len(rigs), device=device)).cpu().numpy())
        first = self.rng.choice(len(rigs), count // 2, replace=False)
        if len(two):
            first[: count // 4] = self.rng.choice(two, count // 4, replace=len(two) < count // 4)
        photo = torch.from_numpy(first).to(device)
        photo = torch.cat([photo, rigs.other[photo]])
        points = rigs.landmarks[photo] + rigs.landmarks.new_tensor([0.5, 0.5, 0.0])
        affine = jittered_reader_transform(points[..., :2])
        yaw, pitch, roll = euler_degrees(rigs.rotation[photo])
        return _Crops(
            pictures=warp(rigs.image[photo].float() / 255, affine, READER_SIZE),
            landmarks=transform_points(points, affine, 1),
            identity=rigs.identity[photo],
            expression=rigs.expression[photo],
            pose_deg=torch.stack([yaw, pitch, roll + tilt_deg(affine)], -1),
        )

    def _other_pictures(self, count: int) -> Tensor:
        """Crops of photos that miss the middle of the face or show a small piece of it."""
        rigs, device = self.rigs, self.rigs.image.device
        photo = torch.from_numpy(self.rng.choice(len(rigs), count)).to(device)
        exact = reader_transform(rigs.landmarks[photo][..., :2] + 0.5)
        face_side = exact[:, :, 0].norm(dim=1)
        face_centre = exact[:, :, 2] + exact[:, :, :2].sum(-1) / 2
        # Pieces lie in the face; misses have any size and lie at least 0.45 sides away from its middle.
        piece = torch.rand(count, device=device) < 0.4
        size = torch.rand(count, device=device)
        size = torch.where(piece, 0.25 * size + 0.12, size + 0.2)
        angle = torch.rand(count, device=device) * 2 * torch.pi
        reach = torch.rand(count, device=device)
        away = torch.where(piece, 0.35 * reach, (0.45 + 0.6 * reach) * size.clamp(min=0.9))
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        centre = face_centre + direction * (away * face_side)[:, None]
        inside = (centre > 0.05 * CANVAS).all(-1) & (centre < 0.95 * CANVAS).all(-1)
        centre = torch.where(inside[:, None], centre, torch.full_like(centre, 0.06 * CANVAS))
        tilt = torch.randn(count, device=device) * 0.3
        return warp(rigs.image[photo].float() / 255, square_transform(centre, size * face_side, tilt), READER_SIZE)


def mean_landmarks(rigs: RigSet) -> Tensor:
    """Mean landmarks (478, 3) of the photos in units of the reading crop."""
    points = rigs.landmarks + rigs.landmarks.new_tensor([0.5, 0.5, 0.0])
    return transform_points(points, reader_transform(points[..., :2]), 1).mean(0)


def degrade(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Show pictures (B, 3, H, W) in [0, 1] as worse cameras do: coarse, too dark or bright, partly covered."""
    batch, _, height, width = pictures.shape
    device = pictures.device

    def some(probability: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1, device=device) < probability

    coarse = F.interpolate(pictures, scale_factor=float(rng.uniform(0.25, 0.7)), mode="area")
    coarse = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    out = torch.where(some(0.3), coarse, pictures)
    gamma = torch.exp(0.35 * torch.randn(batch, 1, 1, 1, device=device))
    out = torch.where(some(0.3), out.clamp(min=1e-4) ** gamma, out)
    rows, columns = (torch.arange(size, device=device) / size for size in (height, width))
    middle = torch.rand(2, batch, 1, 1, 1, device=device)
    reach = 0.05 + 0.12 * torch.rand(2, batch, 1, 1, 1, device=device)
    patch = ((rows[:, None] - middle[0]).abs() < reach[0]) & ((columns - middle[1]).abs() < reach[1])
    return torch.where(patch & some(0.25), torch.rand(batch, 3, 1, 1, device=device), out)


def _gram(basis: Tensor, head: HeadModel) -> Tensor:
    """(K, K) matrix of the mean square displacement of the face's vertices, in cm^2."""
    face = basis[:, head.parts == PART_NAMES.index("face")].flatten(1)
    return 3 * face @ face.T / face.shape[1]


def _length_cm(coefficients: Tensor, gram: Tensor) -> Tensor:
    """Root mean square displacement (B,) of the face's vertices that coefficients (B, K) of a basis stand for."""
    squared = torch.einsum("bj,jk,bk->b", coefficients, gram, coefficients)
    return (squared + 1e-8).sqrt()


def _join(first: _Crops, second: _Crops) -> _Crops:
    """Half by half, so that halves still correspond."""

    def halves(name: str) -> Tensor:
        parts = [rearrange(getattr(crops, name), "(s b) ... -> s b ...", s=2) for crops in (first, second)]
        return rearrange(torch.cat(parts, 1), "s b ... -> (s b) ...")

    return _Crops(**{name: halves(name) for name in _Crops.__dataclass_fields__})
