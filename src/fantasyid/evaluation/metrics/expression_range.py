"""Expression range: how much the face changes its expression.

Definition: the root mean square distance of the face's skin from its mean place over the frames with a face, moved by
the expressions read from them alone, without pose and shape; of many videos the mean over those with two such frames.
Unit: cm. Range: 0 and more, higher is better; a still video has 0.
Source: our own, beside FM, which cannot tell expressions from turns of the head.
"""

import numpy as np

from fantasyid.evaluation.metrics.interface import Definition, MeanOfVideos
from fantasyid.evaluation.reader.measures import face_vertices
from fantasyid.evaluation.seen import Reference, SeenVideo


class ExpressionRange(MeanOfVideos):
    """See above."""

    definition = Definition("expression_range", "expression range", "cm", (0.0, np.inf), "higher")

    def measure(self, video: SeenVideo, reference: Reference) -> float | None:
        """The spread over frames."""
        expression, head = video.heads.expression, video.instruments.head_model
        if len(expression) < 2:
            return None
        basis = head.expression_basis[:, face_vertices(head)].double().numpy()
        moved = np.tensordot(expression - expression.mean(axis=0), basis, axes=1)
        return float(np.sqrt(np.square(moved).sum(axis=-1).mean()))


METRICS = (ExpressionRange(),)
