"""What metrics measure from: a video, the face in each of its frames, and the photo of the person it should show."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.imaging import read_photo, to_tensor
from fantasyid.core.input_files import file_sha256
from fantasyid.core.video import open_video
from fantasyid.evaluation.clip import Clip
from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.inception import Inception
from fantasyid.evaluation.protocol import Aspect
from fantasyid.evaluation.reader.measures import face_vertices
from fantasyid.face.align import FACE_SIZE, face_transform, warp
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.face.types import DetectedFace
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.vision import FaceVisionModel

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Instruments:
    """What sees: the same for all videos that are compared.

    Attributes:
        judge: Finds faces and tells people apart.
        face_reader: Reads what the faces do, and their heads.
        face_vision: Sees what the faces look like.
        fingerprint: Hash of all.
        inception: Sees pictures as the FID does; None where its weights are not given.
        clip: Compares pictures with the prompt; None where it is not given.
    """

    judge: Judge
    face_reader: FaceReaderModel
    face_vision: FaceVisionModel
    fingerprint: str
    inception: Inception | None = None
    clip: Clip | None = None

    @classmethod
    def load(
        cls, judge: Judge, model: Path = MINI_FOLDER, inception: Inception | None = None, clip: Clip | None = None
    ) -> "Instruments":
        """A judge, the networks of a packed model, and what else is given."""
        digest = hashlib.sha256((judge.fingerprint + HeadModel.load().coefficients_hash).encode())
        for name in ("face_reader_model", "face_vision"):
            digest.update((model / name / "manifest.json").read_bytes())  # it names the weights by their hash
        for given in (inception, clip):
            digest.update((given.fingerprint if given else "").encode())
        face_reader, face_vision = (load_component(model, name) for name in ("face_reader_model", "face_vision"))
        return cls(judge, face_reader, face_vision, digest.hexdigest(), inception, clip)

    @cached_property
    def landmark_reader(self) -> LandmarkReader:
        """Finds landmarks."""
        return LandmarkReader(self.face_reader)

    @cached_property
    def head_model(self) -> HeadModel:
        """What heads are made of."""
        return HeadModel.load()

    @cached_property
    def reconstructor(self) -> BuiltinReconstructor:
        """Reads heads."""
        return BuiltinReconstructor(self.head_model, self.face_reader)


@dataclass(frozen=True, eq=False)
class SeenHeads:
    """The heads in F frames.

    Attributes:
        vertices: (F,V,3) cm, the skin of the neutral faces.
        pose_deg: (F,3) yaw, pitch and roll.
        expression: (F,E) activations.
    """

    vertices: NDArray[np.float64]
    pose_deg: NDArray[np.float64]
    expression: NDArray[np.float64]


class SeenVideo:
    """A video as the instruments see it. What costs time is done when it is first asked for, and once.

    Args:
        frames: Gives the frames, RGB uint8 (H,W,3) of one size, as often as it is called.
        fps: Frames per second.
        instruments: What sees.
        sha256: Names the video's file.
        asks: What its prompt asks for.
        text: The prompt.
    """

    def __init__(
        self,
        frames: Callable[[], Iterable[NDArray[np.uint8]]],
        fps: float,
        instruments: Instruments,
        sha256: str,
        asks: frozenset[Aspect] = frozenset(),
        text: str = "",
    ) -> None:
        self.frames, self.fps, self.instruments = frames, fps, instruments
        self.sha256, self.asks, self.text = sha256, asks, text

    @classmethod
    def open(
        cls, path: Path, instruments: Instruments, asks: frozenset[Aspect] = frozenset(), text: str = ""
    ) -> "SeenVideo":
        """Open a video file, of any length.

        Args:
            path: What `core.video.open_video` reads.
            instruments: What sees.
            asks: What its prompt asks for.
            text: The prompt.

        Raises:
            UnreadableVideoError: It cannot be read.
        """
        film = open_video(path)
        return cls(film.frames, film.fps, instruments, file_sha256(path), asks, text)

    @property
    def fingerprint(self) -> str:
        """Names the video's file, what sees it, and what it was asked for."""
        return f"{self.sha256} {self.instruments.fingerprint} {sorted(self.asks)} {self.text}"

    @cached_property
    def track(self) -> FaceTrack:
        """The largest face of each of the T frames, or None, and its embedding."""
        return self.instruments.judge.track(self.frames())

    @property
    def faces(self) -> tuple[DetectedFace | None, ...]:
        """The largest face of each of the T frames, or None."""
        return self.track.faces

    def frames_with_face(self) -> Iterator[tuple[NDArray[np.uint8], DetectedFace]]:
        """The F frames that show a face, and the face."""
        for frame, face in zip(self.frames(), self.faces, strict=True):
            if face is not None:
                yield frame, face

    def triples(self) -> NDArray[np.intp]:
        """(P,3) which of the F frames with a face follow each other without a gap, three at a time."""
        at = np.flatnonzero([face is not None for face in self.faces])
        first = np.flatnonzero(at[2:] - at[:-2] == 2)
        return first[:, None] + np.arange(3)

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """(F,478,3) pixels, of the F frames that show a face; z smaller = nearer."""
        read = [np.empty((0, 478, 3), np.float32)]
        frames = self.frames_with_face()
        while batch := list(islice(frames, _FRAMES_AT_ONCE)):
            photos = torch.cat([to_tensor(frame) for frame, _ in batch])
            boxes = torch.tensor([face.box for _, face in batch])
            read.append(self.instruments.landmark_reader.read(photos, boxes).numpy())
        return np.concatenate(read)

    @cached_property
    def crops(self) -> NDArray[np.uint8]:
        """(F,96,96,3) RGB, the faces aligned by eyes, nose and mouth."""
        cut = [np.empty((0, FACE_SIZE, FACE_SIZE, 3), np.uint8)]
        for (frame, _), points in zip(self.frames_with_face(), torch.from_numpy(self.landmarks), strict=True):
            crop = warp(to_tensor(frame), face_transform(points[None, :, :2]), FACE_SIZE)
            cut.append(((crop.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).byte().numpy())
        return np.concatenate(cut)

    @cached_property
    def luminance(self) -> NDArray[np.float64]:
        """(F,96,96) of the crops, 0 to 1, by Rec. 601."""
        return np.asarray(self.crops @ np.array([0.299, 0.587, 0.114]) / 255)

    @cached_property
    def heads(self) -> SeenHeads:
        """The head in each of the F frames that show a face."""
        head = self.instruments.head_model
        skin = face_vertices(head)
        read = [
            self.instruments.reconstructor.reconstruct(frame, points)
            for (frame, _), points in zip(self.frames_with_face(), torch.from_numpy(self.landmarks), strict=True)
        ]
        poses = [(seen.pose.yaw_deg, seen.pose.pitch_deg, seen.pose.roll_deg) for seen in read]
        return SeenHeads(
            np.array([seen.vertices[skin].double().numpy() for seen in read]).reshape(len(read), int(skin.sum()), 3),
            np.array(poses, np.float64).reshape(len(read), 3),
            np.array([seen.expression.double().numpy() for seen in read]).reshape(
                len(read), len(head.expression_names)
            ),
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """The photo of a person.

    Attributes:
        view: The photo as a video of one frame, in which the face is seen.
        embedding: (D,) of the face, by the judge.
        sha256: Names photo and face.
    """

    view: SeenVideo
    embedding: NDArray[np.float32]
    sha256: str

    @classmethod
    def read(cls, path: Path, instruments: Instruments, face_index: int | None = None) -> "Reference":
        """Look at a photo.

        Args:
            path: The file.
            instruments: What looks.
            face_index: Which face, 0 being the largest, which None takes.

        Raises:
            FantasyIDError: The photo cannot be read, or there is no such face in it.
        """
        photo, face = instruments.judge.find_reference(read_photo(path), face_index)
        embedding = instruments.judge.recognizer.embed(photo, face)
        digest = hashlib.sha256(path.read_bytes() + f" {face_index}".encode()).hexdigest()
        view = SeenVideo(lambda: [photo], 1, instruments, digest)
        view.track = FaceTrack((face,), (embedding,))
        return cls(view, embedding, digest)
