"""Verified: in how many frames the judge takes the face for the person in the photo.

Definition: frames whose distance to the photo is at most the recogniser's `same_person_distance`, over all frames, so
that a frame without a face counts as not verified; of many videos the mean.
Unit: share of the frames. Range: 0 to 1, higher is better.
Source: dlib's and insightface's own thresholds for one person.
"""

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.metrics.median_distance import frame_distances
from fantasyid.evaluation.seen import Reference, SeenVideo


class Verified(MeanOfVideos):
    """See above."""

    definition = Definition("verification_rate", "verified", "", (0.0, 1.0), "higher", by_recognizer=True)

    def measure(self, video: SeenVideo, reference: Reference) -> float:
        """The share of frames near enough."""
        distances = frame_distances(video, reference)
        limit = video.instruments.judge.recognizer.same_person_distance
        return sum(distance is not None and distance <= limit for distance in distances) / len(distances)


METRICS = (Verified(),)
