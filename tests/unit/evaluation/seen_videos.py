"""Videos as metrics see them, made of frames, faces or embeddings that are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.metrics.interface import value_of_one
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.protocol import Aspect
from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo
from fantasyid.models.face_reader import FaceReaderModel
from tests.tiny import tiny_face_vision

UNASKED: Any = None
"""In place of a judge that is not asked."""
BLACK = np.zeros((64, 64, 3), np.uint8)


def tiny_instruments(judge: Judge) -> Instruments:
    """A judge, and tiny networks for crops of the built-in ones' sizes."""
    torch.manual_seed(0)
    reader = FaceReaderModel(channels=(8, 8, 8, 8), landmark_width=8, head_channels=8, head_width=8).eval()
    return Instruments(judge, reader, tiny_face_vision(image_size=96).eval(), "tiny")


def seen(
    frames: Sequence[NDArray[np.uint8]],
    judge: Judge,
    track: FaceTrack | None = None,
    fps: float = 8,
    asks: frozenset[Aspect] = frozenset(),
) -> SeenVideo:
    """A video of these frames; what the judge sees in it is looked for, or given."""
    video = SeenVideo(lambda: frames, fps, tiny_instruments(judge), "frames", asks)
    if track is not None:
        video.track = track
    return video


def person(embedding: NDArray[np.float32], view: SeenVideo | None = None) -> Reference:
    """A photo of which the embedding is known, and perhaps more."""
    return Reference(view or seen([BLACK], UNASKED), embedding, "photo")


def score(judge: Judge, embedding: NDArray[np.float32], track: FaceTrack) -> dict[str, Any]:
    """The numbers about who is seen, by key, of a video whose embeddings are known; and what each is made of."""
    video, photo = seen([BLACK] * len(track.faces), judge, track), person(embedding)
    keys = ("detection_rate", "verification_rate", "median_distance", "reference_similarity", "inter_frame_similarity")
    metrics = {metric.definition.key: metric for metric in all_metrics()}
    values = {key: value_of_one(metrics[key], video, photo) for key in keys}
    return {**values, "distances": metrics["median_distance"].measure(video, photo)}
