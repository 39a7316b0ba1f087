"""Finding the provenance mark in what was cropped, mirrored, turned, or shown as a part of a larger picture.

`provenance.detect_mark` looks where the mark was put. Here many places are looked at, so chance finds more, and the
thresholds are higher.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2

from fantasyid.core.provenance import DETECTION_THRESHOLD, GRID, detect_in_luma, levelled, mark_pattern, mean_luma

Place = Literal["whole", "cropped or turned", "part of the picture"]
FloatArray = npt.NDArray[np.float32]

THRESHOLDS: dict[Place, float] = {
    "whole": DETECTION_THRESHOLD,
    "cropped or turned": 6.5,
    "part of the picture": 7.5,
}
"""From these scores on the mark is found; docs/security.md has the measurement."""

MIN_KEPT = 0.68
"""The smallest share of the width and of the height that may be left of a frame."""
MIN_FRAME = 96
"""The smallest height, in pixels of a picture no side of which is above `_LONGEST_SIDE`, of a frame shown in it."""

_CROP_STEP = 3
_ZOOM_STEP = 1.025
# How far, in cells, the shares left of width and height may lie apart.
_MAX_SKEW = 18
_WORKING_SIDE = 2 * GRID
_TINY = 1e-12
_LONGEST_SIDE = 800
# Width by height of frames: mini's, CogVideoX's 720x480, and 1.5's 1360x768.
_ASPECTS = (1.0, 1.5, 16 / 9)


@dataclass(frozen=True)
class MarkFinding:
    """Where the mark is most likely.

    Attributes:
        place: What was looked at.
        score: Standard deviations above chance; compare with `threshold`.
    """

    place: Place
    score: float

    @property
    def threshold(self) -> float:
        """From which score on the mark is found."""
        return THRESHOLDS[self.place]

    @property
    def found(self) -> bool:
        """Whether the mark is there."""
        return self.score >= self.threshold


def search_mark(frames: Iterable[npt.NDArray[np.uint8]]) -> MarkFinding:
    """Look for the mark where it was put, then in crops, mirror images and quarter turns, then in parts of the picture.

    Args:
        frames: RGB (H, W, 3) each: a video, held one frame at a time, or one picture.

    Returns:
        The first place where it is found; else the one nearest to its threshold.
    """
    luma = mean_luma(frames)
    findings = []
    for place, look in LOOKS.items():
        finding = MarkFinding(place, look(luma))
        if finding.found:
            return finding
        findings.append(finding)
    return max(findings, key=lambda finding: finding.score / finding.threshold)


def cropped_score(luma: FloatArray) -> float:
    """Take a picture for what is left of a frame, at every size from `MIN_KEPT` on, mirrored or turned or not.

    Args:
        luma: (H, W), 0 to 255.

    Returns:
        The highest score of all.
    """
    transforms = np.stack([rfft2(pattern).conj() for pattern in _orientations()])
    small = cv2.resize(luma, (_WORKING_SIDE, _WORKING_SIDE), interpolation=cv2.INTER_AREA)
    sizes = range(GRID, round(MIN_KEPT * GRID) - 1, -_CROP_STEP)
    best = 0.0
    for height, width in product(sizes, sizes):
        if abs(height - width) > _MAX_SKEW:
            continue
        padded = np.zeros((GRID, GRID), np.float32)
        padded[:height, :width] = levelled(cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA))
        correlation = irfft2(rfft2(padded) * transforms, (GRID, GRID))
        # Moved right and down by d, the piece lies in the frame; the correlation has that at -d.
        rows, columns = (-np.arange(GRID - side + 1) % GRID for side in (height, width))
        inside = correlation[:, rows][:, :, columns].max(axis=(1, 2))
        best = max(best, float((inside / _spread(correlation)).max()))
    return best


def part_score(luma: FloatArray) -> float:
    """Look for a whole frame, upright and of one of the usual aspects, within a picture.

    Args:
        luma: (H, W), 0 to 255.

    Returns:
        The highest score of all places and sizes; 0 where the picture is smaller than `MIN_FRAME`.
    """
    scale = min(1.0, _LONGEST_SIDE / max(luma.shape))
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pattern = mark_pattern().astype(np.float32)
    best = 0.0
    for height, width in _part_sizes(*small.shape):
        cells = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
        below, beside = (next_fast_len(side, real=True) - side for side in (height, width))
        signal = levelled(cv2.copyMakeBorder(cells, 0, below, 0, beside, cv2.BORDER_REFLECT))
        padded = np.zeros_like(signal)
        padded[:GRID, :GRID] = pattern
        correlation = irfft2(rfft2(signal) * rfft2(padded).conj(), signal.shape)
        rows, columns = height - GRID + 1, width - GRID + 1
        # Each place by its own contrast, else the sharpest one outdoes chance whatever it shows.
        energy = cv2.boxFilter(signal**2, -1, (GRID, GRID), anchor=(0, 0), normalize=False)[:rows, :columns]
        mean_energy = energy.mean()
        gain = np.sqrt(mean_energy / np.maximum(energy, mean_energy / 4 + _TINY))
        best = max(best, float((correlation[:rows, :columns] * gain).max() / _spread(correlation[None])[0]))
    return best


def _part_sizes(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Cells of the grid, down and across, that the whole picture has if a frame in it has `GRID` each way."""
    for aspect in _ASPECTS:
        frame = float(MIN_FRAME)
        while frame <= height and frame * aspect <= width:
            yield round(GRID * height / frame), round(GRID * width / (frame * aspect))
            frame *= _ZOOM_STEP


def _orientations() -> list[FloatArray]:
    """The pattern in its eight orientations."""
    pattern = mark_pattern().astype(np.float32)
    return [np.rot90(side, turns) for side in (pattern, pattern[:, ::-1]) for turns in range(4)]


def _spread(correlation: FloatArray) -> FloatArray:
    """What chance gives; infinite where the picture is of one colour."""
    spread = correlation.std(axis=(1, 2))
    return np.where(spread > 0, spread, np.inf)


LOOKS: dict[Place, Callable[[FloatArray], float]] = {
    "whole": detect_in_luma,
    "cropped or turned": cropped_score,
    "part of the picture": part_score,
}
"""What scores a mean frame, by where the mark is looked for, the quickest first."""
