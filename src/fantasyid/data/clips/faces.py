"""Faces through a shot: a detector finds them now and then, the face reader follows them from frame to frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.imaging import to_tensor
from fantasyid.data.clips.boxes import Box, overlap
from fantasyid.face.align import face_transform, warp
from fantasyid.face.interface import FaceDetector
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.part import PhotoPart
from fantasyid.models.vision import FaceVisionModel

SAME_FACE_OVERLAP = 0.3
_FACE_CONFIDENCE = 0.5
_SURE_CONFIDENCE = 0.9
# A crop around a face that moves by its own width is still within so many longer sides of its landmarks' box.
_SEEN_AROUND = 1.0
_SHARPNESS_SIZE = 96


@dataclass(frozen=True, eq=False)
class SeenFace:
    """A face in one frame.

    Attributes:
        track: Number of the face in its shot.
        landmarks: (478,3) pixels of the frame.
        confidence: How surely it is a face, 0 to 1.
        sharpness: Variance of the Laplacian of the face at 96 pixels.
        embedding: (D,) of the person, unit length; None in frames in which nobody was looked for.
    """

    track: int
    landmarks: Tensor
    confidence: float
    sharpness: float
    embedding: Tensor | None

    @property
    def box(self) -> Box:
        """Around the landmarks, xyxy pixels."""
        left, top = self.landmarks[:, :2].amin(dim=0).tolist()
        right, bottom = self.landmarks[:, :2].amax(dim=0).tolist()
        return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class FaceNetworks:
    """What reads faces of frames.

    Attributes:
        detector: Finds them.
        landmarks: Finds landmarks, and says how surely there is a face.
        vision: Tells whether the person is still the same.
    """

    detector: FaceDetector
    landmarks: LandmarkReader
    vision: FaceVisionModel


@dataclass
class FaceTracker:
    """Follows the faces of one shot.

    Attributes:
        networks: What reads faces.
        detect_every: Frames from one detection to the next; it is detected, too, where a face became unsure.
    """

    networks: FaceNetworks
    detect_every: int
    _last: dict[int, SeenFace] = field(default_factory=dict)
    _lost: dict[int, SeenFace] = field(default_factory=dict)
    _count: int = 0
    _next_track: int = 0

    def step(self, frame: NDArray[np.uint8]) -> tuple[SeenFace, ...]:
        """See the next frame.

        Args:
            frame: RGB (H,W,3).

        Returns:
            Its faces, those known longest first.
        """
        looks = self._count % self.detect_every == 0
        self._count += 1
        seen: dict[int, SeenFace] = {}
        for track, before in self._last.items():
            landmarks, confidence = self._follow(frame, before.landmarks)
            face = self._face(frame, track, landmarks, confidence, looks)
            if confidence >= _FACE_CONFIDENCE and not _is_among(face, seen):
                seen[track] = face
            else:
                self._lost[track] = before
        if looks or any(track not in seen or seen[track].confidence < _SURE_CONFIDENCE for track in self._last):
            for face in self._new(frame, seen):
                seen[face.track] = face
        self._last = seen
        return tuple(seen.values())

    def _new(self, frame: NDArray[np.uint8], seen: dict[int, SeenFace]) -> Iterator[SeenFace]:
        """Faces that the detector finds where none is followed; one that was lost there goes on."""
        for found in self.networks.detector.detect(frame):
            if any(overlap(found.box, face.box) >= SAME_FACE_OVERLAP for face in seen.values()):
                continue
            landmarks, confidence = self._read(frame, found.box)
            if confidence < _FACE_CONFIDENCE:
                continue
            face = self._face(frame, self._next_track, landmarks, confidence, True)
            if _is_among(face, seen):
                continue
            again = [track for track, lost in self._lost.items() if overlap(lost.box, face.box) >= SAME_FACE_OVERLAP]
            if again:
                face = replace(face, track=again[0])
                del self._lost[again[0]]
            else:
                self._next_track += 1
            yield face

    @torch.no_grad()
    def _follow(self, frame: NDArray[np.uint8], landmarks: Tensor) -> tuple[Tensor, float]:
        part = PhotoPart.around(frame, landmarks[:, :2], _SEEN_AROUND)
        found, confidence = self.networks.landmarks.follow(to_tensor(part.pixels), part.from_photo(landmarks)[None])
        return part.to_photo(found[0]), float(confidence)

    def _read(self, frame: NDArray[np.uint8], box: Box) -> tuple[Tensor, float]:
        corners = torch.tensor(box).view(2, 2)
        part = PhotoPart.around(frame, corners, _SEEN_AROUND)
        placed = part.from_photo(corners).view(1, 4)
        found, confidence = self.networks.landmarks.read_with_confidence(to_tensor(part.pixels), placed)
        return part.to_photo(found[0]), float(confidence)

    @torch.no_grad()
    def _face(
        self, frame: NDArray[np.uint8], track: int, landmarks: Tensor, confidence: float, embeds: bool
    ) -> SeenFace:
        part = PhotoPart.around(frame, landmarks[:, :2], 0.5)
        affine = face_transform(part.from_photo(landmarks)[None, :, :2])
        crop = warp(to_tensor(part.pixels), affine, _SHARPNESS_SIZE)
        grey = ((crop[0].mean(dim=0) + 1) * 127.5).numpy()
        sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
        side = self.networks.vision.config.image_size
        faces = crop if side == _SHARPNESS_SIZE else warp(to_tensor(part.pixels), affine, side)
        embedding = self.networks.vision(faces).embedding[0].float() if embeds else None
        return SeenFace(track, landmarks, confidence, sharpness, embedding)


def person_change(faces: Sequence[SeenFace]) -> float:
    """How far a face gets from the one that is most like all: one minus cosine, 0 to 2; 0 where nobody looked."""
    embeddings = [face.embedding for face in faces if face.embedding is not None]
    if not embeddings:
        return 0.0
    likeness = torch.stack(embeddings) @ torch.stack(embeddings).T
    medoid = int(likeness.sum(dim=0).argmax())
    return max(0.0, 1 - float(likeness[medoid].min()))


def mean_embedding(faces: Sequence[SeenFace]) -> list[float]:
    """Of a face, at unit length; empty where nobody looked."""
    embeddings = [face.embedding for face in faces if face.embedding is not None]
    if not embeddings:
        return []
    values: list[float] = torch.nn.functional.normalize(torch.stack(embeddings).mean(dim=0), dim=0).tolist()
    return values


def _is_among(face: SeenFace, seen: dict[int, SeenFace]) -> bool:
    return any(overlap(face.box, other.box) >= SAME_FACE_OVERLAP for other in seen.values())
