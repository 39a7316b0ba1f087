"""Jitter: does the face shake?

Definition: of three consecutive frames with a face, how far each landmark in the middle one is from halfway between its
places before and after; twice that, averaged over landmarks and triples, in widths of the landmarks' box. A steady
motion has 0, whatever its speed. Of many videos the mean over those with a triple.
Unit: face widths per frame². Range: 0 and more, lower is better. Quick expressions count too: compare videos that were
asked for the same, with one frame rate.
Source: our own; the usual acceleration error of pose estimation over time, without a truth to compare with.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


class Jitter(MeanOfVideos):
    """See above."""

    definition = Definition("jitter", "jitter", "face widths per frame²", (0.0, np.inf), "lower")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean second difference."""
        triples = video.triples()
        if not len(triples):
            return None
        points = video.landmarks[..., :2].astype(np.float64)
        before, middle, after = np.moveaxis(points[triples], 1, 0)
        widths = np.ptp(middle[..., 0], axis=1)
        return float((np.linalg.norm(before - 2 * middle + after, axis=-1).mean(axis=1) / widths).mean())


METRICS = (Jitter(),)
