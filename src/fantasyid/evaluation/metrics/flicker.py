"""Flicker: does the face's brightness change from frame to frame and back?

Definition: of three consecutive frames with a face, how far the mean luminance of the aligned face in the middle one is
from halfway between those before and after; twice that, averaged over triples. A light that grows steadily has 0. Of
many videos the mean over those with a triple.
Unit: share of full brightness. Range: 0 to 2, lower is better; a still video has 0.
Source: our own; the usual difference of consecutive frames counts motion as flicker.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


class Flicker(MeanOfVideos):
    """See above."""

    definition = Definition("flicker", "flicker", "", (0.0, 2.0), "lower")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean second difference."""
        triples = video.triples()
        if not len(triples):
            return None
        brightness = video.luminance.mean(axis=(1, 2))[triples]
        return float(np.abs(brightness @ [1.0, -2.0, 1.0]).mean())


METRICS = (Flicker(),)
