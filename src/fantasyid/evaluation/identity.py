"""Who is in a picture? The judge, whose answers RS, IFS and verification are made of (paper section 4.1).

The judge is a face recogniser that had no part in training. With dlib's ResNet, two photos of one person are 0.37 apart
(median) and of two people 0.85; 98.9 % and 0.45 % lie under 0.6, so that is "verified". Its raw cosines have
little range (0.97 against 0.83), because all its embeddings point roughly one way. RS and IFS are therefore cosines of
centred embeddings: the mean embedding over people (`judge_centre.json`) is subtracted first, which gives about 0.8 for
one person and 0 for two. They are not comparable with the paper's ArcFace numbers; `Judge.arcface` gives those.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.insightface import ArcFaceRecognizer, InsightFaceDetector, models_in_folder
from fantasyid.face.interface import FaceDetector, FaceRecognizer
from fantasyid.face.reader import choose_face
from fantasyid.face.recognize import DlibRecognizer, model_files
from fantasyid.face.types import DetectedFace


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """What the judge saw in a video: the largest face of each frame, or None where there is no face."""

    faces: tuple[DetectedFace | None, ...]
    embeddings: tuple[NDArray[np.float32] | None, ...]


@dataclass(frozen=True, eq=False)
class Judge:
    """Finds and compares faces.

    Args:
        detector: Must find faces as small as the frames hold them: about 70 px at 128x128.
        recognizer: Had no part in training.
        centre: (D,) mean of its embeddings over people; (1,) of 0 where they have none.
        name: Of the recogniser: numbers of two are never the same number.
        fingerprint: Hash of the files that decide what it answers.
    """

    detector: FaceDetector
    recognizer: FaceRecognizer
    centre: NDArray[np.float32]
    name: str
    fingerprint: str

    @classmethod
    def builtin(cls) -> "Judge":
        """dlib's detector and ResNet.

        Raises:
            MissingBackendError: The extra `eval` is not installed.
        """
        text = (files("fantasyid.evaluation") / "judge_centre.json").read_text(encoding="utf-8")
        centre = np.array(json.loads(text)["centre"], dtype=np.float32)
        recognizer = DlibRecognizer()
        return cls(DlibFaceDetector(), recognizer, centre, "dlib-resnet", _hash(*model_files(), text=text))

    @classmethod
    def arcface(cls, folder: Path) -> "Judge":
        """insightface's detector and ArcFace, whose cosines need no centring.

        Args:
            folder: Where the two models of a pack are, see `fantasyid.face.insightface.PACKS`.

        Raises:
            MissingBackendError: onnxruntime is not installed.
            MissingWeightsError: The models are not there.
            CorruptWeightsError: They are damaged.
        """
        detector, recognizer = models_in_folder(folder)
        name = f"arcface {recognizer.stem}"
        judge = InsightFaceDetector(detector), ArcFaceRecognizer(recognizer), np.zeros(1, np.float32)
        return cls(*judge, name, _hash(detector, recognizer))

    def find_reference(
        self, photo: NDArray[np.uint8], face_index: int | None = None
    ) -> tuple[NDArray[np.uint8], DetectedFace]:
        """Find a face in a photo, whichever way up the photo lies.

        Args:
            photo: RGB (H,W,3).
            face_index: Which face, counted from 0 by falling size; None takes the largest.

        Returns:
            The photo, turned upside down if the face is so, and the face in it.

        Raises:
            NoFaceError: There is no face in it.
            FaceChoiceError: There is no face of that number.
        """
        faces = self.detector.detect(photo)
        face = faces[choose_face(faces, face_index, photo)]
        # Detectors take some faces that are upside down for upright ones (dlib's 8 of 100), but score the truth higher.
        turned = np.ascontiguousarray(photo[::-1, ::-1])
        for other in self.detector.detect(turned):
            upright = abs(other.tilt_deg) < 90 and abs(face.tilt_deg) < 90
            if upright and other.score > face.score and _is_turned_place(face, other, photo.shape):
                return turned, other
        return photo, face

    def embed_reference(self, photo: NDArray[np.uint8], face_index: int | None = None) -> NDArray[np.float32]:
        """Embed a face of a photo, (D,); see `find_reference`."""
        return self.recognizer.embed(*self.find_reference(photo, face_index))

    def track(self, frames: Iterable[NDArray[np.uint8]]) -> FaceTrack:
        """Find and embed the largest face of every frame.

        Args:
            frames: RGB (H,W,3) each; held one at a time.
        """
        faces: list[DetectedFace | None] = []
        embeddings: list[NDArray[np.float32] | None] = []
        for frame in frames:
            face = next(iter(self.detector.detect(frame)), None)
            faces.append(face)
            embeddings.append(None if face is None else self.recognizer.embed(frame, face))
        return FaceTrack(tuple(faces), tuple(embeddings))

    def distances(self, reference: NDArray[np.float32], track: FaceTrack) -> tuple[float | None, ...]:
        """Distance of each frame's face to a photo's (D,); None where there is no face."""
        return tuple(None if face is None else self.recognizer.distance(face, reference) for face in track.embeddings)

    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """Cosine of two embeddings (D,) around the centre, -1 to 1."""
        a, b = a - self.centre, b - self.centre
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _hash(*paths: Path, text: str = "") -> str:
    """SHA-256 of files and a text."""
    digests = [
        hashlib.sha256(content).hexdigest() for content in (*(path.read_bytes() for path in paths), text.encode())
    ]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _is_turned_place(face: DetectedFace, other: DetectedFace, shape: tuple[int, ...]) -> bool:
    """Whether a face of the photo upside down is where a face of the photo is, to half a face."""
    x0, y0, x1, y1 = face.box
    other_x0, other_y0, other_x1, other_y1 = other.box
    far_x = abs(x0 + x1 - 2 * shape[1] + other_x0 + other_x1) / 2
    far_y = abs(y0 + y1 - 2 * shape[0] + other_y0 + other_y1) / 2
    return max(far_x, far_y) < (x1 - x0) / 2
