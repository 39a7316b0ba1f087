"""The table of the evaluation: each number with its 95 % interval over people and the bar it has to meet."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from fantasyid.evaluation.kept import KeptMeasurement, Sha256
from fantasyid.evaluation.metrics.face_found import FaceFound
from fantasyid.evaluation.metrics.interface import Measured, Metric
from fantasyid.evaluation.metrics.registry import all_metrics, metric_of
from fantasyid.evaluation.metrics.verified import Verified
from fantasyid.evaluation.protocol import (
    ACTION_PAIRS,
    FULL,
    IDENTITY_PROMPTS,
    NO_IDENTITY,
    REFERENCE_ONLY,
    REPOSED,
    TOKENS_ONLY,
    ActionPair,
)
from fantasyid.evaluation.statistics import Direction, Draw, ReportLine, report_line

_IDENTITY_KEYS = frozenset(prompt.key for prompt in IDENTITY_PROMPTS)

# What a mode's number has to reach, by the metric's key.
_BARS: dict[tuple[str, str], tuple[float, Direction]] = {
    (FULL.name, FaceFound.definition.key): (0.95, "at least"),
    (FULL.name, Verified.definition.key): (0.5, "at least"),
    (NO_IDENTITY.name, Verified.definition.key): (0.15, "at most"),
}
_SHUFFLED_BAR = 0.15


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoJudgement(_Record):
    """What was measured of one video."""

    recognizer: str
    """Who told people apart."""
    person: str
    shuffled_person: str
    mode: str
    prompt_key: str
    measured: dict[str, KeptMeasurement]
    """Against the person's own photo, by the metrics' keys."""
    shuffled: dict[str, KeptMeasurement]
    """The same frames against somebody else's photo: `SHUFFLED` alone."""


SHUFFLED: tuple[Metric[Any], ...] = (Verified(),)


class EvaluationReport(_Record):
    """The whole table and what it rests on."""

    recognizer: str
    """Who told people apart: part of the numbers."""
    made_of: Sha256
    """Hash of all that was judged, of the photos, and of what judged it."""
    num_people: int
    num_videos: int
    num_frames: int
    frames_without_face: int
    """Counted as not verified."""
    lines: tuple[ReportLine, ...]


# The judgements of each person in turn: what a statistic gets, so that people can be resampled as wholes.
_People = Sequence[Sequence[VideoJudgement]]
_Statistic = Callable[[_People], float | None]


def build_report(judgements: Sequence[VideoJudgement]) -> EvaluationReport:
    """Make the table of whatever modes were judged.

    Identity and FM are means over the videos of the five identity prompts; an action's rate is the share of people
    whose two videos differ the right way.

    Args:
        judgements: At least one.
    """
    modes = {judgement.mode for judgement in judgements}
    lines: list[ReportLine] = []
    for mode in (FULL, NO_IDENTITY, REFERENCE_ONLY, TOKENS_ONLY, REPOSED):
        if mode.name in modes:
            lines += _metric_lines(_by_person(judgements, mode.name), mode.name)
    if FULL.name in modes and REPOSED.name in modes:
        people = _by_person(judgements)
        lines.append(report_line("FM, full / reposed", _motion_ratio(people), len(people), 0.5, "at least"))
    for mode in (FULL, REPOSED):
        people = _by_person(judgements, mode.name)
        for pair in ACTION_PAIRS if people else ():
            name = f"{mode.name}: {pair.higher} over {pair.lower} ({pair.measure})"
            bar = 0.7 if mode == FULL else None
            lines.append(_line(name, people, _action_rate(pair), bar, "at least"))
            lines.append(_line(f"{name}, median difference", people, _action_difference(pair)))
    recognizers = {judgement.recognizer for judgement in judgements}
    assert len(recognizers) == 1, "judgements of several recognisers are mixed"
    counts = [_value(judgement, FaceFound()) for judgement in judgements]
    made_of = sorted(kept.made_of for judgement in judgements for kept in judgement.measured.values())
    return EvaluationReport(
        recognizer=recognizers.pop(),
        made_of=hashlib.sha256(" ".join(made_of).encode()).hexdigest(),
        num_people=len({judgement.person for judgement in judgements}),
        num_videos=len(judgements),
        num_frames=sum(frames for _, frames in counts),
        frames_without_face=sum(frames - found for found, frames in counts),
        lines=tuple(lines),
    )


