"""Numbers about recovered head shapes, each with its 95 % interval over people."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import write_together
from fantasyid.core.statistics import scatter_within
from fantasyid.core.weights_hash import weights_sha256
from fantasyid.evaluation.archives import read_arrays
from fantasyid.evaluation.statistics import Direction, Draw, ReportLine, report_line
from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.models.face_reader import FaceReaderModel

_SCATTER_FLOOR = 0.05  # share of the mean variance: photos of 160 people do not settle every direction

Counts = NDArray[np.int64]
"""(P,) how often each person was drawn; all 1 for the value itself."""
Statistic = Callable[[Counts], float | None]


def shape_distance(first: Tensor, second: Tensor) -> Tensor:
    """Root mean square distance of corresponding vertices: how unlike two neutral heads are.

    Nothing is aligned: neutral heads share one frame, and neither pose nor overall size is in them.

    Args:
        first: (A,N,3) cm.
        second: (B,N,3) cm.

    Returns:
        (A,B) cm.
    """
    flat = first.flatten(1).double(), second.flatten(1).double()
    # Not by matrix products, whose rounding makes 0 of small distances.
    distance: Tensor = torch.cdist(*flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distance / math.sqrt(first.shape[1])


def face_vertices(head: HeadModel) -> Tensor:
    """Which vertices the measures compare: (N,) bool, the skin of the face, which photos show."""
    return head.parts == PART_NAMES.index("face")


def coefficients(head: HeadModel, vertices: Tensor) -> Tensor:
    """Identity coefficients of neutral heads: their Euclidean distance weighs every mode of the basis alike.

    Args:
        head: The head model.
        vertices: (B,N,3) cm, neutral.

    Returns:
        (B,K) in sigmas, by least squares.
    """
    offsets = (vertices - head.mean).flatten(1)
    solution: Tensor = torch.linalg.lstsq(head.identity_basis.flatten(1).T, offsets.T).solution
    return solution.T


def cosine_distance(values: Tensor) -> Tensor:
    """1 - cosine of all pairs, (A,K) -> (A,A) float64, 0 to 2; 1 from a row that is zero."""
    unit = F.normalize(values.double(), dim=1)
    return 1 - unit @ unit.T


@dataclass(frozen=True, eq=False)
class ShapeSignature:
    """A linear map of identity coefficients in which what one person's photos disagree about counts little.

    Plain distances suffer twice: photos of one person disagree about a few modes most of all, and a cautious reading
    lies nearer to the mean head, so that two cautious readings of two people are near each other. So the coefficients
    are whitened by their scatter within people, and compared by their direction from the mean alone.

    Attributes:
        centre: (K,) mean of the readings.
        whitening: (K,K).
    """

    centre: NDArray[np.float64]
    whitening: NDArray[np.float64]

    @classmethod
    def fit(cls, identity: Tensor, person: NDArray[np.int64]) -> "ShapeSignature":
        """Learn it from people whom no measure looks at.

        Args:
            identity: (A,K) coefficients.
            person: (A,) person of each; pictures of people with a single one only enter the centre.
        """
        values = identity.double().numpy()
        scatter = scatter_within(values, person)
        floor = _SCATTER_FLOOR * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
        return cls(values.mean(0), np.linalg.cholesky(np.linalg.inv(scatter + floor)))

    def distance(self, identity: Tensor) -> Tensor:
        """1 - cosine of all pairs, (A,K) -> (A,A), 0 to 2."""
        return cosine_distance(torch.from_numpy((identity.double().numpy() - self.centre) @ self.whitening))

    def save(self, path: Path, head: HeadModel, reader: FaceReaderModel) -> None:
        """Write an npz, with the names of the head model and of the reader that the coefficients belong to."""
        with write_together([path], overwrite=True) as (made,):
            np.savez(
                made,
                centre=self.centre,
                whitening=self.whitening,
                head=np.array(head.coefficients_hash),
                reader=np.array(weights_sha256({"reader": reader})),
            )

    @classmethod
    def load(cls, path: Path, head: HeadModel, reader: FaceReaderModel) -> "ShapeSignature":
        """Read what `save` wrote.

        Raises:
            InvalidRequestError: The file is missing or damaged, or belongs to another head model or reader.
        """
        names = ("centre", "whitening", "head", "reader")
        arrays = read_arrays(path, names, "a shape signature", "run the step calibrate first")
        if str(arrays["head"]) != head.coefficients_hash:
            raise InvalidRequestError(f"{path} belongs to another head model; run the step calibrate again.")
        if str(arrays["reader"]) != weights_sha256({"reader": reader}):
            raise InvalidRequestError(f"{path} belongs to another face reader; run the step calibrate again.")
        return cls(arrays["centre"], arrays["whitening"])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distances of pairs of pictures.

    Attributes:
        distance: (M,).
        first: (M,) person of the first picture.
        second: (M,) person of the second.
    """

    distance: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def of(cls, distance: Tensor, person: NDArray[np.int64]) -> "Pairs":
        """All pairs of pictures.

        Args:
            distance: (A,A).
            person: (A,) person of each picture.
        """
        row, column = np.triu_indices(len(person), 1)
        return cls(distance.numpy().astype(np.float64)[row, column], person[row], person[column])

    def where(self, chosen: NDArray[np.bool_]) -> "Pairs":
        """The pairs of a mask (M,)."""
        return Pairs(self.distance[chosen], self.first[chosen], self.second[chosen])

    @property
    def same(self) -> NDArray[np.bool_]:
        """(M,) whether both pictures show one person."""
        return np.asarray(self.first == self.second)


