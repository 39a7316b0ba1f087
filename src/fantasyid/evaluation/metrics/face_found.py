"""Face found: in how many frames there is a face at all.

Definition: frames in which the judge's detector finds a face, over all frames; of many videos the mean.
Unit: share of the frames. Range: 0 to 1, higher is better.
Source: reported beside every other number, because those are over the frames with a face.
"""

from collections.abc import Sequence

from fantasyid.evaluation.metrics.interface import Definition, Measured
from fantasyid.evaluation.seen import Reference, SeenVideo


class FaceFound:
    """See above. What is kept of a video: how many frames show a face, and how many there are."""

    definition = Definition("detection_rate", "face found", "", (0.0, 1.0), "higher")

    def measure(self, video: SeenVideo, reference: Reference) -> tuple[float, float]:
        """Count the frames with a face, and all."""
        return sum(face is not None for face in video.faces), len(video.faces)

    def combine(self, videos: Sequence[Measured[tuple[float, float]]]) -> float | None:
        """The mean share."""
        shares = [found / frames for found, frames in (video.value for video in videos)]
        return sum(shares) / len(shares) if shares else None


METRICS = (FaceFound(),)
