"""The invisible mark that says a video was generated: a fixed faint pattern in the luma, and words in the container.

Container tags are lost at the first upload, so the pixels carry the mark too. It is a spread-spectrum pattern of our
own because the packaged ones fetch a network (TrustMark, VideoSeal), need torch and ONNX to mark an image
(invisible-watermark) or are no longer kept (blind-watermark); none is light and offline, and one bit, "made here", is
all that is needed. It survives H.264 and rescaling, not cropping or an attacker.
"""

import hashlib
from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from fantasyid import __version__

DETECTION_THRESHOLD = 6.0
"""`detect_mark` at or above this means marked.

Unmarked videos score about N(0, 1); 1,392 portraits stayed below 4. Marked 128 px videos written by `write_video` score
above 20.
"""

# Standard deviation in 8-bit steps: 44 dB PSNR.
_STRENGTH = 1.5
# The pattern lives on a grid stretched over the frame, so that rescaling a video does not move it.
_GRID = 128
# Cycles per grid cell: slower is hidden under the picture's own content, faster is lost to H.264.
_BAND = (0.08, 0.25)
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_WHITENING_SIGMA = 3.0


def container_metadata() -> dict[str, str]:
    """The MP4 tags that say in words where a video comes from."""
    label = f"AI-generated with FantasyID {__version__}"
    return {"title": label, "comment": label}


def add_mark(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Add the provenance mark to every frame.

    Args:
        frames: RGB (T, H, W, 3).

    Returns:
        New frames of the same shape, 44 dB PSNR from the given ones; equal frames stay equal.
    """
    height, width = frames.shape[1:3]
    mode = cv2.INTER_CUBIC if min(height, width) >= _GRID else cv2.INTER_AREA
    pattern = cv2.resize(_pattern(), (width, height), interpolation=mode)
    offset = _STRENGTH * pattern[..., None] / pattern.std()
    return np.stack([np.clip(np.rint(frame + offset), 0, 255).astype(np.uint8) for frame in frames])


def detect_mark(frames: Iterable[npt.NDArray[np.uint8]]) -> float:
    """Measure how surely the provenance mark is in a video.

    The mean frame is brought to the pattern's grid, its local contrast and spectrum are levelled, and it is correlated
    with the pattern at every circular shift; the shifts tell what chance gives for this very picture.

    Args:
        frames: RGB (H, W, 3) each, at least one, at any scale, not cropped; held one at a time.

    Returns:
        Standard deviations above chance; compare with `DETECTION_THRESHOLD`.
    """
    total, num_frames = np.zeros(1), 0
    for frame in frames:
        total, num_frames = total + frame @ _LUMA, num_frames + 1
    luma = cv2.resize(total / num_frames, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    detail = luma - cv2.GaussianBlur(luma, (0, 0), _WHITENING_SIGMA)
    contrast = np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), _WHITENING_SIGMA))
    spectrum = np.fft.fft2(detail / (contrast + 1)) * _band_mask()
    magnitude = np.abs(spectrum)
    if not magnitude.max() > 0:
        return 0.0
    phase = spectrum / np.where(magnitude > 0, magnitude, 1)
    correlation = np.fft.ifft2(phase * np.fft.fft2(_pattern()).conj()).real
    return float((correlation[0, 0] - correlation.mean()) / correlation.std())


def _pattern() -> npt.NDArray[np.float64]:
    # Bits from a hash rather than from a generator, whose stream may change with the version of NumPy.
    digest = hashlib.shake_256(b"FantasyID provenance mark 1").digest(_GRID * _GRID // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).reshape(_GRID, _GRID)
    noise = np.fft.ifft2(np.fft.fft2(bits * 2.0 - 1.0) * _band_mask()).real
    return np.asarray(noise / noise.std(), dtype=np.float64)


def _band_mask() -> npt.NDArray[np.bool_]:
    frequency = np.fft.fftfreq(_GRID)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    return np.asarray((radius >= _BAND[0]) & (radius < _BAND[1]))
