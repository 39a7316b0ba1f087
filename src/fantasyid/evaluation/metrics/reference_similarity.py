"""RS, reference similarity: does the video show the person in the photo?

Definition: mean cosine of the embeddings of photo and frame, around the recogniser's centre, over the frames with a
face; of many videos the mean over those with a face.
Unit: none. Range: -1 to 1, higher is better; with dlib's ResNet about 0.8 for one person and 0 for two.
Source: paper section 4.1, which takes ArcFace; the recogniser's name is part of the number.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.seen import Reference, SeenVideo


class ReferenceSimilarity(MeanOfVideos):
    """See above."""

    definition = Definition("reference_similarity", "RS", "", (-1.0, 1.0), "higher", by_recognizer=True)

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The mean cosine."""
        judge = video.instruments.judge
        cosines = [judge.similarity(face, reference.embedding) for face in video.track.embeddings if face is not None]
        return float(np.mean(cosines)) if cosines else None


METRICS = (ReferenceSimilarity(),)
