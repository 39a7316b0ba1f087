"""Backgrounds with words for them: plain, graded and blurred ones of a named colour."""

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "grey": (128, 130, 134),
    "white": (236, 236, 234),
    "black": (22, 22, 25),
    "blue": (52, 92, 168),
    "green": (58, 122, 74),
    "red": (164, 48, 48),
    "brown": (112, 80, 54),
    "yellow": (216, 190, 84),
    "orange": (216, 132, 60),
    "purple": (112, 72, 140),
    "pink": (222, 154, 170),
}


def backdrop(rng: np.random.Generator, size: int = 64) -> tuple[NDArray[np.uint8], str]:
    """Draw a background.

    Returns:
        (size, size, 3) uint8 RGB, and its words, such as `"in front of a plain blue background"`.
    """
    name = list(COLOURS)[rng.integers(len(COLOURS))]
    base = np.array(COLOURS[name], np.float64) + rng.normal(0, 9, 3)
    if rng.uniform() < 0.6:
        direction = rng.normal(size=2)
        rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        slope = (rows * direction[0] + columns * direction[1]) / (np.abs(direction).sum() + 1e-6)
        picture = base * (1 + rng.uniform(0, 0.28) * slope[..., None])
        words = f"in front of a plain {name} background"
    else:
        coarse = rng.normal(0, 1, (rng.integers(4, 9), rng.integers(4, 9), 1)) * 0.34 + rng.normal(0, 0.06, (1, 1, 3))
        coarse = coarse + rng.normal(0, 0.07, (*coarse.shape[:2], 3))
        noise = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        picture = base * (1 + noise)
        words = f"in front of a blurred {name} background"
    return picture.clip(0, 255).astype(np.uint8), words
