"""The paper's Tables 2 and 3, and all numbers beside them, from the items of a run."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fantasyid.evaluation.metrics.interface import Better, MeanOfVideos, Measured
from fantasyid.evaluation.metrics.registry import metric_of
from fantasyid.evaluation.obedience import obeyed
from fantasyid.evaluation.run import RunItem
from fantasyid.evaluation.run_config import Opposites, RunConfig
from fantasyid.evaluation.statistics import Draw, ReportLine, report_line, swap_test

PAPER_COLUMNS = ("face_frechet_distance", "reference_similarity", "inter_frame_similarity", "face_motion_per_second")
"""FID, RS, IFS, FM: the paper's order, with the numbers that stand for them."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Comparison(_Record):
    """One system's number, less that of the system all are compared with."""

    difference: float | None
    low: float | None
    """2.5 % of 1,000 bootstrap samples over people, as is 97.5 %."""
    high: float | None
    p: float | None
    """By exchanging people's videos; not corrected for the number of comparisons."""


class MetricColumn(_Record):
    """One number for all systems."""

    key: str
    title: str
    better: Better
    lines: tuple[ReportLine, ...]
    """By system, in the run's order."""
    comparisons: tuple[Comparison | None, ...]
    """By system; None of the one that the others are compared with."""

    def line(self, system: str) -> ReportLine:
        """The number of a system."""
        return next(line for line in self.lines if line.name == system)


class RunTable(_Record):
    """All numbers of a run, and what they rest on."""

    recognizer: str
    made_of: str
    """Hash of all measurements' own hashes."""
    compared_with: str
    systems: tuple[str, ...]
    ablations: tuple[str, ...]
    """Those of the systems that Table 3 shows."""
    num_people: int
    num_videos: dict[str, int]
    """That were judged, by system."""
    failures: dict[str, str]
    """By system and name; they are in no number."""
    unmeasured: dict[str, str]
    """Why a metric could not be had of a video that was judged, by system, name and metric; it is not in that one."""
    columns: tuple[MetricColumn, ...]


_People = Sequence[Sequence[Measured[Any]]]
_Value = Callable[[Draw], float | None]


@dataclass(frozen=True)
class _Number:
    """One number of many videos: what it is called, what of a person's videos it is made of, and how."""

    key: str
    title: str
    better: Better
    measured: Callable[[Sequence[RunItem]], list[Measured[Any]]]
    combine: Callable[[Sequence[Measured[Any]]], float | None]
    of_sets: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)


def build_table(config: RunConfig, items: Sequence[RunItem]) -> RunTable:
    """Make all numbers.

    People are resampled as wholes. Where a video failed, its place is empty: the others of that person count.

    Args:
        config: Of the run.
        items: All of `run.read_items`.
    """
    systems = tuple(system.name for system in config.systems)
    people = sorted({item.person for item in items})
    judged = [item for item in items if item.failure is None]
    of_person = {
        name: [[item for item in judged if (item.system, item.person) == (name, person)] for person in people]
        for name in systems
    }
    columns = [
        _column(number, {name: [number.measured(theirs) for theirs in of_person[name]] for name in systems}, config)
        for number in _numbers(config, items[0].recognizer)
    ]
    hashes = sorted(kept.made_of for item in judged for kept in item.measured.values())
    return RunTable(
        recognizer=items[0].recognizer,
        made_of=hashlib.sha256(" ".join(hashes).encode()).hexdigest(),
        compared_with=config.compared_with,
        systems=systems,
        ablations=tuple(system.name for system in config.systems if system.ablation),
        num_people=len(people),
        num_videos={name: sum(item.system == name for item in judged) for name in systems},
        failures={_name(item): item.failure for item in items if item.failure is not None},
        unmeasured={
            f"{_name(item)}, {metric_of(key).definition.title()}": kept.failure
            for item in judged
            for key, kept in item.measured.items()
            if kept.failure is not None
        },
        columns=tuple(columns),
    )


def _name(item: RunItem) -> str:
    return f"{item.system}, {item.person}_{item.prompt_key}_{item.seed}"


