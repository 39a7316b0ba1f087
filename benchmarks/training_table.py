"""Put what `benchmarks/training.py` measured into docs/training.md, between its two marks.

python -m benchmarks.training_table benchmarks/results/NAME.json [MORE.json ...]
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- written by benchmarks/training_table.py -->", "<!-- end of what it writes -->"
_HEAD = (
    "preset",
    "GPUs",
    "a step of",
    "at once",
    "s",
    "16 samples, s",
    "of the peak",
    "nothing twice",
    "peak GiB",
    "planned GiB",
    "reading",
    "speed-up",
)


def table(contents: Sequence[Mapping[str, Any]]) -> str:
    """The rows of some files of results, and what they were measured on.

    Args:
        contents: Of the files.
    """
    rows = [row for content in contents for row in content["rows"].values()]
    lines = [_HEAD, ("---",) * len(_HEAD), *(_line(row, rows) for row in rows)]
    machines = dict.fromkeys(_machine(content) for content in contents)
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", f"*Measured on* {'; '.join(machines)}."])


def _line(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    changed = "".join(f", `{change}`" for change in row["changes"] if not change.startswith("optimiser.batch_size="))
    alone = [r for r in rows if r["gpus"] == 1 and all(r[k] == row[k] for k in ("preset", "batch_size", "at_once"))]
    return (
        f"`{row['preset']}`{changed}",
        str(row["gpus"]),
        str(row["batch_size"]),
        str(row["at_once"]),
        f"{row['seconds']:.2f}",
        f"{row['seconds'] * 16 / row['batch_size']:.1f}",
        *(f"{row[name]:.0%}" if name in row else "" for name in ("share_of_peak", "share_once")),
        *(f"{row[name]:.1f}" if name in row else "" for name in ("peak_gib", "plan_gib")),
        f"{row['data_wait']:.2%}",
        f"{alone[0]['seconds'] / row['seconds']:.2f}" if alone and row["gpus"] > 1 else "",
    )


def _machine(content: Mapping[str, Any]) -> str:
    versions = content["versions"]
    said = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "cuda") if versions.get(name))
    return f"{content['hardware']}, {said}, {content['date']}, commit {str(content['commit'])[:12]}"


def between_marks(page: str, text: str) -> str:
    """A page with a text in its place.

    Args:
        page: Has each mark once.
        text: What is to stand between them.
    """
    (before, rest), (_, after) = page.split(BEGIN), page.split(END)
    assert END in rest
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _contents(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield json.loads(path.read_text(encoding="utf-8"))


def main(words: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="Files of benchmarks.training.")
    parser.add_argument("--page", type=Path, default=Path("docs/training.md"))
    arguments = parser.parse_args(words)
    page = arguments.page.read_text(encoding="utf-8")
    text = table(list(_contents(arguments.results)))
    arguments.page.write_text(between_marks(page, text), encoding="utf-8")


if __name__ == "__main__":
    main()
