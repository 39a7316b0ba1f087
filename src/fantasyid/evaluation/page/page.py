"""A run as one page of HTML that needs nothing else: tables, plots, the best and the worst videos, how to repeat it."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fantasyid.core.input_files import file_sha256
from fantasyid.evaluation.metrics.interface import Measured
from fantasyid.evaluation.metrics.registry import metric_of
from fantasyid.evaluation.page.plots import against, over_time, per_person
from fantasyid.evaluation.page.shown import extremes
from fantasyid.evaluation.run import RunItem, read_items, video_path
from fantasyid.evaluation.run_config import RunConfig, RunRow, run_rows
from fantasyid.evaluation.run_record import read_run_record
from fantasyid.evaluation.table_forms import ARROWS, digits
from fantasyid.evaluation.tables import MetricColumn, RunTable, best_of, build_table, paper_columns, paper_tables

_LIKENESS, _MOTION, _DISTANCES = "reference_similarity", "face_motion_per_second", "median_distance"


@dataclass(frozen=True)
class Cell:
    """A number as it is shown.

    Attributes:
        value: Its digits.
        interval: Its 95 % interval, or nothing.
        note: What is said beside it.
        is_best: Whether it is the best of its column.
    """

    value: str
    interval: str = ""
    note: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class ShownTable:
    """A table as it is shown.

    Attributes:
        title: What it holds.
        head: Of the columns, without the first.
        rows: The first cell of each, and the others.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def report_page(out: Path) -> str:
    """Write the page of a finished run.

    Args:
        out: Folder of the run.

    Returns:
        HTML.

    Raises:
        FantasyIDError: The run is not finished, or a photo or a video of it is not there any more.
    """
    record = read_run_record(out)
    config, base = record.config, record.base
    rows = list(run_rows(config, base))
    items = read_items(out, rows)
    table = build_table(config, items)
    folders = {system.name: system.videos for system in config.systems}
    paths = [video_path(row, base, out, folders[row.system]) for row in rows]
    likeness = [_number(_LIKENESS, item) for item in items]
    title = metric_of(_LIKENESS).definition.title(table.recognizer)
    environment = Environment(
        loader=PackageLoader("fantasyid.evaluation", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"digits": digits, "shell": shlex.join}
    return environment.get_template("page.html").render(
        table=table,
        paper=[_paper_table(table, name, systems) for name, systems in paper_tables(table).items()],
        numbers=_all_numbers(table),
        comparisons=_comparisons(table),
        plots=_plots(config, items, table.recognizer),
        likeness=title,
        extremes=extremes(rows, items, likeness, paths),
        videos=[(item, value, _number(_MOTION, item)) for item, value in zip(items, likeness, strict=True)],
        definitions={
            metric.definition.title(table.recognizer): sys.modules[type(metric).__module__].__doc__
            for metric in config.metrics()
        },
        record=record,
        config=record.config.model_dump_json(indent=2, exclude_defaults=True),
        photos={row.person.name: (row.photo.name, file_sha256(row.photo)) for row in rows},
        records=_records_of_videos(rows, paths),
    )


def _number(key: str, item: RunItem) -> float | None:
    """What a metric says of one video; None of one that failed."""
    if item.failure is not None:
        return None
    return metric_of(key).combine([Measured(item.person, item.prompt_key, item.measured[key].value)])


def _paper_table(table: RunTable, name: str, systems: Sequence[str]) -> ShownTable:
    columns = paper_columns(table)
    rows = tuple(
        (system, tuple(_cell(column, system, best_of(column, systems)) for column in columns)) for system in systems
    )
    return ShownTable(name, tuple(map(_title, columns)), rows)


def _all_numbers(table: RunTable) -> ShownTable:
    rows = tuple(
        (_title(column), tuple(_cell(column, system, best_of(column, table.systems)) for system in table.systems))
        for column in table.columns
    )
    return ShownTable("All numbers", table.systems, rows)


def _comparisons(table: RunTable) -> ShownTable:
    others = tuple(name for name in table.systems if name != table.compared_with)
    rows = tuple(
        (
            _title(column),
            tuple(
                Cell(digits(one.difference), _interval(one.low, one.high), "" if one.p is None else f"p {one.p:.3f}")
                for one in column.comparisons
                if one is not None
            ),
        )
        for column in table.columns
    )
    return ShownTable(f"Less {table.compared_with}", others, rows if others else ())


def _title(column: MetricColumn) -> str:
    return column.title + ARROWS[column.better]


def _cell(column: MetricColumn, system: str, best: float | None) -> Cell:
    line = column.line(system)
    is_best = line.value is not None and line.value == best
    return Cell(digits(line.value), _interval(line.low, line.high), is_best=is_best)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{digits(low)} to {digits(high)}"


def _plots(config: RunConfig, items: Sequence[RunItem], recognizer: str) -> Mapping[str, str]:
    """The plots as SVG, by what they show."""
    systems, people = [system.name for system in config.systems], list(dict.fromkeys(item.person for item in items))
    judged = {name: [item for item in items if item.system == name and item.failure is None] for name in systems}
    likeness, motion = (metric_of(key).definition.title(recognizer) for key in (_LIKENESS, _MOTION))
    by_person = {
        name: [_of_person([item for item in judged[name] if item.person == person]) for person in people]
        for name in systems
    }
    pairs = {name: [(_number(_MOTION, item), _number(_LIKENESS, item)) for item in judged[name]] for name in systems}
    known = {name: [(x, y) for x, y in pairs[name] if x is not None and y is not None] for name in systems}
    distances = {name: _mean_distances(judged[name]) for name in systems}
    return {
        "Likeness of each person: the mean over their videos": per_person(by_person, people, likeness),
        "Distance to the photo in each frame: the mean over the videos that show a face in it": over_time(
            distances, f"distance ({recognizer})"
        ),
        "Motion against likeness: each video": against(known, motion, likeness),
    }


def _of_person(items: Sequence[RunItem]) -> float | None:
    known = [value for value in (_number(_LIKENESS, item) for item in items) if value is not None]
    return float(np.mean(known)) if known else None


def _mean_distances(items: Sequence[RunItem]) -> list[tuple[float, float]]:
    """Number of each frame, and the mean distance in it, where any of the videos shows a face."""
    tracks = [item.measured[_DISTANCES].value for item in items]
    by_frame: dict[int, list[float]] = {}
    for track in tracks:
        assert isinstance(track, tuple), "the distances are one a frame"
        for frame, distance in enumerate(track):
            if isinstance(distance, float):
                by_frame.setdefault(frame, []).append(distance)
    return [(frame, float(np.mean(values))) for frame, values in sorted(by_frame.items())]


def _records_of_videos(rows: Sequence[RunRow], paths: Sequence[Path]) -> dict[str, str]:
    """What lies beside the first video of each system, where something does."""
    found: dict[str, str] = {}
    for row, path in zip(rows, paths, strict=True):
        beside = path.with_suffix(".json")
        if row.system not in found and beside.is_file():
            found[row.system] = json.dumps(json.loads(beside.read_bytes()), indent=2)
    return found
