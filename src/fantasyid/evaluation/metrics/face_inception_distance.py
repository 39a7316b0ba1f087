"""FID of the face region: do the videos' faces look like photos of faces?

Definition: the Frechet distance of `face_frechet_distance`, of the same aligned faces, with the 2048 features of
Inception-v3 as torchmetrics computes them, and covariances that divide by one less than the number of rows, as
torchmetrics' FrechetInceptionDistance does. It needs at least two videos, and is there only where the run's config
names the weights. It is a distance of two sets, never of two pictures, and grows as sets get smaller: compare systems
on the same people and prompts. Inception sees the face enlarged from 96 to 299 pixels.
Unit: squared features. Range: 0 and more, lower is better.
Source: paper section 4.1, "FID"; Heusel et al., arXiv 1706.08500. How the paper cuts out faces it does not say.
"""

import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.metrics.face_frechet_distance import FaceFrechetDistance
from fantasyid.evaluation.metrics.interface import Definition
from fantasyid.evaluation.seen import Reference, SeenVideo


class FaceInceptionDistance(FaceFrechetDistance):
    """See above. What is kept of a video is that of the distance with own features, or None without the weights."""

    definition = Definition(
        "face_inception_distance",
        "FID of faces",
        "",
        (0.0, np.inf),
        "lower",
        network="inception_weights",
        of_sets=True,
    )
    lost_degrees = 1

    def measure(self, video: SeenVideo, reference: Reference) -> str | None:
        """The features, the photo's first."""
        return super().measure(video, reference) if video.instruments.inception else None

    def features(self, crops: NDArray[np.uint8], video: SeenVideo) -> NDArray[np.float32]:
        """(B,2048) of the crops."""
        assert video.instruments.inception is not None
        return video.instruments.inception.features(crops)


METRICS = (FaceInceptionDistance(),)
