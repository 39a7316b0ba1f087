"""Reading a photo: which face, where its landmarks are, and what its head looks like in 3D."""

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.core.errors import ExtremeProfileError, FaceChoiceError, FaceTooSmallError, NoFaceError
from fantasyid.core.imaging import Photo, as_photo, to_tensor
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.interface import FaceDetector, FaceReconstructor
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.face.types import DetectedFace, FaceReading
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceLandmarkModel

MIN_FACE_PIXELS = 64
MAX_YAW_DEG = 45


class FaceReader:
    """Reads one face of a photo, or says in one sentence why it cannot.

    Args:
        landmark_model: The trained landmark network.
        detector: Finds the faces; None takes the built-in one.
        reconstructor: Makes the 3D head; None takes the built-in one with the head model of the package.
    """

    def __init__(
        self,
        landmark_model: FaceLandmarkModel,
        detector: FaceDetector | None = None,
        reconstructor: FaceReconstructor | None = None,
    ) -> None:
        self._detector = DlibFaceDetector() if detector is None else detector
        self._landmarks = LandmarkReader(landmark_model)
        self._reconstructor = BuiltinReconstructor(HeadModel.load()) if reconstructor is None else reconstructor

    def read(self, photo: Photo, face_index: int | None = None) -> FaceReading:
        """Read a face.

        Args:
            photo: A path, a PIL image, or RGB uint8 (H,W,3).
            face_index: Which face, counted from 0 by falling size; None takes the largest.

        Returns:
            The reading; its `faces` and `face_index` tell which face was taken from how many.

        Raises:
            UnreadablePhotoError: The file is missing, damaged or not a picture.
            NoFaceError: No face was found.
            FaceChoiceError: There is no face of that number.
            FaceTooSmallError: The face is smaller than 64 pixels.
            ExtremeProfileError: The face is turned by more than 45 degrees.
        """
        pixels = as_photo(photo)
        faces = self._detector.detect(pixels)
        index = _choose(faces, face_index, pixels)
        landmarks = self._landmarks.read(to_tensor(pixels), torch.tensor([faces[index].box]))[0]
        # The longer side, because turning or nodding makes the other one short.
        size = float((landmarks[:, :2].amax(dim=0) - landmarks[:, :2].amin(dim=0)).max())
        if size < MIN_FACE_PIXELS:
            raise FaceTooSmallError(
                f"The face is {size:.0f} pixels high and at least {MIN_FACE_PIXELS} are needed; "
                "use a photo of higher resolution or one taken from nearer."
            )
        head = self._reconstructor.reconstruct(pixels, landmarks)
        if abs(head.pose.yaw_deg) > MAX_YAW_DEG:
            raise ExtremeProfileError(
                f"The face is turned {abs(head.pose.yaw_deg):.0f} degrees from the camera and at most {MAX_YAW_DEG} "
                "can be read; use a photo that shows the person from the front."
            )
        return FaceReading(faces=faces, face_index=index, landmarks=landmarks, head=head)


def _choose(faces: tuple[DetectedFace, ...], face_index: int | None, photo: NDArray[np.uint8]) -> int:
    if not faces:
        height, width = photo.shape[:2]
        raise NoFaceError(
            f"No face was found in the photo ({width}x{height} pixels); use one that shows the person upright and from "
            f"the front, with the face at least {MIN_FACE_PIXELS} pixels high."
        )
    if face_index is None:
        return 0
    if not 0 <= face_index < len(faces):
        counted = "is 1 face: choose 0" if len(faces) == 1 else f"are {len(faces)} faces: choose 0 to {len(faces) - 1}"
        raise FaceChoiceError(f"There is no face {face_index} in the photo; there {counted}, the largest first.")
    return face_index
