"""What metrics measure from: a video, the face in each of its frames, and the photo of the person it should show."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.imaging import read_photo, to_tensor
from fantasyid.core.video import open_video
from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.types import DetectedFace
from fantasyid.models.face_reader import FaceReaderModel

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Instruments:
    """What sees: the same for all videos that are compared.

    Attributes:
        judge: Finds faces and tells people apart.
        face_reader: Reads what the faces do.
        fingerprint: Hash of both.
    """

    judge: Judge
    face_reader: FaceReaderModel
    fingerprint: str

    @classmethod
    def load(cls, judge: Judge, model: Path = MINI_FOLDER) -> "Instruments":
        """A judge, and the face reader of a packed model."""
        network = load_component(model, "face_reader_model")
        manifest = (model / "face_reader_model" / "manifest.json").read_bytes()  # it names the weights by their hash
        return cls(judge, network, hashlib.sha256(judge.fingerprint.encode() + manifest).hexdigest())


@dataclass(frozen=True, eq=False)
class Reference:
    """The photo of a person.

    Attributes:
        photo: RGB uint8 (H,W,3).
        embedding: (D,) of the face, by the judge.
        sha256: Names photo and face.
    """

    photo: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    sha256: str

    @classmethod
    def read(cls, path: Path, judge: Judge, face_index: int | None = None) -> "Reference":
        """Look at a photo.

        Args:
            path: The file.
            judge: Who looks.
            face_index: Which face, 0 being the largest, which None takes.

        Raises:
            FantasyIDError: The photo cannot be read, or there is no such face in it.
        """
        photo = read_photo(path)
        digest = hashlib.sha256(path.read_bytes() + f" {face_index}".encode()).hexdigest()
        return cls(photo, judge.embed_reference(photo, face_index), digest)


class SeenVideo:
    """A video as the instruments see it. What costs time is done when it is first asked for, and once.

    Args:
        frames: Gives the frames, RGB uint8 (H,W,3) of one size, as often as it is called.
        fps: Frames per second.
        instruments: What sees.
        sha256: Names the video's file.
    """

    def __init__(
        self, frames: Callable[[], Iterable[NDArray[np.uint8]]], fps: float, instruments: Instruments, sha256: str
    ) -> None:
        self.frames, self.fps, self.instruments, self.sha256 = frames, fps, instruments, sha256

    @classmethod
    def open(cls, path: Path, instruments: Instruments) -> "SeenVideo":
        """Open a video file, of any length.

        Args:
            path: What `core.video.open_video` reads.
            instruments: What sees.

        Raises:
            UnreadableVideoError: It cannot be read.
        """
        film = open_video(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(film.frames, film.fps, instruments, digest)

    @property
    def fingerprint(self) -> str:
        """Names the video's file and what sees it."""
        return f"{self.sha256} {self.instruments.fingerprint}"

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

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """(F,478,3) pixels, of the F frames that show a face; z smaller = nearer."""
        reader = LandmarkReader(self.instruments.face_reader)
        read = [np.empty((0, 478, 3), np.float32)]
        for batch in _batches(self.frames_with_face()):
            photos = torch.cat([to_tensor(frame) for frame, _ in batch])
            read.append(reader.read(photos, torch.tensor([face.box for _, face in batch])).numpy())
        return np.concatenate(read)


def _batches(
    frames: Iterable[tuple[NDArray[np.uint8], DetectedFace]],
) -> Iterator[list[tuple[NDArray[np.uint8], DetectedFace]]]:
    batch: list[tuple[NDArray[np.uint8], DetectedFace]] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == _FRAMES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
