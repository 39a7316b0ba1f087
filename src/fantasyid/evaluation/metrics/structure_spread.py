"""Structure stability: does the head keep its shape while the face moves?

Definition: from every frame with a face the person's neutral head is read, without pose and expression. The number is
the root mean square distance of the face's skin from its mean place over those frames; of many videos the mean over
those with two such frames.
Unit: cm. Range: 0 and more, lower is better; a still video has 0. What the reader itself confuses with pose and
expression is in it: a quarter of the distance between two people at most, by `fantasyid evaluate reader renders`.
Source: the paper's claim of Figure 5 and section 4.2, which gives no number.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


class StructureSpread(MeanOfVideos):
    """See above."""

    definition = Definition("structure_spread", "structure spread", "cm", (0.0, np.inf), "lower")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The spread over frames."""
        heads = video.heads.vertices
        if len(heads) < 2:
            return None
        return float(np.sqrt(np.square(heads - heads.mean(axis=0)).sum(axis=-1).mean()))


METRICS = (StructureSpread(),)
