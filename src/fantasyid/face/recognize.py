"""Telling people apart with dlib's ResNet: the judge of our evaluation, and no part of any model of ours."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import MissingBackendError, MissingWeightsError
from fantasyid.face.types import DetectedFace

PACKAGE = "face_recognition_models"
_SHAPE_FILE = "shape_predictor_5_face_landmarks.dat"
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
            face: A face in it, as `DlibFaceDetector` gives it: the shape predictor was trained on such boxes.

        Returns:
            (128,) embedding.
        """
        left, top, right, bottom = (round(edge) for edge in face.box)
        pixels = np.ascontiguousarray(photo)
        shape = self._find_shape(pixels, self._dlib.rectangle(left, top, right - 1, bottom - 1))
        return np.array(self._network.compute_face_descriptor(pixels, shape), dtype=np.float32)

    def distance(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
        """Euclidean distance of two embeddings."""
        return float(np.linalg.norm(first - second))
