"""Reading a photo: which face, where its landmarks are, and what its head looks like in 3D."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import ExtremeProfileError, FaceChoiceError, FaceTooSmallError, NoFaceError
from fantasyid.core.imaging import Photo, as_photo, to_tensor
from fantasyid.face.align import five_points
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.interface import FaceDetector, FaceReconstructor
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.face.types import DetectedFace, FaceReading, ReconstructedHead
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel

MIN_FACE_PIXELS = 48
MIN_CONFIDENCE = 0.5
MAX_YAW_DEG = 45


class FaceReader:
    """Reads one face of a photo, or says in one sentence why it cannot.

    Args:
        face_reader_model: The trained network.
        detector: Finds the faces; None takes the built-in one. The network must confirm what it finds.
        reconstructor: Makes the 3D head; None takes the built-in one with the head model of the package.
    """

    def __init__(
        self,
        face_reader_model: FaceReaderModel,
        detector: FaceDetector | None = None,
        reconstructor: FaceReconstructor | None = None,
    ) -> None:
        self._detector = DlibFaceDetector() if detector is None else detector
        self._landmarks = LandmarkReader(face_reader_model)
        self._reconstructor = reconstructor or BuiltinReconstructor(HeadModel.load(), face_reader_model)

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
            FaceTooSmallError: The face is smaller than 48 pixels.
            ExtremeProfileError: The face is turned by more than 45 degrees.
        """
        pixels = as_photo(photo)
        faces, all_landmarks, confidence = self._confirmed(pixels)
        index = _choose(faces, face_index, pixels)
        landmarks = all_landmarks[index]
        # The longer side, because turning or nodding makes the other one short.
        size = float((landmarks[:, :2].amax(dim=0) - landmarks[:, :2].amin(dim=0)).max())
        if size < MIN_FACE_PIXELS:
            raise FaceTooSmallError(
                f"The face is {size:.0f} pixels high and at least {MIN_FACE_PIXELS} are needed; "
                "use a photo of higher resolution or one taken from nearer."
            )
        head = self._reconstruct(pixels, landmarks)
        if abs(head.pose.yaw_deg) > MAX_YAW_DEG:
            raise ExtremeProfileError(
                f"The face is turned {abs(head.pose.yaw_deg):.0f} degrees from the camera and at most {MAX_YAW_DEG} "
                "can be read; use a photo that shows the person from the front."
            )
        return FaceReading(
            faces=faces, face_index=index, landmarks=landmarks, confidence=float(confidence[index]), head=head
        )

    def _reconstruct(self, pixels: NDArray[np.uint8], landmarks: Tensor) -> ReconstructedHead:
        """The head, read in the photo turned by a quarter, a half or three quarters where the face lies like that."""
        right_eye, left_eye = five_points(landmarks[None, :, :2])[0, :2].tolist()
        clockwise_deg = math.degrees(math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0]))
        quarters = round(clockwise_deg / 90) % 4
        upright = landmarks
        for turn in range(quarters):
            x, y, z = upright.unbind(dim=1)
            upright = torch.stack([y, pixels.shape[1 - turn % 2] - x, z], dim=1)
        head = self._reconstructor.reconstruct(np.ascontiguousarray(np.rot90(pixels, quarters)), upright)
        roll_deg = (head.pose.roll_deg - 90 * quarters + 180) % 360 - 180
        return replace(head, pose=replace(head.pose, roll_deg=roll_deg)) if quarters else head

    def _confirmed(self, pixels: NDArray[np.uint8]) -> tuple[tuple[DetectedFace, ...], Tensor, Tensor]:
        """Faces that the network takes for faces, their landmarks (F,478,3) and confidence (F,)."""
        found = self._detector.detect(pixels)
        if not found:
            return (), torch.zeros(0, 478, 3), torch.zeros(0)
        photo = to_tensor(pixels)
        read = [self._read_either_way_up(photo, face) for face in found]
        landmarks, confidence = (torch.cat(values) for values in zip(*read, strict=True))
        sure = confidence >= MIN_CONFIDENCE
        faces = tuple(face for face, is_face in zip(found, sure.tolist(), strict=True) if is_face)
        return faces, landmarks[sure], confidence[sure]

    def _read_either_way_up(self, photo: Tensor, face: DetectedFace) -> tuple[Tensor, Tensor]:
        """Landmarks (1,478,3) and confidence (1,), the surer ones of two.

        Detectors take some faces that are upside down for upright ones, and so does the network, but it is surer of
        the truth: in 143 of 143 portraits, by a factor of 7 or more in the odds.
        """
        box = torch.tensor([face.box])
        tilts_deg = (face.tilt_deg, face.tilt_deg + 180.0)
        readings = [self._landmarks.read_with_confidence(photo, box, torch.tensor([tilt])) for tilt in tilts_deg]
        return max(readings, key=lambda reading: float(reading[1]))


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
