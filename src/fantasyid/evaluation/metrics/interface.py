"""What a metric is: a number measured of each video, and how those of many videos become one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from fantasyid.evaluation.seen import Reference, SeenVideo

Better = Literal["higher", "lower", "neither"]
Numbers = tuple[float | None, ...]
Measurement = float | str | Numbers | tuple[Numbers, ...] | None
"""What can be kept of a video; text where there are many numbers."""
ValueT = TypeVar("ValueT", bound=Measurement, covariant=True)
TakenT = TypeVar("TakenT", bound=Measurement)


@dataclass(frozen=True)
class Measured(Generic[ValueT]):
    """What was measured of one video."""

    person: str
    prompt_key: str
    value: ValueT


@dataclass(frozen=True)
class Definition:
    """What a metric is called and what its numbers mean."""

    key: str
    """In files, such as `"reference_similarity"`."""
    name: str
    """In tables, such as "RS"."""
    unit: str
    """What one is; empty for a plain number."""
    bounds: tuple[float, float]
    """The lowest and the highest value there can be."""
    better: Better
    """Which way is better."""
    by_recognizer: bool = False
    """Whether it depends on who tells people apart, whose name is then part of the number."""
    network: str = ""
    """Field of the run's config that names the network it needs; without it nothing is measured. Empty for most."""
    of_sets: bool = False
    """Whether it looks at many videos as a set, so that people who are drawn twice change it: see `report_line`."""

    def title(self, recognizer: str = "") -> str:
        """What the number is called in full, such as "RS (dlib-resnet)" or "FM, face widths per frame".

        Args:
            recognizer: Who tells people apart; empty where that is said elsewhere.
        """
        judged = f" ({recognizer})" if self.by_recognizer and recognizer else ""
        return f"{self.name}{judged}{', ' if self.unit else ''}{self.unit}"


class Metric(Protocol[TakenT]):
    """One number about videos.

    A metric is a class in a file of its own in this folder; the file's docstring says definition, unit, range and
    source, and its `METRICS` holds what belongs to the tables. Nothing else has to know it: see `registry`.
    """

    @property
    def definition(self) -> Definition:
        """What it is."""
        ...

    def measure(self, video: SeenVideo, reference: Reference) -> TakenT:
        """Measure one video.

        Args:
            video: Of at least one frame.
            reference: The photo of the person it should show.

        Returns:
            What `combine` needs of it; None if nothing could be measured.

        Raises:
            FantasyIDError: The metric needs a network of its own, which cannot be asked about this video.
        """
        ...

    def combine(self, videos: Sequence[Measured[TakenT]]) -> float | None:
        """Make one number of many videos, or of one.

        Args:
            videos: What was measured, those of which there is nothing to measure too.

        Returns:
            The number; None if there is none.
        """
        ...


class MeanOfVideos:
    """A metric with one number for each video: their mean, over the videos that have it."""

    def combine(self, videos: Sequence[Measured[float | None]]) -> float | None:
        """Take the mean."""
        known = [video.value for video in videos if video.value is not None]
        return sum(known) / len(known) if known else None


def value_of_one(metric: Metric[Any], video: SeenVideo, reference: Reference) -> float | None:
    """The number of one video by itself.

    Args:
        metric: Which.
        video: The video.
        reference: The photo of the person it should show.
    """
    return metric.combine([Measured("", "", metric.measure(video, reference))])
