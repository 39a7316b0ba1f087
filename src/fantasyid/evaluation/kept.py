"""Measurements that are kept: each names by a hash what it was made of, and is made anew when that has changed."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.errors import FantasyIDError
from fantasyid.evaluation.metrics.interface import Measurement, Metric
from fantasyid.evaluation.seen import Reference, SeenVideo

logger = logging.getLogger(__name__)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RecordT = TypeVar("RecordT", bound=BaseModel)


class KeptMeasurement(BaseModel):
    """What a metric measured of a video."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_of: Sha256
    """Hash of the metric's code, the video, the photo, and what looked at them."""
    value: Measurement
    failure: str | None = None
    """Why it could not be measured, in one sentence; the value is None then."""


def measure_all(
    metrics: Sequence[Metric[Any]], video: SeenVideo, reference: Reference, kept: Mapping[str, KeptMeasurement]
) -> dict[str, KeptMeasurement]:
    """Measure a video with every metric, but for what was measured before of the same things.

    Where a metric that needs a network of its own cannot measure the video, its measurement says so and the others
    stay; it is tried again the next time.

    Args:
        metrics: Which.
        video: The video; nobody looks at it if nothing is to be measured.
        reference: The photo of the person it should show.
        kept: What was measured before, by the metrics' keys.

    Returns:
        The measurement of each metric, by key.

    Raises:
        FantasyIDError: The video cannot be read, or a metric that needs no network of its own cannot measure it.
    """
    measured = {}
    for metric in metrics:
        key = metric.definition.key
        parts = (code_fingerprint(type(metric).__module__), key, video.fingerprint, reference.sha256)
        made_of = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        before = kept.get(key)
        if before is None or before.made_of != made_of or before.failure is not None:
            before = _measure(metric, video, reference, made_of)
        measured[key] = before
    return measured


def _measure(metric: Metric[Any], video: SeenVideo, reference: Reference, made_of: str) -> KeptMeasurement:
    try:
        return KeptMeasurement(made_of=made_of, value=metric.measure(video, reference))
    except FantasyIDError as error:
        if not metric.definition.network:
            raise
        return KeptMeasurement(made_of=made_of, value=None, failure=f"{type(error).__name__}: {error}")


def read_kept(path: Path, record: type[RecordT]) -> RecordT | None:
    """Read what was kept in a file.

    Args:
        path: The file; it need not be there.
        record: What it should hold.

    Returns:
        The content; None where there is none of this form, which a line of the log says.
    """
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        logger.warning("%s holds nothing that this version kept, and is made anew.", path)
        return None