def _numbers(config: RunConfig, recognizer: str) -> Iterator[_Number]:
    """All metrics, then how far prompts are obeyed: together, and each pair of them."""
    for metric in config.metrics():
        of, key = metric.definition, metric.definition.key
        measured = partial(_measured, key)
        yield _Number(key, of.title(recognizer), of.better, measured, metric.combine, of.of_sets, of.bounds)
    pairs, mean = config.opposites, MeanOfVideos().combine
    if pairs:
        together = partial(_obeyed, pairs)
        yield _Number("prompt_obedience", "prompts obeyed", "higher", together, mean)
    for pair in pairs:
        key = f"obeyed_{pair.measure}_{pair.higher}_{pair.lower}"
        title = f"prompts obeyed: {pair.higher} over {pair.lower} ({metric_of(pair.measure).definition.name})"
        yield _Number(key, title, "higher", partial(_obeyed, [pair]), mean)


def _measured(key: str, items: Sequence[RunItem]) -> list[Measured[Any]]:
    kept = [(item, item.measured[key]) for item in items]
    return [Measured(item.person, item.prompt_key, one.value) for item, one in kept if one.failure is None]


def _obeyed(pairs: Sequence[Opposites], items: Sequence[RunItem]) -> list[Measured[Any]]:
    return [video for pair in pairs for video in obeyed(pair, items)]


def _column(number: _Number, videos: Mapping[str, _People], config: RunConfig) -> MetricColumn:
    """One number of all systems, from what was measured of each person's videos."""
    base, num_people = config.compared_with, len(videos[config.compared_with])
    values = {name: _of_drawn(number, people) for name, people in videos.items()}
    return MetricColumn(
        key=number.key,
        title=number.title,
        better=number.better,
        lines=tuple(
            report_line(name, values[name], num_people, of_sets=number.of_sets, bounds=number.bounds) for name in videos
        ),
        comparisons=tuple(
            None
            if name == base
            else _compare(number, values[name], values[base], _exchanged(number, people, videos[base]), num_people)
            for name, people in videos.items()
        ),
    )


def _of_drawn(number: _Number, people: _People) -> _Value:
    """The number of the people drawn; each draw is computed once, because all comparisons use the same ones."""
    known: dict[bytes, float | None] = {}

    def value(draw: Draw) -> float | None:
        name = draw.tobytes()
        if name not in known:
            known[name] = number.combine([video for index in draw for video in people[index]])
        return known[name]

    return value


def _exchanged(number: _Number, people: _People, base: _People) -> Callable[[NDArray[np.bool_]], float | None]:
    """The difference of two systems after some people's videos changed places."""

    def difference(swapped: NDArray[np.bool_]) -> float | None:
        rows = [(b, a) if swap else (a, b) for a, b, swap in zip(people, base, swapped, strict=True)]
        return _less(*(number.combine([video for row in rows for video in row[side]]) for side in (0, 1)))

    return difference


def _compare(
    number: _Number,
    of_system: _Value,
    of_base: _Value,
    exchanged: Callable[[NDArray[np.bool_]], float | None],
    num_people: int,
) -> Comparison:
    low, high = number.bounds
    line = report_line(
        "",
        lambda draw: _less(of_system(draw), of_base(draw)),
        num_people,
        of_sets=number.of_sets,
        bounds=(low - high, high - low),
    )
    return Comparison(difference=line.value, low=line.low, high=line.high, p=swap_test(exchanged, num_people))


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def paper_tables(table: RunTable) -> dict[str, tuple[str, ...]]:
    """Which systems stand in which of the paper's tables.

    Args:
        table: Of a run.

    Returns:
        Table 2 compares systems; Table 3, if there are ablations, parts of the one that others are compared with.
    """
    others = tuple(name for name in table.systems if name not in table.ablations)
    tables = {"Table 2": others}
    if table.ablations:
        tables["Table 3"] = (*table.ablations, table.compared_with)
    return tables


def best_of(column: MetricColumn, systems: Sequence[str]) -> float | None:
    """The best value that systems have, None where there is no better or worse, or nothing to compare."""
    values = [line.value for line in column.lines if line.name in systems and line.value is not None]
    if len(values) < 2 or column.better == "neither":
        return None
    return max(values) if column.better == "higher" else min(values)


def paper_columns(table: RunTable) -> list[MetricColumn]:
    """The paper's four columns."""
    keys = [metric_of(key).definition.key for key in PAPER_COLUMNS]
    return [next(column for column in table.columns if column.key == key) for key in keys]
