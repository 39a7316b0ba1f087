"""Text in frames, read by RapidOCR: subtitles and marks that a model would learn to draw."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.optional import require

# The longer side of the picture in which text is looked for; larger ones are made so small. RapidOCR's own rule would
# enlarge small ones, at several times the cost.
_SIDE = 960


@dataclass(frozen=True)
class FoundText:
    """A line of text.

    Attributes:
        box: xyxy pixels.
        score: How surely it was read, 0 to 1.
        text: What it says.
    """

    box: tuple[float, float, float, float]
    score: float
    text: str


class TextFinder:
    """Finds text of many scripts with the networks in RapidOCR's own wheel, on one thread.

    Raises:
        MissingBackendError: rapidocr or onnxruntime is not installed.
    """

    def __init__(self) -> None:
        require("onnxruntime", "data", "find text in frames")
        library = require("rapidocr", "data", "find text in frames")
        self._models = Path(str(library.__file__)).parent / "models"
        self._read = library.RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.text_score": 0.0,
                "Det.limit_type": "max",
                "Det.limit_side_len": _SIDE,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def find(self, frame: NDArray[np.uint8]) -> tuple[FoundText, ...]:
        """Find all lines.

        Args:
            frame: RGB (H,W,3).

        Returns:
            The lines as the detector orders them.
        """
        # RapidOCR takes arrays for BGR; lines that stand on their head are no subtitles.
        result = self._read(np.ascontiguousarray(frame[..., ::-1]), use_cls=False)
        if result.boxes is None or result.txts is None:
            return ()
        lines = zip(result.boxes, result.scores, result.txts, strict=True)
        return tuple(FoundText(_around(corners), round(float(score), 4), text) for corners, score, text in lines)

    def fingerprint(self) -> str:
        """Version of the library and hash of its networks: others find other text."""
        digest = hashlib.sha256()
        for path in sorted(self._models.glob("*.onnx")):
            digest.update(path.read_bytes())
        return f"rapidocr {version('rapidocr')}, networks {digest.hexdigest()[:16]}"


def _around(corners: NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top = corners.min(axis=0).tolist()
    right, bottom = corners.max(axis=0).tolist()
    return left, top, right, bottom
