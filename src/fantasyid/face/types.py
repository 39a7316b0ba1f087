"""What face backends give each other."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DetectedFace:
    """A face found in a photo.

    Attributes:
        box: xyxy pixels; may reach over the photo's edge.
        score: The detector's own measure, higher = surer.
        points: Pixels (x, y) of eye centres, nose tip and mouth corners, the subject's right (the picture's left)
            first; None from a detector that finds boxes alone.
        tilt_deg: How far the face is turned in the photo, positive: counter-clockwise, as far as the detector knows.
            What reads the face finds the rest, up to 55 degrees.
    """

    box: tuple[float, float, float, float]
    score: float
    points: tuple[tuple[float, float], ...] | None = None
    tilt_deg: float = 0.0

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class HeadPose:
    """Direction of a head.

    Attributes:
        yaw_deg: Positive: turned to the right of the picture.
        pitch_deg: Positive: chin down.
        roll_deg: Positive: counter-clockwise.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True, eq=False)
class ReconstructedHead:
    """The 3D head seen in a photo.

    Attributes:
        vertices: (N,3) cm, head space, the person's NEUTRAL head: no expression, no pose.
        topology_hash: Hash of the mesh the vertices belong to.
        pose: Of the head in the photo.
        expression: (E,) coefficients of the backend's expression basis.
        error_cm: How far the fitted head is from what was seen of the face.
    """

    vertices: Tensor
    topology_hash: str
    pose: HeadPose
    expression: Tensor
    error_cm: float


@dataclass(frozen=True, eq=False)
class FaceReading:
    """All that is read of one person's face in a photo.

    Attributes:
        faces: Every face the detector found, largest first.
        face_index: Which of them was read; no other was confirmed.
        landmarks: (478,3) pixels, MediaPipe-478 topology, z scaled like x, smaller = nearer.
        confidence: How surely the picture shows a face there, in [0, 1].
        head: The person's head in 3D.
    """

    faces: tuple[DetectedFace, ...]
    face_index: int
    landmarks: Tensor
    confidence: float
    head: ReconstructedHead

    @property
    def num_faces(self) -> int:
        """Faces found in the photo."""
        return len(self.faces)

    @property
    def face(self) -> DetectedFace:
        """The face that was read."""
        return self.faces[self.face_index]

    @property
    def choice_note(self) -> str:
        """A sentence that says which of several faces was read, and where they are."""
        boxes = ", ".join(
            f"{index}: {round((face.box[0] + face.box[2]) / 2)},{round((face.box[1] + face.box[3]) / 2)}"
            for index, face in enumerate(self.faces)
        )
        return (
            f"{self.num_faces} faces found; using face {self.face_index}. Centres in pixels from the top left: {boxes}."
        )
