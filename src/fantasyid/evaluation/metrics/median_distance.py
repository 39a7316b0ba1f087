"""Median distance: how far the faces are from the photo's by the recogniser's own measure.

Definition: median over all frames with a face, of all videos together.
Unit: the recogniser's; dlib's Euclidean distance of embeddings, ArcFace's 1 minus the cosine. Range: 0 to 2, lower is
better. Source: dlib's ResNet is 0.37 (median) between two photos of one person, 0.85 between two people.
"""

from collections.abc import Sequence

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, Measured, Numbers
from fantasyid.evaluation.seen import Reference, SeenVideo


def frame_distances(video: SeenVideo, reference: Reference) -> Numbers:
    """Distance of each frame's face to the photo's; None where there is no face."""
    return video.instruments.judge.distances(reference.embedding, video.track)


class MedianDistance:
    """See above. What is kept of a video: the distance of each frame."""

    definition = Definition("median_distance", "median distance", "", (0.0, 2.0), "lower", by_recognizer=True)

    def measure(self, video: SeenVideo, reference: Reference) -> Numbers:
        """The distances, None where there is no face."""
        return frame_distances(video, reference)

    def combine(self, videos: Sequence[Measured[Numbers]]) -> float | None:
        """The median over frames."""
        known = [distance for video in videos for distance in video.value if distance is not None]
        return float(np.median(known)) if known else None


METRICS = (MedianDistance(),)
