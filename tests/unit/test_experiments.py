"""Every experiment is written down in the same steps, and the index says where today's numbers come from."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "experiments"
INDEX = (FOLDER / "README.md").read_text()
EXPERIMENTS = sorted(FOLDER.glob("20*.md"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_has_its_five_steps_and_its_line_in_the_index(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Question", "Expected", "Run", "Result", "Conclusion"]
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))
    day = path.name[:10]
    assert text.splitlines()[2].startswith(day)
    assert INDEX.count(f"]({path.name}), {day} |") == 1


def test_todays_numbers_are_those_of_their_experiments() -> None:
    table = INDEX.split("## Today's numbers")[1].split("## ")[0]
    rows = re.findall(r"^\|.*\| ([^|]+) \| [^|]+ \| \[.+\]\((.+)\) \|$", table, re.MULTILINE)
    assert len(rows) > 5
    for value, source in rows:
        # Some tables set what counts in bold type.
        text = (FOLDER / source).read_text().replace("**", "")
        assert value in text, f"{value} in {source}"
