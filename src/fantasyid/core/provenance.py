"""The invisible mark that says a video was generated: a fixed faint pattern in the luma, and words in the file.

What a file says in words is lost at the first upload, so the pixels carry the mark too. It is a spread-spectrum pattern
of our own because the packaged ones fetch a network (TrustMark, VideoSeal), need torch and ONNX to mark an image
(invisible-watermark) or are no longer kept (blind-watermark); none is light and offline, and one bit, "made here", is
all that is needed. docs/security.md tells what it survives.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2

from fantasyid import __version__
from fantasyid.core.errors import InvalidRequestError

DETECTION_THRESHOLD = 5.0
"""`detect_mark` at or above this means marked.

Unmarked pictures score about N(0, 1); the highest of 2,500 was 3.2 (docs/security.md). Marked 128 px videos written by
`write_video` score above 15.
"""

GRID = 128
"""Cells each way of the pattern's grid, which is stretched over the frame, so that rescaling does not move it."""

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for what a trained model made."""

# Standard deviation in 8-bit steps: 44 dB PSNR.
_STRENGTH = 1.5
# Cycles per grid cell: slower is hidden under the picture's own content, faster is lost to H.264.
_BAND = (0.08, 0.25)
_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
   xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"
   xmp:CreatorTool="FantasyID {__version__}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_BLOCK_BYTES = 2**20
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_WHITENING_SIGMA = 3.0
# Less than this, in 8-bit steps, is rounding.
_FLAT = 0.01


def container_metadata(loras: Sequence[str] = ()) -> dict[str, str]:
    """The MP4 tags that say in words where a video comes from.

    Args:
        loras: Names of what was merged into the model.
    """
    label = f"AI-generated with FantasyID {__version__}"
    return {"title": label, "comment": f"{label}, LoRA {', '.join(loras)}" if loras else label}


def xmp_packet() -> bytes:
    """The same for machines: an XMP packet with IPTC's digital source type of what a trained model made."""
    return _XMP.encode()


def add_xmp(video: Path) -> None:
    """Put the XMP packet at the end of an MP4 file, in the box that XMP's specification (part 3) names for it.

    Args:
        video: An MP4 file without one.
    """
    packet = xmp_packet()
    with video.open("ab") as file:
        file.write(struct.pack(">I4s", 24 + len(packet), b"uuid") + _XMP_BOX + packet)


def declares_ai(path: Path) -> bool:
    """Whether a file's own metadata says that a trained model made it, as XMP readers do: by scanning for the term.

    Args:
        path: A video or picture of any format.
    """
    return holds_bytes(path, SOURCE_TYPE.encode())


def holds_bytes(path: Path, wanted: bytes) -> bool:
    """Whether some bytes are anywhere in a file, which is held a part at a time.

    Args:
        path: The file.
        wanted: At least one.
    """
    before = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if wanted in before + block:
                return True
            before = (before + block)[-len(wanted) :]
    return False


def add_mark(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Add the provenance mark to every frame.

    Args:
        frames: RGB (T, H, W, 3).

    Returns:
        New frames of the same shape, 44 dB PSNR from the given ones; equal frames stay equal.

    Raises:
        InvalidRequestError: They are no such frames; those of a pipeline are floats in [0, 1].
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InvalidRequestError(
            f"The mark is added to uint8 frames of shape (T, H, W, 3), not {frames.dtype} of shape {frames.shape}; "
            'make those in [0, 1] so by (frames * 255).round().astype("uint8").'
        )
    height, width = frames.shape[1:3]
    mode = cv2.INTER_CUBIC if min(height, width) >= GRID else cv2.INTER_AREA
    pattern = cv2.resize(mark_pattern(), (width, height), interpolation=mode)
    offset = _STRENGTH * pattern[..., None] / pattern.std()
    return np.stack([np.clip(np.rint(frame + offset), 0, 255).astype(np.uint8) for frame in frames])


def detect_mark(frames: Iterable[npt.NDArray[np.uint8]]) -> float:
    """Measure how surely the provenance mark is in a video, where `add_mark` put it.

    Args:
        frames: RGB (H, W, 3) each, at least one, at any scale, not cropped; see `mark_search` for those.

    Returns:
        Standard deviations above chance; compare with `DETECTION_THRESHOLD`.
    """
    return detect_in_luma(mean_luma(frames))


def detect_in_luma(luma: npt.NDArray[Any]) -> float:
    """Measure how surely the mark is in a mean frame.

    It is brought to the pattern's grid, levelled, and correlated with the pattern at every circular shift; the shifts
    tell what chance gives for this very picture.

    Args:
        luma: (H, W), 0 to 255.

    Returns:
        Standard deviations above chance.
    """
    signal = levelled(cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA))
    correlation = irfft2(rfft2(signal) * rfft2(mark_pattern()).conj(), signal.shape)
    spread = correlation.std()
    return float((correlation[0, 0] - correlation.mean()) / spread) if spread > 0 else 0.0


def mean_luma(frames: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Brightness of the mean frame: what moves blurs, and the mark stays.

    Args:
        frames: RGB (H, W, 3) each, at least one; held one at a time.

    Returns:
        (H, W), 0 to 255.
    """
    total, num_frames = np.zeros((1, 1)), 0
    for frame in frames:
        total, num_frames = total + frame @ _LUMA, num_frames + 1
    return np.asarray(total / num_frames, dtype=np.float32)


def levelled(luma: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Level a picture's local contrast and its spectrum within the mark's band, so that no part of it outweighs others.

    Args:
        luma: (H, W), a pixel for each cell of the pattern's grid.

    Returns:
        (H, W); all zero for a picture of one colour.
    """
    detail = luma - cv2.GaussianBlur(luma, (0, 0), _WHITENING_SIGMA)
    if np.abs(detail).max() < _FLAT:
        return np.zeros_like(detail)
    contrast = np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), _WHITENING_SIGMA))
    height, width = luma.shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    spectrum = rfft2(detail / (contrast + 1)) * ((radius >= _BAND[0]) & (radius < _BAND[1]))
    magnitude = np.abs(spectrum)
    return np.asarray(irfft2(spectrum / np.where(magnitude > 0, magnitude, 1), luma.shape), dtype=np.float32)


def mark_pattern() -> npt.NDArray[np.float64]:
    """The mark, (GRID, GRID), of unit variance."""
    # Bits from a hash rather than from a generator, whose stream may change with the version of NumPy.
    digest = hashlib.shake_256(b"FantasyID provenance mark 1").digest(GRID * GRID // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).reshape(GRID, GRID)
    noise = np.fft.ifft2(np.fft.fft2(bits * 2.0 - 1.0) * _band_mask()).real
    return np.asarray(noise / noise.std(), dtype=np.float64)


def _band_mask() -> npt.NDArray[np.bool_]:
    frequency = np.fft.fftfreq(GRID)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    return np.asarray((radius >= _BAND[0]) & (radius < _BAND[1]))
