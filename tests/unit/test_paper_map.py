"""`docs/paper-map.md` names symbols and tests that exist."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "paper-map.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]


def resolve(symbol: str) -> object:
    """Import the longest part that is a module and look up the rest."""
    parts = symbol.split(".")
    found: object = import_module(".".join(parts[:3]))
    for part in parts[3:]:
        found = getattr(found, part, None) or import_module(f"{found.__name__}.{part}")
    return found


def test_the_map_covers_the_method_and_the_experiments() -> None:
    sections = {row[0][:3] for row in ROWS}
    assert sections == {"3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "4.3", "4.4", "4.5"}


@pytest.mark.parametrize("symbol", sorted({row[2] for row in ROWS} - {"—"}))
def test_the_symbol_exists(symbol: str) -> None:
    assert getattr(resolve(symbol), "__module__", "").startswith("fantasyid.")


@pytest.mark.parametrize("test", sorted({row[3] for row in ROWS} - {"—"}))
def test_the_test_exists(test: str) -> None:
    file, name = test.split("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_what_is_missing_says_so(row: list[str]) -> None:
    _, _, symbol, _, note = row
    assert symbol != "—" or note.startswith("not there yet")
