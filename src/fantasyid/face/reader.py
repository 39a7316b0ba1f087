"""Reading a photo: which face, where its landmarks are, and what its head looks like in 3D."""

import logging
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import (
    ExtremeProfileError,
    FaceChoiceError,
    FaceTooSmallError,
    IncompleteFaceError,
    NoFaceError,
)
from fantasyid.core.imaging import Photo, as_photo, to_tensor
from fantasyid.face.align import crop_corners, five_points, portrait_transform
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.interface import FaceDetector, FaceReconstructor
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.part import PhotoPart
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.face.types import DetectedFace, FaceReading, ReconstructedHead
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel

logger = logging.getLogger(__name__)

MIN_FACE_PIXELS = 48
MIN_CONFIDENCE = 0.5
MAX_YAW_DEG = 45
# The first crop sees 0.7 sides beyond the box where the face is turned by 45 degrees, the second less.
SEEN_AROUND_BOX = 1.0
# Of the face's longer side. The network places landmarks beyond the edge where the face goes on there: of nine
# portraits cut right at the face they reached 0.013 over it, and 0.06 to 0.16 where a tenth of the face was cut off.
MAX_FACE_OUTSIDE = 0.05
# Of the portrait frame: less is a strip that nobody sees.
MAX_FRAME_OUTSIDE = 0.02


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
            photo: Whatever `as_photo` takes, such as a path, a PIL image, or RGB uint8 (H,W,3).
            face_index: Which face, counted from 0 by falling size; None takes the largest that the network confirms.

        Returns:
            The reading; its `faces` and `face_index` tell which face was taken from how many.

        Raises:
            UnreadablePhotoError: The file is missing, damaged or not a picture.
            NoFaceError: No face was found.
            FaceChoiceError: There is no face of that number.
            FaceTooSmallError: The face is smaller than 48 pixels.
            IncompleteFaceError: The photo ends inside the face. Where it ends close around it, a warning is logged.
            ExtremeProfileError: The face is turned by more than 45 degrees.
        """
        pixels = as_photo(photo)
        faces = self._detector.detect(pixels)
        index, landmarks, confidence = self._confirmed(pixels, faces, face_index)
        # The longer side, because turning or nodding makes the other one short.
        size = float((landmarks[:, :2].amax(dim=0) - landmarks[:, :2].amin(dim=0)).max())
        if size < MIN_FACE_PIXELS:
            raise FaceTooSmallError(
                f"The face is {size:.0f} pixels high and at least {MIN_FACE_PIXELS} are needed; "
                "use a photo of higher resolution or one taken from nearer."
            )
        _check_room(pixels, landmarks[:, :2], size)
        head = self._reconstruct(pixels, landmarks)
        if abs(head.pose.yaw_deg) > MAX_YAW_DEG:
            raise ExtremeProfileError(
                f"The face is turned {abs(head.pose.yaw_deg):.0f} degrees from the camera and at most {MAX_YAW_DEG} "
                "can be read; use a photo that shows the person from the front."
            )
        return FaceReading(faces=faces, face_index=index, landmarks=landmarks, confidence=confidence, head=head)

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

    def _confirmed(
        self, pixels: NDArray[np.uint8], faces: tuple[DetectedFace, ...], face_index: int | None
    ) -> tuple[int, Tensor, float]:
        """Which face is read, its landmarks (478,3) and its confidence; no other face is looked at."""
        first = choose_face(faces, face_index, pixels)
        for index in range(len(faces)) if face_index is None else (first,):
            landmarks, confidence = self._read_either_way_up(pixels, faces[index])
            if confidence >= MIN_CONFIDENCE:
                return index, landmarks, confidence
        if face_index is None or len(faces) == 1:
            raise _no_face(pixels)
        raise NoFaceError(f"What was found as face {face_index} of the photo is none on a closer look; choose another.")

    def _read_either_way_up(self, pixels: NDArray[np.uint8], face: DetectedFace) -> tuple[Tensor, float]:
        """Landmarks (478,3) and confidence, the surer ones of two.

        Detectors take some faces that are upside down for upright ones, and so does the network, but it is surer of
        the truth: in 143 of 143 portraits, by a factor of 7 or more in the odds.
        """
        corners = torch.tensor(face.box).view(2, 2)
        part = PhotoPart.around(pixels, corners, SEEN_AROUND_BOX)
        photo, placed = to_tensor(part.pixels), part.from_photo(corners).view(1, 4)
        tilts_deg = (face.tilt_deg, face.tilt_deg + 180.0)
        readings = [self._landmarks.read_with_confidence(photo, placed, torch.tensor([tilt])) for tilt in tilts_deg]
        landmarks, confidence = max(readings, key=lambda reading: float(reading[1]))
        return part.to_photo(landmarks[0]), float(confidence)


def choose_face(faces: tuple[DetectedFace, ...], face_index: int | None, photo: NDArray[np.uint8]) -> int:
    """Take one of the faces found in a photo.

    Args:
        faces: Largest first.
        face_index: Which face; None takes the largest.
        photo: RGB (H,W,3).

    Returns:
        Its index.

    Raises:
        NoFaceError: There are no faces.
        FaceChoiceError: There is no face of that number.
    """
    if not faces:
        raise _no_face(photo)
    if face_index is None:
        return 0
    if not 0 <= face_index < len(faces):
        counted = "is 1 face: choose 0" if len(faces) == 1 else f"are {len(faces)} faces: choose 0 to {len(faces) - 1}"
        raise FaceChoiceError(f"There is no face {face_index} in the photo; there {counted}, the largest first.")
    return face_index


def _check_room(photo: NDArray[np.uint8], landmarks: Tensor, size: float) -> None:
    """Refuse a face that the photo cuts, and warn where it cuts what the reference picture shows around the face."""
    over = _over_the_edges(photo, landmarks)
    side = max(over, key=lambda name: over[name])
    if over[side] > MAX_FACE_OUTSIDE * size:
        raise IncompleteFaceError(
            f"The photo ends inside the face: {over[side] / size:.0%} of it lie beyond the {side} edge; use a photo "
            "that shows the whole face, and hair and shoulders too."
        )
    affine = portrait_transform(landmarks[None])
    corners = crop_corners(affine)[0]
    frame = float((corners[1] - corners[0]).norm())
    short = [name for name, far in _over_the_edges(photo, corners).items() if far > MAX_FRAME_OUTSIDE * frame]
    if short:
        logger.warning(
            "The photo ends close to the face at the %s edge; what the model should see there is made up, and may "
            "become a hat, a beard or a collar in the video. A photo with more room around the head is better.",
            " and ".join(short),
        )


def _over_the_edges(photo: NDArray[np.uint8], points: Tensor) -> dict[str, float]:
    """How many pixels the outermost of points (P,2) lies beyond each edge; less than 0 is inside."""
    height, width = photo.shape[:2]
    (left, top), (right, bottom) = points.amin(dim=0).tolist(), points.amax(dim=0).tolist()
    return {"left": -left, "right": right - width, "upper": -top, "lower": bottom - height}


def _no_face(photo: NDArray[np.uint8]) -> NoFaceError:
    height, width = photo.shape[:2]
    return NoFaceError(
        f"No face was found in the photo ({width}x{height} pixels); use one that shows the person upright and from "
        f"the front, with the face at least {MIN_FACE_PIXELS} pixels high."
    )
