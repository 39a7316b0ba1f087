"""Copy-paste: how far the video follows pose, expression or light of the photo where the prompt asks otherwise.

Definition: of every video whose prompt asks for the aspect, its numbers are compared with the same numbers of the
photo. Pose: yaw, pitch and roll of the head. Expression: smile and mouth opening. Light: brightness of the cheeks, of
the right cheek against the left, of the forehead against the chin. Each is a mean over the frames with a face. Within
one prompt the means over its videos are taken off both; then the squared correlation over all videos is R², how much of
the videos' variance the photos explain. The metric is the mean of its numbers' R². Numbers that do not vary over photos
say nothing and are left out; a number that does not vary over videos follows nothing, R² = 0.
Unit: share of the variance. Range: 0 to 1, lower is better; frozen copies of the photos have 1. With n videos that
follow nothing, 1 / (n - 1) is expected: of 5 people with 3 prompts 0.09 with the interval 0.01 to 0.38, of 20 people
0.02 with 0 to 0.07 (means of 60 simulations). The interval holds what as many other people would have in 90 to 100 % of
the simulations, and the true share, where a quarter of the variance follows, in 83 % with 5 people and in 95 % with 20.
So compare a system with another one, and not with 0.
Source: our own, for what the paper calls copy-paste (section 4.2): likeness alone rewards it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fantasyid.evaluation.landmark_measures import mouth_opening, smile
from fantasyid.evaluation.metrics.interface import Definition, Measured, Numbers
from fantasyid.evaluation.protocol import Aspect
from fantasyid.evaluation.seen import Reference, SeenVideo

_FEWEST_VIDEOS = 3
# Rows and columns of the aligned crop, in shares of its side; left and right are the picture's.
_LEFT_CHEEK, _RIGHT_CHEEK = ((0.45, 0.65), (0.25, 0.45)), ((0.45, 0.65), (0.55, 0.75))
_FOREHEAD, _CHIN = ((0.15, 0.28), (0.35, 0.65)), ((0.74, 0.86), (0.4, 0.6))


def pose(video: SeenVideo) -> NDArray[np.float64]:
    """(F,3) yaw, pitch and roll, degrees."""
    return video.heads.pose_deg


def expression(video: SeenVideo) -> NDArray[np.float64]:
    """(F,2) smile and mouth opening, eye distances."""
    return np.stack([smile(video.landmarks), mouth_opening(video.landmarks)], axis=1).astype(np.float64)


def light(video: SeenVideo) -> NDArray[np.float64]:
    """(F,3) brightness 0 to 1, and from -1 to 1 how much brighter the picture's right is, and the upper part."""
    left, right, upper, lower = (
        _patch(video.luminance, *place) for place in (_LEFT_CHEEK, _RIGHT_CHEEK, _FOREHEAD, _CHIN)
    )
    return np.stack([(left + right) / 2, _contrast(right, left), _contrast(upper, lower)], axis=1)


def _patch(
    luminance: NDArray[np.float64], rows: tuple[float, float], columns: tuple[float, float]
) -> NDArray[np.float64]:
    (top, bottom), (left, right) = (
        [round(share * side) for share in shares]
        for shares, side in zip((rows, columns), luminance.shape[1:], strict=True)
    )
    return np.asarray(luminance[:, top:bottom, left:right].mean(axis=(1, 2)))


def _contrast(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return (a - b) / np.maximum(a + b, 1 / 255)


@dataclass(frozen=True)
class CopyPaste:
    """See above. What is kept of a video: its numbers and the photo's; None if the prompt does not ask for them."""

    definition: Definition
    aspect: Aspect
    see: Callable[[SeenVideo], NDArray[np.float64]]
    """(F,K) numbers of the F frames with a face."""

    def measure(self, video: SeenVideo, reference: Reference) -> tuple[Numbers, Numbers] | None:
        """The numbers of the video and of the photo."""
        if self.aspect not in video.asks or not any(video.faces):
            return None
        return tuple(self.see(video).mean(axis=0).tolist()), tuple(self.see(reference.view).mean(axis=0).tolist())

    def combine(self, videos: Sequence[Measured[tuple[Numbers, Numbers] | None]]) -> float | None:
        """The mean R²."""
        known = [(video.prompt_key, *video.value) for video in videos if video.value is not None]
        if len(known) < _FEWEST_VIDEOS:
            return None
        _, prompt = np.unique([key for key, _, _ in known], return_inverse=True)
        made, photo = (_less_means(np.array([row[side] for row in known], np.float64), prompt) for side in (1, 2))
        made, photo = made[:, photo.any(axis=0)], photo[:, photo.any(axis=0)]
        if not photo.size:
            return None
        together = np.square((made * photo).sum(axis=0))
        apart = np.square(made).sum(axis=0) * np.square(photo).sum(axis=0)
        return float(np.divide(together, apart, out=np.zeros_like(apart), where=apart > 0).mean())


def _less_means(values: NDArray[np.float64], group: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rows (n,K) less the mean of their group (n,)."""
    means = np.stack([np.bincount(group, column) / np.bincount(group) for column in values.T], axis=1)
    apart = values - means[group]
    # What is left of equal numbers by rounding is nothing.
    return np.where(np.abs(apart) > 1e-9 * np.abs(values).max(axis=0, initial=1e-300), apart, 0.0)


def _definition(key: str, name: str) -> Definition:
    return Definition(key, name, "", (0.0, 1.0), "lower", of_sets=True)


METRICS = (
    CopyPaste(_definition("copy_paste_pose", "copy-paste, pose"), "pose", pose),
    CopyPaste(_definition("copy_paste_expression", "copy-paste, expression"), "expression", expression),
    CopyPaste(_definition("copy_paste_light", "copy-paste, light"), "light", light),
)