def area_under_curve(pairs: Pairs) -> Statistic:
    """How often a pair of one person is nearer than a pair of two people (ties count half)."""
    _, place = np.unique(pairs.distance, return_inverse=True)
    same = pairs.same

    def statistic(counts: Counts) -> float | None:
        weight = counts[pairs.first] * np.where(same, 1, counts[pairs.second])
        own, others = (np.bincount(place, weight * mask) for mask in (same, ~same))
        if own.sum() == 0 or others.sum() == 0:
            return None
        farther = others.sum() - others.cumsum() + others / 2
        return float((own * farther).sum() / (own.sum() * others.sum()))

    return statistic


def nearest_is_same(distance: Tensor, person: NDArray[np.int64]) -> Statistic:
    """Share of pictures whose nearest other picture is of the same person, among the pictures that have one."""
    away = distance.clone().fill_diagonal_(float("inf"))
    hit = person[away.argmin(1).numpy()] == person
    paired = np.bincount(person)[person] > 1
    return mean_of(hit[paired].astype(np.float64), person[paired])


def mean_of(values: NDArray[np.float64], person: NDArray[np.int64]) -> Statistic:
    """Mean of values (M,) that belong to people (M,)."""

    def statistic(counts: Counts) -> float | None:
        weight = counts[person]
        return float((weight * values).sum() / weight.sum()) if weight.sum() else None

    return statistic


def median_of(values: NDArray[np.float64], person: NDArray[np.int64]) -> Statistic:
    """Median of values (M,) that belong to people (M,)."""

    def statistic(counts: Counts) -> float | None:
        repeated = np.repeat(values, counts[person])
        return float(np.median(repeated)) if len(repeated) else None

    return statistic


def median_distance(pairs: Pairs) -> Statistic:
    """Median distance of pairs of two people."""
    different = pairs.where(~pairs.same)

    def statistic(counts: Counts) -> float | None:
        repeated = np.repeat(different.distance, counts[different.first] * counts[different.second])
        return float(np.median(repeated)) if len(repeated) else None

    return statistic


def ratio_of(numerator: Statistic, denominator: Statistic) -> Statistic:
    """Quotient of two statistics of the same people."""

    def statistic(counts: Counts) -> float | None:
        above, below = numerator(counts), denominator(counts)
        return above / below if above is not None and below else None

    return statistic


def shape_line(
    name: str,
    statistic: Statistic,
    num_people: int,
    bar: float | None = None,
    direction: Direction | None = None,
) -> ReportLine:
    """Evaluate a statistic and its interval over the people 0..P-1; arguments as of `statistics.report_line`."""

    def of_drawn(draw: Draw) -> float | None:
        return statistic(np.bincount(draw, minlength=num_people))

    return report_line(name, of_drawn, num_people, bar, direction)
