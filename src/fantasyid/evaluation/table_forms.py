"""A run's tables as Markdown and LaTeX."""

from fantasyid.evaluation.metrics.interface import Better
from fantasyid.evaluation.statistics import ReportLine
from fantasyid.evaluation.tables import RunTable, best_of, paper_columns, paper_tables

ARROWS: dict[Better, str] = {"higher": " ↑", "lower": " ↓", "neither": ""}
"""Behind a title: which way is better."""
_LATEX_ARROWS: dict[Better, str] = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
_LATEX_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "²": "$^2$"},
}


def to_markdown(table: RunTable) -> str:
    """Write the paper's tables, then every number with its interval and tests, then what failed or is missing."""
    videos = ", ".join(f"{name} {count}" for name, count in table.num_videos.items())
    text = [
        f"{table.num_people} people; videos judged: {videos}. Recogniser: {table.recognizer}. Intervals are 95 % over "
        f"people; made of {table.made_of[:12]}.",
        *(_paper_table(table, title, systems) for title, systems in paper_tables(table).items()),
        _all_numbers(table),
        _comparisons(table),
    ]
    if table.failures:
        failed = [f"- {name}: {why}" for name, why in table.failures.items()]
        text.append("\n".join([f"{len(failed)} videos failed and are in no number:", "", *failed]))
    if table.unmeasured:
        missing = [f"- {name}: {why}" for name, why in table.unmeasured.items()]
        text.append("\n".join([f"{len(missing)} numbers of single videos could not be measured:", "", *missing]))
    return "\n\n".join(part for part in text if part) + "\n"


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _paper_table(table: RunTable, title: str, systems: tuple[str, ...]) -> str:
    columns = paper_columns(table)
    rows = []
    for system in systems:
        cells = [_cell(column.line(system), best_of(column, systems), "**{}**") for column in columns]
        rows.append([system, *cells])
    head = ["", *(column.title + ARROWS[column.better] for column in columns)]
    return f"**{title}**, best in bold:\n\n{_rows(head, rows)}"


def _all_numbers(table: RunTable) -> str:
    rows = [
        [column.title + ARROWS[column.better], *(_cell(column.line(name), None, "{}") for name in table.systems)]
        for column in table.columns
    ]
    return f"**All numbers**:\n\n{_rows(['', *table.systems], rows)}"


def _comparisons(table: RunTable) -> str:
    others = [name for name in table.systems if name != table.compared_with]
    if not others:
        return ""
    rows = []
    for column in table.columns:
        cells = [column.title + ARROWS[column.better]]
        for comparison in column.comparisons:
            if comparison is None:
                continue
            if comparison.difference is None or comparison.p is None:
                cells.append("none")
            else:
                interval = f"{digits(comparison.low)} to {digits(comparison.high)}"
                cells.append(f"{comparison.difference:+.3f} [{interval}], p {comparison.p:.3f}")
        rows.append(cells)
    about = (
        f"**Less {table.compared_with}**, on the same people, prompts and seeds; p by exchanging people's videos, not "
        "corrected for the number of comparisons:"
    )
    return f"{about}\n\n{_rows(['', *others], rows)}"


def to_latex(table: RunTable) -> str:
    """Write the paper's tables as LaTeX, without any package."""
    return "\n".join(_latex_table(table, title, systems) for title, systems in paper_tables(table).items())


def _latex_table(table: RunTable, title: str, systems: tuple[str, ...]) -> str:
    columns = paper_columns(table)
    head = " & ".join(["", *(_latex(column.title) + _LATEX_ARROWS[column.better] for column in columns)])
    rows = [
        " & ".join(
            [
                _latex(system),
                *(_cell(column.line(system), best_of(column, systems), r"\textbf{{{}}}") for column in columns),
            ]
        )
        for system in systems
    ]
    body = "\n".join(f"{row} \\\\" for row in rows)
    caption = f"{title}. {table.num_people} people; 95\\,\\% intervals over people. Best in bold."
    return (
        f"\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{l{'c' * len(columns)}}}\n\\hline\n{head} \\\\\n\\hline\n"
        f"{body}\n\\hline\n\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n"
    )


def _latex(text: str) -> str:
    return "".join(_LATEX_SIGNS.get(sign, sign) for sign in text)


def _cell(line: ReportLine, best: float | None, bold: str) -> str:
    if line.value is None:
        return "none"
    value = bold.format(f"{line.value:.3f}") if line.value == best else f"{line.value:.3f}"
    return f"{value} [{digits(line.low)}, {digits(line.high)}]"


def digits(value: float | None) -> str:
    """Write a number as the tables do; what is rounded to nothing has no sign."""
    return "none" if value is None else f"{value:z.3f}"
