"""Videos as metrics see them, made of frames, faces or embeddings that are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.metrics.interface import value_of_one
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo
from tests.tiny import tiny_face_reader_model

BLACK = np.zeros((64, 64, 3), np.uint8)


def seen(
    frames: Sequence[NDArray[np.uint8]], judge: Judge, track: FaceTrack | None = None, fps: float = 8
) -> SeenVideo:
    """A video of these frames; what the judge sees in it is looked for, or given."""
    video = SeenVideo(lambda: frames, fps, Instruments(judge, tiny_face_reader_model().eval(), "tiny"), "frames")
    if track is not None:
        video.track = track
    return video


def person(embedding: NDArray[np.float32]) -> Reference:
    """A photo of which the embedding alone is known."""
    return Reference(BLACK, embedding, "photo")


def score(judge: Judge, embedding: NDArray[np.float32], track: FaceTrack) -> dict[str, Any]:
    """The numbers about who is seen, by key, of a video whose embeddings are known; and what each is made of."""
    video, photo = seen([BLACK] * len(track.faces), judge, track), person(embedding)
    keys = ("detection_rate", "verification_rate", "median_distance", "reference_similarity", "inter_frame_similarity")
    metrics = {metric.definition.key: metric for metric in all_metrics()}
    values = {key: value_of_one(metrics[key], video, photo) for key in keys}
    return {**values, "distances": metrics["median_distance"].measure(video, photo)}
