"""The part of a photo around a face: what reading that face costs does not grow with the photo, nor with the face."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# A frame twice as high and thrice as wide as a face shows it at 1100 pixels then, more than any crop has.
MAX_PART_PIXELS = 8_000_000


@dataclass(frozen=True, eq=False)
class PhotoPart:
    """A rectangle of a photo, by a whole factor smaller where it is very large.

    Attributes:
        pixels: RGB (h,w,3).
        corner: (2,) x and y of its left upper corner in the photo.
        factor: Pixels of the photo in one of its own, along each side.
    """

    pixels: NDArray[np.uint8]
    corner: Tensor
    factor: int

    @classmethod
    def around(cls, photo: NDArray[np.uint8], points: Tensor, margin: float) -> "PhotoPart":
        """Cut out what crops see.

        Args:
            photo: RGB (H,W,3).
            points: (P,2) pixels, such as corners of a crop; they may lie outside the photo.
            margin: What is added around them, in longer sides of their box.

        Returns:
            The part, of at least one pixel.
        """
        low, high = points.amin(dim=0).tolist(), points.amax(dim=0).tolist()
        reach = margin * max(high[0] - low[0], high[1] - low[1])
        corner, end = [0, 0], [0, 0]
        for axis, length in enumerate((photo.shape[1], photo.shape[0])):
            corner[axis] = min(max(0, math.floor(low[axis] - reach)), length - 1)
            end[axis] = max(min(length, math.ceil(high[axis] + reach)), corner[axis] + 1)
        pixels = photo[corner[1] : end[1], corner[0] : end[0]]
        factor = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / MAX_PART_PIXELS))
        if factor > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        return cls(pixels, points.new_tensor(corner), factor)

    def from_photo(self, points: Tensor) -> Tensor:
        """Points (..., 2) or (..., 3) of the photo in pixels of the part; depth scales with them."""
        moved = points.clone()
        moved[..., :2] -= self.corner
        return moved / self.factor

    def to_photo(self, points: Tensor) -> Tensor:
        """The inverse of `from_photo`."""
        moved = points * self.factor
        moved[..., :2] += self.corner
        return moved
