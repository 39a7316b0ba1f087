"""Frechet distance of the face region: do the videos' faces look like photos of faces?

Definition: ||m - n||² + tr(S + R - 2 (S R)^½) of mean m and covariance S of the features of the videos' faces, and n, R
of the reference photos' faces. The faces are aligned; the features are the mean over the built-in face vision network's
tokens, so that this is NOT the FID, whose features are Inception's. Of a video up to 16 frames with a face count,
evenly spaced; every video's reference counts as often as the video. The covariances divide by the number of rows, so
that a set written twice is the same set. It is a distance of two sets, never of two pictures, and grows as sets get
smaller: compare systems on the same people and prompts.
Unit: squared features. Range: 0 and more, lower is better.
Source: paper section 4.1; Heusel et al., arXiv 1706.08500. The network was trained on faces of people who are not held
out, for other tasks.
"""

import base64
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.evaluation.metrics.interface import Definition, Measured
from fantasyid.evaluation.seen import Reference, SeenVideo

MOST_FRAMES = 16


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64], lost_degrees: int = 0) -> float:
    """Distance of two sets, as of two normal distributions.

    The trace of the root of a product of covariances XᵀX and YᵀY is the sum of the singular values of XYᵀ: no root of a
    matrix is taken, and sets smaller than their features are no special case.

    Args:
        first: (A,D).
        second: (B,D).
        lost_degrees: Covariances divide by the number of rows less this; a set must have more rows.
    """
    x, y = ((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - lost_degrees) for rows in (first, second))
    between = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    common = np.linalg.svd(_short(x) @ _short(y).T, compute_uv=False).sum()
    return float(max(0.0, between + np.square(x).sum() + np.square(y).sum() - 2 * common))


def _short(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most D rows with the same product XᵀX as these (A,D)."""
    return rows if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(rows, mode="r"))


class FaceFrechetDistance:
    """See above. What is kept of a video: features of the photo and of the frames, (1 + frames, D), as text."""

    definition = Definition(
        "face_frechet_distance", "Frechet distance of faces, own features", "", (0.0, np.inf), "lower", of_sets=True
    )
    lost_degrees = 0

    def measure(self, video: SeenVideo, reference: Reference) -> str | None:
        """The features, the photo's first."""
        crops, most = video.crops, min(MOST_FRAMES, len(video.crops))
        picks = np.linspace(0, len(crops) - 1, most).round().astype(int)
        return _as_text(self.features(np.concatenate([reference.view.crops, crops[picks]]), video))

    @torch.no_grad()
    def features(self, crops: NDArray[np.uint8], video: SeenVideo) -> NDArray[np.float32]:
        """(B,D) of the crops."""
        network = video.instruments.face_vision
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
        return np.asarray(network(images).tokens.mean(dim=(1, 2)).float().numpy())

    def combine(self, videos: Sequence[Measured[str | None]]) -> float | None:
        """The distance of all videos' faces from their references'."""
        rows = [_as_rows(video.value) for video in videos if video.value is not None]
        faces = sum(len(frames) - 1 for frames in rows)
        if min(len(rows), faces) <= self.lost_degrees:
            return None
        photos, frames = (np.concatenate([of_one[part] for of_one in rows]) for part in (slice(1), slice(1, None)))
        return frechet_distance(photos, frames, self.lost_degrees)


def _as_text(rows: NDArray[np.float32]) -> str:
    return f"{len(rows)} {base64.b64encode(rows.astype('<f4').tobytes()).decode()}"


@lru_cache(maxsize=4096)
def _as_rows(text: str) -> NDArray[np.float64]:
    count, _, numbers = text.partition(" ")
    return np.frombuffer(base64.b64decode(numbers), "<f4").reshape(int(count), -1).astype(np.float64)


METRICS = (FaceFrechetDistance(),)
