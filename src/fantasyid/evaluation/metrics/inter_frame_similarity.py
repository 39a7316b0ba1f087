"""IFS, inter-frame similarity: does the person stay the same from frame to frame?

Definition: mean cosine of the embeddings of consecutive frames, around the recogniser's centre, over the pairs of
frames that both show a face; of many videos the mean over those with such a pair.
Unit: none. Range: -1 to 1, higher is better; a still video has 1.
Source: paper section 4.1, which takes ArcFace; the recogniser's name is part of the number.
"""

from itertools import pairwise

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


class InterFrameSimilarity(MeanOfVideos):
    """See above."""

    definition = Definition("inter_frame_similarity", "IFS", "", (-1.0, 1.0), "higher", by_recognizer=True)

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean cosine of neighbours."""
        judge, pairs = video.instruments.judge, pairwise(video.track.embeddings)
        cosines = [judge.similarity(a, b) for a, b in pairs if a is not None and b is not None]
        return float(np.mean(cosines)) if cosines else None


METRICS = (InterFrameSimilarity(),)
