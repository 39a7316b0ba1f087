"""Telling people apart with dlib's ResNet: the judge of our evaluation, and no part of any model of ours."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import MissingBackendError, MissingWeightsError
from fantasyid.face.types import DetectedFace

PACKAGE = "face_recognition_models"
_SHAPE_FILE = "shape_predictor_5_face_landmarks.dat"
# The network sees 1.5 times the distance of the outer eye corners on every side of them: well within this many boxes.
_PATCH_SCALE = 3.0
_RESNET_FILE = "dlib_face_recognition_resnet_model_v1.dat"


def model_files() -> tuple[Path, Path]:
    """Where the package `face_recognition_models` keeps dlib's 5-point shape predictor and its ResNet.

    The package is not imported: it asks for pkg_resources, which setuptools 81 and later do not have.

    Returns:
        Paths of the shape predictor and the ResNet.

    Raises:
        MissingBackendError: The package is not installed.
        MissingWeightsError: It is, but lacks a file.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingBackendError(
            f"The package {PACKAGE} is needed to recognise faces and is not installed; "
            "install it with: pip install 'fantasyid[eval]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    for name in (_SHAPE_FILE, _RESNET_FILE):
        if not (folder / name).is_file():
            raise MissingWeightsError(
                f"{folder / name} is missing; reinstall it with: pip install --force-reinstall face-recognition-models"
            )
    return folder / _SHAPE_FILE, folder / _RESNET_FILE


class DlibRecognizer:
    """Embeds faces with dlib's ResNet; two photos of one person are usually nearer than 0.6.

    Raises:
        MissingBackendError: The package `face_recognition_models` (extra `eval`) is not installed.
    """

    same_person_distance = 0.6

    def __init__(self) -> None:
        import dlib  # here, because training machines import this package without dlib

        shape_file, resnet_file = model_files()
        self._dlib = dlib
        self._find_shape = dlib.shape_predictor(str(shape_file))
        self._network = dlib.face_recognition_model_v1(str(resnet_file))

    def embed(self, photo: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.float32]:
        """Describe the person.

        Args:
            photo: RGB (H,W,3).
            face: A face in it, as `DlibFaceDetector` gives it: the shape predictor was trained on such boxes, and on
                faces tilted by less than 35 degrees, so one with a tilt is first turned upright.

        Returns:
            (128,) embedding.
        """
        pixels, box = (photo, face.box) if face.tilt_deg == 0 else _turned_upright(photo, face)
        left, top, right, bottom = (round(edge) for edge in box)
        pixels = np.ascontiguousarray(pixels)
        shape = self._find_shape(pixels, self._dlib.rectangle(left, top, right - 1, bottom - 1))
        return np.array(self._network.compute_face_descriptor(pixels, shape), dtype=np.float32)

    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """Euclidean distance of two embeddings."""
        return float(np.linalg.norm(first - second))


def _turned_upright(
    photo: NDArray[np.uint8], face: DetectedFace
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """The surroundings of a face, turned by its tilt, and its box in them."""
    x0, y0, x1, y1 = face.box
    width, height = x1 - x0, y1 - y0
    half = _PATCH_SCALE * max(width, height) / 2
    turn = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), -face.tilt_deg, 1.0)
    turn[:, 2] += np.array([half - (x0 + x1) / 2, half - (y0 + y1) / 2])
    patch = cv2.warpAffine(photo, turn, (round(2 * half), round(2 * half)), borderMode=cv2.BORDER_REPLICATE)
    box = (half - width / 2, half - height / 2, half + width / 2, half + height / 2)
    return np.asarray(patch, np.uint8), box
