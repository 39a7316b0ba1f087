"""Head-pose range: how far the head turns, nods and tilts.

Definition: of the yaw, pitch or roll read from the frames with a face, the 95th percentile less the 5th; of many videos
the mean over those with two such frames.
Unit: degrees. Range: 0 to 360, higher is better; a still video has 0.
Source: our own, beside FM, which does not say what moves.
"""

from dataclasses import dataclass

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


@dataclass(frozen=True)
class PoseRange(MeanOfVideos):
    """See above."""

    definition: Definition
    axis: int
    """0 yaw, 1 pitch, 2 roll."""

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The range over frames."""
        angles = np.unwrap(video.heads.pose_deg[:, self.axis], period=360)
        low, high = np.percentile(angles, [5, 95]) if len(angles) > 1 else (None, None)
        return None if low is None or high is None else float(high - low)


METRICS = tuple(
    PoseRange(Definition(f"{angle}_range", f"{angle} range", "degrees", (0.0, 360.0), "higher"), axis)
    for axis, angle in enumerate(("yaw", "pitch", "roll"))
)
