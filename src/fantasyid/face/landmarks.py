"""Landmarks of a face in a photo, by the built-in landmark network."""

import torch
from torch import Tensor

from fantasyid.face.align import READER_SIZE, detector_transform, reader_transform, restore_points, warp
from fantasyid.models.face_reader import FaceLandmarkModel


class LandmarkReader:
    """Runs the landmark network twice: on the detector's box, then on a crop levelled by what it found there.

    Args:
        model: The network; it is used on its own device and in its own dtype.
    """

    def __init__(self, model: FaceLandmarkModel) -> None:
        self._model = model

    @torch.no_grad()
    def read(self, photos: Tensor, boxes: Tensor) -> Tensor:
        """Find the landmarks of one face per photo.

        Args:
            photos: (B,3,H,W) in [-1, 1].
            boxes: (B,4) xyxy pixels, as a `FaceDetector` gives them.

        Returns:
            (B,478,3) float32 pixels of the photos, on their device; z is scaled like x, smaller = nearer.
        """
        rough = self._read_crop(photos, detector_transform(boxes))
        return self._read_crop(photos, reader_transform(rough[..., :2]))

    def _read_crop(self, photos: Tensor, affine: Tensor) -> Tensor:
        crops = warp(photos, affine, READER_SIZE).to(self._model.device, self._model.dtype)
        return restore_points(self._model(crops).to(affine), affine, size=1)
