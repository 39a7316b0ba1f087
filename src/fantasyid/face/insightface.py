"""insightface's detector (SCRFD) and recogniser (ArcFace), from their published ONNX files.

The files are run by onnxruntime directly. The package `insightface` would load the same ones, but it asks for
opencv-python beside our opencv-python-headless and brings a graphical interface, and where the processor asked for does
not work it goes on with another one. The models are licensed for non-commercial research only.
"""

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingBackendError, MissingWeightsError
from fantasyid.core.optional import require
from fantasyid.face.align import five_point_transform
from fantasyid.face.types import DetectedFace

Processor = Literal["cpu", "cuda"]
Part = Literal["detector", "recognizer"]

MODEL_LICENCE = "insightface's models are for non-commercial research only"
DEFAULT_ROOT = Path("~/.insightface/models")
MIN_SCORE = 0.5
MAX_OVERLAP = 0.4
# A large picture finds small faces, a small one the face that fills a photo; insightface runs both, too.
DETECTION_SIDES = (640, 128)
# Five points of a face in ArcFace's crop, in pixels, and the crop's side.
ARCFACE_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
ARCFACE_SIZE = 112

_PROVIDERS: dict[Processor, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_RUNTIMES: dict[Processor, str] = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu (instead of onnxruntime)"}


@dataclass(frozen=True)
class ModelPack:
    """A published set of models.

    Attributes:
        detector: Its SCRFD file.
        recognizer: Its ArcFace file.
        size_mb: How much there is to download.
    """

    detector: str
    recognizer: str
    size_mb: int


PACKS = {
    "antelopev2": ModelPack("scrfd_10g_bnkps.onnx", "glintr100.onnx", 361),
    "buffalo_l": ModelPack("det_10g.onnx", "w600k_r50.onnx", 289),
}


def model_file(model: str | Path, part: Part, root: Path = DEFAULT_ROOT) -> Path:
    """Find an ONNX file.

    The archive of antelopev2 holds a folder of its own name, so that unpacking it leaves the files one folder too deep;
    both places are searched.

    Args:
        model: The name of a pack, or the file itself.
        part: Which model of the pack.
        root: Folder with one folder per pack.

    Returns:
        Path of the file.

    Raises:
        MissingWeightsError: There is no such pack or file.
    """
    if isinstance(model, Path):
        if not model.is_file():
            raise MissingWeightsError(f"There is no file {model}; name the ONNX file of the {part}.")
        return model
    if model not in PACKS:
        raise MissingWeightsError(f"There is no insightface pack {model!r}; there are {', '.join(PACKS)}.")
    pack = PACKS[model]
    name = pack.detector if part == "detector" else pack.recognizer
    folder = root.expanduser() / model
    for path in (folder / name, folder / model / name):
        if path.is_file():
            return path
    raise MissingWeightsError(
        f"{folder / name} is missing; download {model} ({pack.size_mb} MB) by the links of insightface's model zoo, "
        f"https://github.com/deepinsight/insightface/tree/master/python-package#model-zoo, and unpack it there "
        f"({MODEL_LICENCE})."
    )


def models_in_folder(folder: Path) -> tuple[Path, Path]:
    """Find the detector and the recogniser of one pack.

    Args:
        folder: Where they lie, or in a folder of the same name in it, as antelopev2's archive unpacks.

    Returns:
        Paths of the two.

    Raises:
        MissingWeightsError: No pack has both its files there.
    """
    folder = folder.expanduser()
    for pack, place in product(PACKS.values(), (folder, folder / folder.name)):
        detector, recognizer = place / pack.detector, place / pack.recognizer
        if detector.is_file() and recognizer.is_file():
            return detector, recognizer
    pairs = " or ".join(f"{pack.detector} with {pack.recognizer}" for pack in PACKS.values())
    raise MissingWeightsError(
        f"The folder {folder} does not hold {pairs}; download a pack by the links of insightface's model zoo, "
        f"https://github.com/deepinsight/insightface/tree/master/python-package#model-zoo ({MODEL_LICENCE})."
    )


class InsightFaceDetector:
    """Finds faces of any size and direction, with five landmarks each (SCRFD).

    Args:
        model: The name of a pack, or the file of an SCRFD model with landmarks.
        processor: What runs it: `"cpu"`, or `"cuda"` with onnxruntime-gpu.
        root: Folder with one folder per pack.

    Raises:
        MissingBackendError: onnxruntime is not installed, or cannot use the processor.
        MissingWeightsError: The file is not there.
        CorruptWeightsError: The file is damaged, or no such model.
    """

    def __init__(
        self, model: str | Path = "antelopev2", processor: Processor = "cpu", root: Path = DEFAULT_ROOT
    ) -> None:
        path = model_file(model, "detector", root)
        self._session = _open_session(path, processor)
        outputs = len(self._session.get_outputs())
        if outputs not in (9, 15):
            raise CorruptWeightsError(
                f"{path} has {outputs} outputs, and SCRFD with landmarks 9 or 15; use a file such as "
                f"{' or '.join(pack.detector for pack in PACKS.values())}."
            )
        self._strides = (8, 16, 32) if outputs == 9 else (8, 16, 32, 64, 128)
        self._anchors = 2 if outputs == 9 else 1

    @property
    def providers(self) -> tuple[str, ...]:
        """What onnxruntime runs it with, the first choice first."""
        return tuple(self._session.get_providers())

    def detect(self, photo: NDArray[np.uint8]) -> tuple[DetectedFace, ...]:
        """Find all faces.

        Args:
            photo: RGB (H,W,3).

        Returns:
            The faces with their points, largest first, scored from 0.5 to 1.
        """
        side = self._session.get_inputs()[0].shape[2]
        found = np.concatenate(
            [self._search(photo, s) for s in ((side,) if isinstance(side, int) else DETECTION_SIDES)]
        )
        corners_and_extents = np.hstack([found[:, :2], found[:, 2:4] - found[:, :2]])
        kept = cv2.dnn.NMSBoxes(corners_and_extents.tolist(), found[:, 4].tolist(), 0.0, MAX_OVERLAP)
        faces = []
        for x0, y0, x1, y1, score, *flat in found[np.array(kept, dtype=np.intp).ravel()].tolist():
            points = tuple(zip(flat[::2], flat[1::2], strict=True))
            (right_x, right_y), (left_x, left_y), *_ = points
            tilt_deg = math.degrees(math.atan2(right_y - left_y, left_x - right_x))
            faces.append(DetectedFace((x0, y0, x1, y1), score, points, tilt_deg))
        return tuple(sorted(faces, key=lambda face: face.area, reverse=True))

    def _search(self, photo: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        """Rows (F,15) of box, score and points in pixels of the photo, shrunk or enlarged into a square."""
        height, width = photo.shape[:2]
        scale = side / max(height, width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR)
        outputs = [output.reshape(-1, output.shape[-1]) for output in _run(self._session, canvas, 128.0)]
        levels = len(self._strides)
        scores, edges, points = outputs[:levels], outputs[levels : 2 * levels], outputs[2 * levels :]
        found = np.concatenate(
            [
                decode_scrfd(scores[level], edges[level], points[level], side // stride, stride, self._anchors)
                for level, stride in enumerate(self._strides)
            ]
        )
        to_photo = np.array([width / size[0], height / size[1]], np.float32)
        found[:, :4] *= np.tile(to_photo, 2)
        found[:, 5:] *= np.tile(to_photo, 5)
        return found


class ArcFaceRecognizer:
    """Embeds faces with ArcFace; two photos of one person are usually nearer than 0.6 (a cosine of 0.4).

    Args:
        model: The name of a pack, or the file of an ArcFace model that takes pixels of -1 to 1.
        processor: What runs it: `"cpu"`, or `"cuda"` with onnxruntime-gpu.
        root: Folder with one folder per pack.

    Raises:
        MissingBackendError: onnxruntime is not installed, or cannot use the processor.
        MissingWeightsError: The file is not there.
        CorruptWeightsError: The file is damaged.
    """

    same_person_distance = 0.6

    def __init__(
        self, model: str | Path = "antelopev2", processor: Processor = "cpu", root: Path = DEFAULT_ROOT
    ) -> None:
        self._session = _open_session(model_file(model, "recognizer", root), processor)

    @property
    def providers(self) -> tuple[str, ...]:
        """What onnxruntime runs it with, the first choice first."""
        return tuple(self._session.get_providers())

    def embed(self, photo: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Describe the person.

        Args:
            photo: RGB (H,W,3).
            face: A face in it with its five points, as `InsightFaceDetector` gives it.

        Returns:
            (D,) embedding of unit length.

        Raises:
            InvalidRequestError: The face has no points.
        """
        if face.points is None:
            raise InvalidRequestError(
                "ArcFace needs the face's five points and this face has a box alone; find it with InsightFaceDetector."
            )
        (embedding,) = _run(self._session, arcface_crop(photo, np.array(face.points)), 127.5)
        flat = embedding[0]
        return np.asarray(flat / np.linalg.norm(flat), dtype=np.float32)

    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """One minus the cosine of two embeddings, 0 to 2."""
        return float(1 - first @ second)


def decode_scrfd(
    scores: NDArray[np.float32],
    edges: NDArray[np.float32],
    points: NDArray[np.float32],
    grid: int,
    stride: int,
    anchors: int,
) -> NDArray[np.float32]:
    """Turn one level of SCRFD's output into boxes and points.

    A cell looks from pixel (column, row) * stride; its distances are in strides.

    Args:
        scores: (grid * grid * anchors, 1) in [0, 1], row by row.
        edges: (..., 4) distances to the left, top, right and bottom edge.
        points: (..., 10) offsets x, y of five points.
        grid: Cells per side.
        stride: Pixels per cell.
        anchors: Guesses per cell.

    Returns:
        Rows (F,15) of xyxy box, score, and x, y of five points, in pixels, of the guesses that score 0.5 and more.
    """
    sure = np.flatnonzero(scores[:, 0] >= MIN_SCORE)
    row, column = np.divmod(sure // anchors, grid)
    centre = (np.stack([column, row], axis=1) * stride).astype(np.float32)
    near, far = centre - edges[sure, :2] * stride, centre + edges[sure, 2:] * stride
    return np.hstack([near, far, scores[sure], np.tile(centre, 5) + points[sure] * stride])


def arcface_crop(photo: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Align a face to ArcFace's template.

    Args:
        photo: RGB (H,W,3).
        points: (5,2) pixels.

    Returns:
        RGB (112,112,3), black outside the photo, sampled as ArcFace's training pictures were: bilinearly.
    """
    # ArcFace was trained on crops fitted in their own pixels, not in the photo's, so the two change places here.
    to_crop = five_point_transform(torch.tensor([ARCFACE_TEMPLATE], dtype=torch.float64), points.tolist())[0].numpy()
    crop = cv2.warpAffine(photo, to_crop, (ARCFACE_SIZE, ARCFACE_SIZE), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, dtype=np.uint8)


def _run(session: Any, picture: NDArray[np.uint8], half_range: float) -> list[NDArray[np.float32]]:
    """All outputs for one picture, its pixels taken to (-127.5..127.5) / half_range."""
    batch = ((picture.astype(np.float32) - 127.5) / np.float32(half_range)).transpose(2, 0, 1)[None]
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: batch})
    return outputs


def _open_session(path: Path, processor: Processor) -> Any:
    """Load a model; onnxruntime would warn and go on with the CPU where the GPU does not work."""
    runtime = require("onnxruntime", "face", "run insightface's models")
    provider = _PROVIDERS[processor]
    if provider not in runtime.get_available_providers():
        raise MissingBackendError(
            f"The installed onnxruntime has no {provider}, only {', '.join(runtime.get_available_providers())}; "
            f"install {_RUNTIMES[processor]}, or choose the processor 'cpu'."
        )
    if processor == "cuda":
        runtime.preload_dlls()
    errors = runtime.capi.onnxruntime_pybind11_state
    try:
        session = runtime.InferenceSession(str(path), providers=[provider])
    except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument) as error:
        raise CorruptWeightsError(f"{path} is no readable ONNX model ({error}); download it again.") from error
    if provider not in session.get_providers():
        raise MissingBackendError(
            f"onnxruntime was asked for {provider} and took {', '.join(session.get_providers())} for {path.name}; its "
            "message above says which library is missing. Install that, or choose the processor 'cpu'."
        )
    session.disable_fallback()
    return session
