"""The plots of a run's page, as SVG whose ink is the page's own, so that it is seen in the dark too."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK = "#010203"
"""A colour that nothing else has; the page's ink takes its place."""
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee")
_MARKERS = "os^Dvp*X"
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}

Points = Mapping[str, Sequence[tuple[float, float]]]
"""x and y of some points, by system."""


def per_person(values: Mapping[str, Sequence[float | None]], people: Sequence[str], title: str) -> str:
    """Each person's number with each system.

    Args:
        values: By system, in the order of the people; None where there is none.
        people: Their names.
        title: Of the number.
    """
    with _drawing("per-person", width=max(6.0, 2 + 0.3 * len(people))) as (axes, svg):
        for place, (system, numbers) in enumerate(values.items()):
            known = [(index, value) for index, value in enumerate(numbers) if value is not None]
            _dots(axes, place, system, known)
        axes.set_xticks(range(len(people)), people, rotation=90)
        axes.set_ylabel(title)
    return svg.getvalue()


def over_time(lines: Points, title: str) -> str:
    """A number in each frame.

    Args:
        lines: By system, frame and number.
        title: Of the number.
    """
    with _drawing("over-time") as (axes, svg):
        for place, (system, points) in enumerate(lines.items()):
            x, y = np.reshape(points, (-1, 2)).T
            axes.plot(x, y, color=_colour(place), marker=_marker(place), markersize=4, label=system)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("frame")
        axes.set_ylabel(title)
    return svg.getvalue()


def against(points: Points, x_title: str, y_title: str) -> str:
    """One number of each video against another.

    Args:
        points: By system.
        x_title: Of the first.
        y_title: Of the second.
    """
    with _drawing("against") as (axes, svg):
        for place, (system, pairs) in enumerate(points.items()):
            _dots(axes, place, system, pairs)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
    return svg.getvalue()


@contextmanager
def _drawing(name: str, width: float = 6.0) -> Iterator[tuple[Axes, io.StringIO]]:
    """An empty plot, and what it is written to as SVG when it is drawn; its ids are its own within a page."""
    svg = io.StringIO()
    style: Any = {**_STYLE, "svg.hashsalt": name}  # of any version's settings
    with rc_context(style):
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        axes = figure.subplots()
        yield axes, svg
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    svg.write(re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text))


def _dots(axes: Axes, place: int, system: str, points: Sequence[tuple[float, float]]) -> None:
    x, y = np.reshape(points, (-1, 2)).T
    axes.plot(x, y, color=_colour(place), marker=_marker(place), linestyle="none", alpha=0.75, label=system)


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]
