"""Turn, smile and open mouth: what prompts ask for, to be compared between two prompts.

Definition: means over the frames with a face of `landmark_measures.yaw_deg`, `smile` and `mouth_opening`; of many
videos the mean over those with a face.
Unit: degrees, and distances between the eyes. Range: -180 to 180, and 0 and more; neither way is better in itself.
Source: `protocol.ACTION_PAIRS` says which of two prompts must have more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.landmark_measures import mouth_opening, smile, yaw_deg
from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


@dataclass(frozen=True)
class Action(MeanOfVideos):
    """See above."""

    definition: Definition
    of_landmarks: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """(T,478,3) to (T,)."""

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean over the frames with a face."""
        return float(self.of_landmarks(video.landmarks).mean()) if len(video.landmarks) else None


METRICS = (
    Action(Definition("yaw_deg", "yaw", "degrees", (-180.0, 180.0), "neither"), yaw_deg),
    Action(Definition("smile", "smile", "eye distances", (0.0, np.inf), "neither"), smile),
    Action(Definition("mouth_opening", "mouth opening", "eye distances", (0.0, np.inf), "neither"), mouth_opening),
)
