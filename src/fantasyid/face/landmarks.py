"""Landmarks of a face in a photo, by the built-in face reader."""

import torch
from torch import Tensor

from fantasyid.face.align import READER_SIZE, detector_transform, reader_transform, restore_points, warp
from fantasyid.models.face_reader import FaceReaderModel


class LandmarkReader:
    """Runs the face reader twice: on the detector's box, then on a crop levelled by what it found there.

    Args:
        model: The network; it is used on its own device and in its own dtype.
    """

    def __init__(self, model: FaceReaderModel) -> None:
        self._model = model

    def read(self, photos: Tensor, boxes: Tensor) -> Tensor:
        """Find the landmarks of one face per photo; see `read_with_confidence`."""
        return self.read_with_confidence(photos, boxes)[0]

    @torch.no_grad()
    def read_with_confidence(
        self, photos: Tensor, boxes: Tensor, tilts_deg: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the landmarks of one face per photo, and say how surely it is a face.

        Args:
            photos: (B,3,H,W) in [-1, 1].
            boxes: (B,4) xyxy pixels, as a `FaceDetector` gives them.
            tilts_deg: (B,) as a `FaceDetector` gives them; None is upright. The network levels up to 55 degrees more.

        Returns:
            Landmarks (B,478,3), float32 pixels of the photos, z scaled like x, smaller = nearer; and confidence (B,)
            in [0, 1]. Both on the photos' device.
        """
        rough, _ = self._read_crop(photos, detector_transform(boxes, tilts_deg))
        return self._read_crop(photos, reader_transform(rough[..., :2]))

    @torch.no_grad()
    def follow(self, photos: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Find the landmarks of faces that are about where they were, as in the next frame of a video; half the work.

        Args:
            photos: (B,3,H,W) in [-1, 1].
            landmarks: (B,478,3) pixels, where the faces were.

        Returns:
            Landmarks and confidence, see `read_with_confidence`.
        """
        return self._read_crop(photos, reader_transform(landmarks[..., :2]))

    def _read_crop(self, photos: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
        crops = warp(photos, affine, READER_SIZE).to(self._model.device, self._model.dtype)
        reading = self._model(crops)
        return restore_points(reading.landmarks.to(affine), affine, size=1), reading.confidence.to(affine).sigmoid()
