"""What is seen in the sampled frames of a shot, one after the other, so that a shot of any size fits the memory."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fantasyid.data.clips.boxes import area
from fantasyid.data.clips.faces import FaceTracker, SeenFace
from fantasyid.data.clips.quality import picture_hash, picture_motion, small_grey
from fantasyid.data.clips.text import FoundText, TextFinder
from fantasyid.data.clips.views import jpeg_bytes

_THUMBNAIL_HEIGHT = 160


@dataclass(frozen=True, eq=False)
class Sample:
    """What is kept of a frame.

    Attributes:
        faces: See `FaceTracker.step`.
        motion: Of the picture since the sample before; 0 of the first.
        luma: Mean brightness.
        texts: Lines, where text was looked for.
        hash: Of the picture, where it was asked for.
        thumbnail: JPEG bytes, where it was asked for.
    """

    faces: tuple[SeenFace, ...]
    motion: float
    luma: float
    texts: tuple[FoundText, ...]
    hash: str
    thumbnail: Tensor | None

    def face(self, track: int | None) -> SeenFace | None:
        """The face of that number, if it is seen."""
        return next((face for face in self.faces if face.track == track), None)


@dataclass(frozen=True)
class Places:
    """In which samples of a shot to look for more than faces, by their index.

    Attributes:
        text: Where text is read.
        hash: Where the picture is hashed.
        thumbnail: Where a small picture is kept.
    """

    text: Collection[int]
    hash: Collection[int]
    thumbnail: Collection[int]

    @classmethod
    def of(cls, clips: Sequence[range], text_frames: int) -> "Places":
        """Text in frames spread over each clip; a hash of its first, middle and last; a small picture of the middle."""
        middle = {clip[len(clip) // 2] for clip in clips}
        spread = [np.linspace(0, len(clip) - 1, text_frames).round().astype(int).tolist() for clip in clips]
        text = {clip[index] for clip, indices in zip(clips, spread, strict=True) for index in indices}
        return cls(text, middle | {clip[index] for clip in clips for index in (0, -1)}, middle)


def see(frames: Iterable[NDArray[np.uint8]], tracker: FaceTracker, text: TextFinder, places: Places) -> list[Sample]:
    """Look at frames of one shot.

    Args:
        frames: RGB (H,W,3).
        tracker: Knows no face yet.
        text: Reads text.
        places: Where to look for what.
    """
    samples: list[Sample] = []
    before: NDArray[np.uint8] | None = None
    for index, frame in enumerate(frames):
        grey = small_grey(frame)
        samples.append(
            Sample(
                faces=tracker.step(frame),
                motion=0.0 if before is None else picture_motion(before, grey),
                luma=float(grey.mean()),
                texts=text.find(frame) if index in places.text else (),
                hash=picture_hash(frame) if index in places.hash else "",
                thumbnail=_thumbnail(frame) if index in places.thumbnail else None,
            )
        )
        before = grey
    return samples


def main_track(samples: Sequence[Sample]) -> int | None:
    """The face that takes most room over all samples; None where there is none."""
    room: dict[int, float] = {}
    for face in (face for sample in samples for face in sample.faces):
        room[face.track] = room.get(face.track, 0.0) + area(face.box)
    return max(room, key=lambda track: (room[track], -track), default=None)


def other_faces(samples: Sequence[Sample], person: int) -> tuple[float, float]:
    """The face that takes most room beside the person's.

    Args:
        samples: Of a clip.
        person: Track of the person.

    Returns:
        Mean area in parts of the person's, over the samples that show both, and the part of samples that show it.
    """
    others = {face.track for sample in samples for face in sample.faces} - {person}
    found = [(0.0, 0.0)]
    for track in others:
        shown = [sample.face(track) for sample in samples]
        both = [(face, sample.face(person)) for face, sample in zip(shown, samples, strict=True)]
        ratios = [area(face.box) / area(own.box) for face, own in both if face is not None and own is not None]
        part = sum(face is not None for face in shown) / len(samples)
        found.append((float(np.mean(ratios)) if ratios else 1.0, part))
    return max(found, key=lambda pair: pair[0] * pair[1])


def _thumbnail(frame: NDArray[np.uint8]) -> Tensor:
    picture = Image.fromarray(frame)
    scale = min(1.0, _THUMBNAIL_HEIGHT / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return jpeg_bytes(picture.resize(size, Image.Resampling.LANCZOS), 80)
