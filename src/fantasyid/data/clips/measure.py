"""Measuring the clips of one video; what is kept is decided later, from these numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.core.input_files import file_sha256
from fantasyid.data.clips.boxes import Box, area, intersection
from fantasyid.data.clips.config import MeasureConfig
from fantasyid.data.clips.faces import FaceNetworks, FaceTracker, SeenFace, mean_embedding, person_change
from fantasyid.data.clips.numbers import digest, rounded
from fantasyid.data.clips.person import Person, see_person
from fantasyid.data.clips.quality import face_motion
from fantasyid.data.clips.samples import Places, Sample, main_track, other_faces, see
from fantasyid.data.clips.shots import clips_of_shot, find_shots, parts_of_shot, sampled_frames
from fantasyid.data.clips.source_video import SourceVideo
from fantasyid.data.clips.text import TextFinder
from fantasyid.data.clips.views import spread_deg, viewing_directions
from fantasyid.data.dataset.rows import Candidate, Fault, ReadText, Source
from fantasyid.face.interface import FaceReconstructor
from fantasyid.geometry.head_model import HeadModel

_ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a video gave.

    Attributes:
        candidates: Its clips, and shots and faults without one.
        pictures: By key: `VIEW/picture` JPEG bytes, `VIEW/landmarks` (478,3) pixels of it, `VIEW/vertices` (N,3) cm of
            the neutral head, and `CLIP/thumbnail` JPEG bytes.
        tracks: By key: `CLIP/landmarks` (T,478,3) pixels, NaN where the face was not seen.
    """

    candidates: list[Candidate] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    tracks: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measurer:
    """Measures videos; on one thread, the same file gives the same numbers.

    Attributes:
        config: How.
        networks: What reads faces.
        reconstructor: Makes the neutral head of each view.
        head: The head model that poses are told by.
        text: Finds text.
    """

    config: MeasureConfig
    networks: FaceNetworks
    reconstructor: FaceReconstructor
    head: HeadModel
    text: TextFinder

    def measure(self, source: Source, path: Path) -> Measured:
        """Measure all clips of a video.

        Args:
            source: Its row.
            path: The file.

        Returns:
            At least one candidate; of a video that cannot be decoded to its end one with that fault.

        Raises:
            InvalidRequestError: There is no such file, or this user may not read it.
        """
        known: dict[str, Any] = source.model_dump(include={"path", "licence", "film", "captions", "annotations"})
        try:
            known |= {"sha256": file_sha256(path), "picture": source.crop or ()}
        except OSError as error:
            raise InvalidRequestError(
                f"The video {path} cannot be read ({error.strerror}); put it back, or change its permissions."
            ) from error
        try:
            return self._measure(SourceVideo.open(path, source.crop), source, known)
        except UnreadableVideoError as error:
            return Measured([_fault(known, "unreadable", str(error).replace(str(path), source.path))])

    def _measure(self, video: SourceVideo, source: Source, known: dict[str, Any]) -> Measured:
        config, result = self.config, Measured()
        known |= {"fps": video.fps, "height": video.size[0], "width": video.size[1]}
        if video.fps < config.fps * (1 - 1e-6):
            return Measured([_fault(known, "too slow", f"{video.fps:g} frames per second")])
        first, stop = source.cut or (0, None)
        frames = islice(video.frames(), first, stop)
        for shot in find_shots(frames, config.shot_contrast, config.shot_change):
            shot = (shot[0] + first, shot[1] + first)
            for part in parts_of_shot(shot, config.edge_frames, round(config.longest_shot_s * video.fps)):
                self._measure_part(part, video, known | {"shot": part}, result)
        if not result.candidates:
            return Measured([_fault(known, "short shot", f"0 of {config.num_frames} frames")])
        return result

    def _measure_part(self, part: tuple[int, int], video: SourceVideo, known: dict[str, Any], result: Measured) -> None:
        config = self.config
        numbers = sampled_frames(part, video.fps, config.fps)
        clips = clips_of_shot(len(numbers), config.num_frames, config.clips_per_shot)
        if not clips:
            said = f"{len(numbers)} of {config.num_frames} frames"
            result.candidates.append(_fault(known, "short shot", said))
            return
        places = Places.of(clips, config.text_frames)
        tracker = FaceTracker(self.networks, config.detect_every)
        samples = see(video.chosen(numbers), tracker, self.text, places)
        people: dict[int, Person] = {}
        for clip in clips:
            chosen = [samples[index] for index in clip]
            frames = tuple(numbers[index] for index in clip)
            track = main_track(chosen)
            if track is not None and track not in people:
                shown = {number: sample.face(track) for number, sample in zip(numbers, samples, strict=True)}
                faces = {number: face for number, face in shown.items() if face is not None}
                people[track], kept = see_person(faces, video, known["sha256"], config, self.head, self.reconstructor)
                result.pictures.update(kept)
            candidate = self._candidate(chosen, frames, None if track is None else people[track], known)
            result.candidates.append(candidate)
            result.pictures[f"{candidate.clip_id}/thumbnail"] = _thumbnail_of(chosen)
            result.tracks[f"{candidate.clip_id}/landmarks"] = _landmarks_of(chosen, track)

    def _candidate(
        self, samples: Sequence[Sample], frames: tuple[int, ...], person: Person | None, known: dict[str, Any]
    ) -> Candidate:
        """The row of a clip."""
        size = (known["height"], known["width"])
        seen = [None if person is None else person.faces.get(number) for number in frames]
        boxes = [face.box for face in seen if face is not None]
        crop = _crop(boxes, size, self.config.width / self.config.height)
        values: dict[str, Any] = {
            "clip_id": digest(known["sha256"], frames[0], frames[-1], crop),
            "frames": frames,
            "crop": crop,
            "texts": _texts(samples, size),
            "luma": rounded(np.mean([sample.luma for sample in samples])),
            "picture_motion": rounded(np.mean([sample.motion for sample in samples[1:]])),
            "hashes": tuple(samples[index].hash for index in (0, len(samples) // 2, -1)),
            "confidence": tuple(0.0 if face is None else rounded(face.confidence) for face in seen),
        }
        if person is not None:
            other_area, other_frames = other_faces(samples, person.track)
            poses = [person.poses[number] for number in frames if number in person.poses]
            values |= _of_face(seen, crop)
            values |= {name: tuple(rounded(getattr(pose, name)) for pose in poses) for name in _ANGLES}
            values |= {
                "other_area": rounded(other_area),
                "other_frames": rounded(other_frames),
                "views": person.views,
                "view_spread_deg": rounded(spread_deg(viewing_directions(person.views))),
            }
        return Candidate(**known | values)


def _of_face(seen: Sequence[SeenFace | None], crop: tuple[int, ...]) -> dict[str, Any]:
    """What the person's face does in a clip's frames, None where it is not seen."""
    faces = [face for face in seen if face is not None]
    shown: Box = (crop[0], crop[1], crop[2], crop[3])
    moves = [
        face_motion(before.landmarks, after.landmarks)
        for before, after in pairwise(seen)
        if before is not None and after is not None
    ]
    return {
        "face_height": rounded(np.median([face.box[3] - face.box[1] for face in faces])),
        "face_outside": rounded(max(1 - intersection(face.box, shown) / area(face.box) for face in faces)),
        "person_change": rounded(person_change(faces)),
        "embedding": tuple(rounded(value) for value in mean_embedding(faces)),
        "face_motion": rounded(np.mean(moves)) if moves else 0.0,
        "sharpness": rounded(np.median([face.sharpness for face in faces])),
    }


def _fault(known: dict[str, Any], fault: Fault, detail: str) -> Candidate:
    """A row without a clip."""
    return Candidate(clip_id=digest(known["sha256"], known.get("shot", ())), fault=fault, detail=detail, **known)


def _crop(boxes: Sequence[Box], size: tuple[int, int], aspect: float) -> tuple[int, ...]:
    """The largest part of the picture of that shape, xyxy, placed so that the face's way is in its middle."""
    height, width = size
    crop_width = min(width, round(height * aspect))
    crop_height = min(height, round(width / aspect))
    middle = (width / 2, height / 2)
    if boxes:
        middle = (
            (min(box[0] for box in boxes) + max(box[2] for box in boxes)) / 2,
            (min(box[1] for box in boxes) + max(box[3] for box in boxes)) / 2,
        )
    left = min(max(0, round(middle[0] - crop_width / 2)), width - crop_width)
    top = min(max(0, round(middle[1] - crop_height / 2)), height - crop_height)
    return left, top, left + crop_width, top + crop_height


def _texts(samples: Sequence[Sample], size: tuple[int, int]) -> tuple[ReadText, ...]:
    scale = (size[1], size[0], size[1], size[0])
    return tuple(
        ReadText(
            frame=index,
            box=tuple(rounded(edge / side) for edge, side in zip(found.box, scale, strict=True)),
            score=found.score,
            text=found.text,
        )
        for index, sample in enumerate(samples)
        for found in sample.texts
    )


def _thumbnail_of(samples: Sequence[Sample]) -> Tensor:
    thumbnail = samples[len(samples) // 2].thumbnail
    assert thumbnail is not None, "Places keeps that of the middle"
    return thumbnail


def _landmarks_of(samples: Sequence[Sample], person: int | None) -> Tensor:
    missing = torch.full((478, 3), torch.nan)
    faces = (sample.face(person) for sample in samples)
    return torch.stack([missing if face is None else face.landmarks.float() for face in faces])
