"""CLIP score: does the video show what the prompt says?

Definition: 100 times the mean cosine of CLIP's embeddings of the prompt and of a frame, at least 0, over up to 16 whole
frames, evenly spaced, with or without a face; torchmetrics' CLIPScore of those frames. Of many videos the mean. It is
there only where the run's config names a CLIP model; numbers of two models are not comparable.
Unit: hundredths. Range: 0 to 100, higher is better.
Source: Hessel et al., arXiv 2104.08718, without its factor 2.5, as torchmetrics has it. CLIP takes RGB; ConsisID's code
gives it BGR.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo

MOST_FRAMES = 16


class ClipScore(MeanOfVideos):
    """See above."""

    definition = Definition("clip_score", "CLIP score", "", (0.0, 100.0), "higher", network="clip_folder")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean over frames."""
        if video.instruments.clip is None:
            return None
        count = len(video.faces)
        picks = set(np.linspace(0, count - 1, min(MOST_FRAMES, count)).round().astype(int).tolist())
        frames = [frame for index, frame in enumerate(video.frames()) if index in picks]
        return float(max(0.0, 100 * video.instruments.clip.cosines(frames, video.text).mean()))


METRICS = (ClipScore(),)
