"""The table of the evaluation: each number with its 95 % interval over people and the bar it has to meet."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from fantasyid.evaluation.identity import IdentityScores
from fantasyid.evaluation.motion import ActionMeasures
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


MADE_BY = "dlib-resnet, judgement 2"
"""The judge that single judgements come from, and the version of what it says; changed with either."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoJudgement(_Record):
    """What the judge says about one video."""

    made_by: str
    """`MADE_BY` of the code that judged."""
    person: str
    shuffled_person: str
    mode: str
    prompt_key: str
    frames_sha256: str
    identity: IdentityScores
    """Against the person's own photo."""
    shuffled: IdentityScores
    """The same frames against somebody else's photo."""
    face_motion: float | None
    """FM in face widths per frame; None if no face was found."""
    actions: ActionMeasures | None
    """None if no frame shows a face."""


class EvaluationReport(_Record):
    """The whole table and what it rests on."""

    made_by: str
    """`MADE_BY` of the code that judged: the recogniser is part of the numbers."""
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
            lines += _identity_lines(_by_person(judgements, mode.name), mode.name)
    if FULL.name in modes and REPOSED.name in modes:
        lines.append(_line("FM, full / reposed", _by_person(judgements), _motion_ratio, 0.5, "at least"))
    for mode in (FULL, REPOSED):
        people = _by_person(judgements, mode.name)
        for pair in ACTION_PAIRS if people else ():
            name = f"{mode.name}: {pair.higher} over {pair.lower} ({pair.measure})"
            bar = 0.7 if mode == FULL else None
            lines.append(_line(name, people, _action_rate(pair), bar, "at least"))
            lines.append(_line(f"{name}, median difference", people, _action_difference(pair)))
    return EvaluationReport(
        made_by=MADE_BY,
        num_people=len({judgement.person for judgement in judgements}),
        num_videos=len(judgements),
        num_frames=sum(judgement.identity.num_frames for judgement in judgements),
        frames_without_face=sum(judgement.identity.frames_without_face for judgement in judgements),
        lines=tuple(lines),
    )


def to_markdown(report: EvaluationReport) -> str:
    """Lay the report out as a Markdown table."""
    rows = [
        f"{report.num_people} people, {report.num_videos} videos, {report.num_frames} frames, "
        f"{report.frames_without_face} of them without a face (counted as not verified). "
        f"Judge: {report.made_by}.",
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


def _identity_lines(people: _People, mode: str) -> list[ReportLine]:
    full, bare = mode == FULL.name, mode == NO_IDENTITY.name
    verified_bar = 0.5 if full else 0.15 if bare else None
    return [
        _line(f"{mode}: face found", people, _mean_of(_detection_rate), 0.95 if full else None, "at least"),
        _line(f"{mode}: verified", people, _mean_of(_verified), verified_bar, "at most" if bare else "at least"),
        _line(f"{mode}: verified, shuffled", people, _mean_of(_verified_shuffled), 0.15 if full else None, "at most"),
        _line(f"{mode}: median distance", people, _median_distance),
        _line(f"{mode}: RS", people, _mean_of(lambda video: video.identity.reference_similarity)),
        _line(f"{mode}: IFS", people, _mean_of(lambda video: video.identity.inter_frame_similarity)),
        _line(f"{mode}: FM, face widths per frame", people, _mean_of(lambda video: video.face_motion)),
    ]


def _detection_rate(video: VideoJudgement) -> float:
    return video.identity.detection_rate


def _verified(video: VideoJudgement) -> float:
    return video.identity.verification_rate


def _verified_shuffled(video: VideoJudgement) -> float:
    return video.shuffled.verification_rate


def _identity_videos(people: _People) -> Iterator[VideoJudgement]:
    return (video for videos in people for video in videos if video.prompt_key in _IDENTITY_KEYS)


def _mean_of(number: Callable[[VideoJudgement], float | None]) -> _Statistic:
    def statistic(people: _People) -> float | None:
        known = [value for video in _identity_videos(people) if (value := number(video)) is not None]
        return sum(known) / len(known) if known else None

    return statistic


def _median_distance(people: _People) -> float | None:
    known = [d for video in _identity_videos(people) for d in video.identity.distances if d is not None]
    return float(np.median(known)) if known else None


def _motion_ratio(people: _People) -> float | None:
    motion = _mean_of(lambda video: video.face_motion)
    full, reposed = (
        motion([[video for video in videos if video.mode == mode.name] for videos in people])
        for mode in (FULL, REPOSED)
    )
    return full / reposed if full is not None and reposed else None


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
        next(video for video in videos if video.prompt_key == key).actions for key in (pair.higher, pair.lower)
    )
    if higher is None or lower is None:
        return None
    difference: float = getattr(higher, pair.measure) - getattr(lower, pair.measure)
    return difference
