"""The person of a shot: the face in every frame, its pose, and views from different sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fantasyid.data.clips.config import MeasureConfig
from fantasyid.data.clips.faces import SeenFace
from fantasyid.data.clips.numbers import digest, rounded
from fantasyid.data.clips.source_video import SourceVideo
from fantasyid.data.clips.views import choose_views, view_picture, viewing_directions
from fantasyid.data.dataset.rows import View
from fantasyid.face.interface import FaceReconstructor
from fantasyid.face.pose import estimate_poses, pose_of_rotation
from fantasyid.face.types import HeadPose
from fantasyid.geometry.fitting import fit_landmarks
from fantasyid.geometry.head_model import HeadModel


@dataclass(frozen=True, eq=False)
class Person:
    """One face through a shot.

    Attributes:
        track: Number of the face in its shot.
        faces: The face by the number of the frame in the video, where it is seen.
        poses: Its pose in the same frames.
        views: What is seen of it from different sides, as chosen: the two that differ most first.
    """

    track: int
    faces: Mapping[int, SeenFace]
    poses: Mapping[int, HeadPose]
    views: tuple[View, ...]


def track_poses(head: HeadModel, landmarks: Tensor, check_every: int) -> tuple[HeadPose, ...]:
    """Poses of one person's head, quickly, and without what the quick way gets wrong about this person.

    The average head is turned onto each frame's landmarks; in some frames it is fitted to the person as well, and the
    median difference is added to all. Of a smiling face the average head's pitch was off by 4 degrees, and this by 1.

    Args:
        head: The head model.
        landmarks: (T,478,3) pixels.
        check_every: The fit, 0.1 s on one core, is made for each so manieth frame.

    Returns:
        T poses.
    """
    quick = _angles(estimate_poses(head, landmarks))
    fitted = [fit_landmarks(head, frame[None]).rotation[0] for frame in landmarks[::check_every]]
    checked = _angles(tuple(pose_of_rotation(rotation) for rotation in fitted))
    corrected = quick + (checked - quick[::check_every]).quantile(0.5, dim=0)
    return tuple(HeadPose(*angles) for angles in corrected.tolist())


def see_person(
    faces: Mapping[int, SeenFace],
    video: SourceVideo,
    sha256: str,
    config: MeasureConfig,
    head: HeadModel,
    reconstructor: FaceReconstructor,
) -> tuple[Person, dict[str, Tensor]]:
    """Find the poses of a face through a shot, and choose views among all its frames.

    Args:
        faces: By the number of the frame, at least one; all of one track.
        video: Where the frames are.
        sha256: Of the video, for the views' keys.
        config: How many views, how sure, how sharp, how far apart.
        head: The head model that poses are told by.
        reconstructor: Reads the head of each view.

    Returns:
        The person, and by `KEY/picture`, `KEY/landmarks` and `KEY/vertices` what is kept of the views.
    """
    landmarks = torch.stack([face.landmarks for face in faces.values()])
    poses = dict(zip(faces, track_poses(head, landmarks, config.detect_every), strict=True))
    sharpest = float(np.median([face.sharpness for face in faces.values()]))
    eligible = [
        number
        for number, face in faces.items()
        if face.confidence >= config.view_confidence and face.sharpness >= config.view_sharpness * sharpest
    ]
    directions = viewing_directions([poses[number] for number in eligible])
    chosen = [eligible[index] for index in choose_views(directions, config.views, config.view_separation_deg)]
    frames = dict(zip(sorted(chosen), video.chosen(sorted(chosen)), strict=True))
    views: list[View] = []
    kept: dict[str, Tensor] = {}
    for number in chosen:
        face, pose = faces[number], poses[number]
        read = reconstructor.reconstruct(frames[number], face.landmarks)
        picture = view_picture(frames[number], face.landmarks, config.view_height)
        key = digest(sha256, number, face.track)
        kept |= {f"{key}/picture": picture.jpeg, f"{key}/landmarks": picture.landmarks.float()}
        kept[f"{key}/vertices"] = read.vertices.float()
        views.append(
            View(
                key=key,
                frame=number,
                yaw_deg=rounded(pose.yaw_deg),
                pitch_deg=rounded(pose.pitch_deg),
                roll_deg=rounded(pose.roll_deg),
                confidence=rounded(face.confidence),
                sharpness=rounded(face.sharpness),
                error_cm=rounded(read.error_cm),
            )
        )
    return Person(next(iter(faces.values())).track, faces, poses, tuple(views)), kept


def _angles(poses: Sequence[HeadPose]) -> Tensor:
    return torch.tensor([(pose.yaw_deg, pose.pitch_deg, pose.roll_deg) for pose in poses], dtype=torch.float64)