def to_markdown(report: EvaluationReport) -> str:
    """Lay the report out as a Markdown table."""
    rows = [
        f"{report.num_people} people, {report.num_videos} videos, {report.num_frames} frames, "
        f"{report.frames_without_face} of them without a face (counted as not verified). "
        f"Judge: {report.recognizer}; made of {report.made_of[:12]}.",
        "",
        "| measure | value | 95 % interval over people | bar | met |",
        "|---|---|---|---|---|",
    ]
    for line in report.lines:
        bar = "" if line.bar is None else f"{line.direction} {line.bar:g}"
        met = {True: "yes", False: "**no**", None: ""}[line.met]
        interval = f"{_digits(line.low)} to {_digits(line.high)}"
        rows.append(f"| {line.name} | {_digits(line.value)} | {interval} | {bar} | {met} |")
    return "\n".join(rows) + "\n"


def _digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _by_person(judgements: Sequence[VideoJudgement], mode: str | None = None) -> _People:
    groups: dict[str, list[VideoJudgement]] = {}
    for judgement in judgements:
        if mode is None or judgement.mode == mode:
            groups.setdefault(judgement.person, []).append(judgement)
    return list(groups.values())


def _line(
    name: str,
    people: _People,
    statistic: _Statistic,
    bar: float | None = None,
    direction: Direction | None = None,
) -> ReportLine:
    def of_drawn(draw: Draw) -> float | None:
        return statistic([people[index] for index in draw])

    return report_line(name, of_drawn, len(people), bar, direction)


def _metric_lines(people: _People, mode: str) -> list[ReportLine]:
    lines = []
    for metric in all_metrics():
        if metric.definition.network:
            continue
        name = f"{mode}: {metric.definition.title()}"
        bar, direction = _BARS.get((mode, metric.definition.key), (None, None))
        value, of = _of_identity_videos(metric, people), metric.definition
        lines.append(report_line(name, value, len(people), bar, direction, of.of_sets, of.bounds))
    bar = _SHUFFLED_BAR if mode == FULL.name else None
    for metric in SHUFFLED:
        name, shuffled = f"{mode}: {metric.definition.title()}, shuffled", _of_identity_videos(metric, people, True)
        lines.append(report_line(name, shuffled, len(people), bar, "at most"))
    return lines


def _value(video: VideoJudgement, metric: Metric[Any], shuffled: bool = False) -> Any:
    return (video.shuffled if shuffled else video.measured)[metric.definition.key].value


def _of_identity_videos(metric: Metric[Any], people: _People, shuffled: bool = False) -> Callable[[Draw], float | None]:
    measured = [
        [
            Measured(video.person, video.prompt_key, _value(video, metric, shuffled))
            for video in videos
            if video.prompt_key in _IDENTITY_KEYS
        ]
        for videos in people
    ]
    return lambda draw: metric.combine([video for index in draw for video in measured[index]])


def _motion_ratio(people: _People) -> Callable[[Draw], float | None]:
    full, reposed = (
        _of_identity_videos(
            metric_of("face_motion"), [[video for video in videos if video.mode == mode] for videos in people]
        )
        for mode in (FULL.name, REPOSED.name)
    )

    def ratio(draw: Draw) -> float | None:
        above, below = full(draw), reposed(draw)
        return above / below if above is not None and below else None

    return ratio


def _action_rate(pair: ActionPair) -> _Statistic:
    def statistic(people: _People) -> float:
        # A video without a face does not do what was asked.
        differences = [_difference(videos, pair) for videos in people]
        return float(np.mean([difference is not None and difference > 0 for difference in differences]))

    return statistic


def _action_difference(pair: ActionPair) -> _Statistic:
    def statistic(people: _People) -> float | None:
        differences = [_difference(videos, pair) for videos in people]
        known = [difference for difference in differences if difference is not None]
        return float(np.median(known)) if known else None

    return statistic


def _difference(videos: Sequence[VideoJudgement], pair: ActionPair) -> float | None:
    higher, lower = (
        next(video for video in videos if video.prompt_key == key).measured[pair.measure].value
        for key in (pair.higher, pair.lower)
    )
    return higher - lower if isinstance(higher, float) and isinstance(lower, float) else None
