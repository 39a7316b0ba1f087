"""The paper's Table 1 of a study: mean scores with intervals, and how far the raters agree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation.statistics import Draw, ReportLine, report_line
from fantasyid.study.plan import QUESTIONS, StudyPlan
from fantasyid.study.store import Rating

_SIMULATED = "SIMULATED RATERS: programs gave these scores, which say nothing about the systems."


class StudyTable(BaseModel):
    """What a study found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    simulated: bool
    """Whether programs rated."""
    num_raters: int
    """Who rated at least one page."""
    num_pages: int
    """Pages that were rated, over all raters."""
    scores: dict[str, dict[str, ReportLine]]
    """Mean of all ratings of a system and a question, 0 to 10, by system and question; intervals over raters."""
    agreement: dict[str, float | None]
    """Krippendorff's alpha of each question; None where nothing differs, or no video has two ratings."""

    def as_markdown(self) -> str:
        """The paper's Table 1."""
        lines = [_SIMULATED, ""] if self.simulated else []
        lines += [f"| system | {' | '.join(QUESTIONS)} |", "|---|" + "---|" * len(QUESTIONS)]
        for system, scores in self.scores.items():
            cells = (_cell(scores[question]) for question in QUESTIONS)
            lines.append(f"| {system} | {' | '.join(cells)} |")
        alphas = (_number(self.agreement[question]) for question in QUESTIONS)
        lines += [f"| agreement of raters (Krippendorff's alpha) | {' | '.join(alphas)} |", ""]
        kind = "simulated raters" if self.simulated else "raters"
        lines.append(f"{self.num_raters} {kind}, {self.num_pages} pages; mean scores, 0 to 10, and 95 % over {kind}.")
        return "\n".join(lines)


def make_table(plan: StudyPlan, ratings: Sequence[Rating]) -> StudyTable:
    """Sum a study up.

    Args:
        plan: What was rated.
        ratings: All of them.

    Raises:
        InvalidRequestError: There are none.
    """
    if not ratings:
        raise InvalidRequestError("Nobody has rated a page yet; wait for the first.")
    raters = sorted({rating.rater for rating in ratings})
    units = [(item.name, system) for item in plan.items for system in plan.systems]
    row = {name: index for index, name in enumerate(raters)}
    column = {unit: index for index, unit in enumerate(units)}
    given = {question: np.full((len(raters), len(units)), np.nan) for question in QUESTIONS}
    for rating in ratings:
        given[rating.question][row[rating.rater], column[rating.item, rating.system]] = rating.score
    return StudyTable(
        simulated=plan.simulated,
        num_raters=len(raters),
        num_pages=len({(rating.rater, rating.item) for rating in ratings}),
        scores={
            system: {
                question: _mean_line(question, scores[:, [unit[1] == system for unit in units]])
                for question, scores in given.items()
            }
            for system in plan.systems
        },
        agreement={question: krippendorff_alpha(scores) for question, scores in given.items()},
    )


def krippendorff_alpha(scores: NDArray[np.float64]) -> float | None:
    """Krippendorff's alpha for interval data: 1 is agreement, 0 what chance gives.

    One minus the disagreement about one unit over that of all values; for squared differences these are variances
    (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).

    Args:
        scores: (R, U) of raters and units, NaN where a rater did not rate a unit.

    Returns:
        Alpha; None if no unit has two values, or all values are equal.
    """
    by_unit = [unit[~np.isnan(unit)] for unit in scores.T]
    paired = [values for values in by_unit if len(values) > 1]
    if not paired:
        return None
    together = np.concatenate(paired)
    if np.ptp(together) == 0:
        return None
    within = sum(len(values) * values.var(ddof=1) for values in paired) / len(together)
    return float(1 - within / together.var(ddof=1))


def _cell(line: ReportLine) -> str:
    return f"{_number(line.value)} [{_number(line.low)}, {_number(line.high)}]"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _mean_line(question: str, scores: NDArray[np.float64]) -> ReportLine:
    """The mean of (R, U) scores that are there, its interval over raters."""

    def mean(draw: Draw) -> float:
        return float(np.nanmean(scores[draw]))

    return report_line(question, mean, len(scores))
