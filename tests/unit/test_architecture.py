"""What docs/architecture.md and CONTRIBUTING.md say of the floors and of files is so."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(LAYERS,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
FLOORS = [set(layer.split(" | ")) for layer in LAYERS]


def test_the_floors_are_those_that_are_checked() -> None:
    table = PAGE.split("## Floors")[1].split("## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == FLOORS
    rooms = {path.name for path in (ROOT / "src" / "fantasyid").iterdir() if (path / "__init__.py").exists()}
    assert set.union(*FLOORS) == rooms


def test_contributing_names_the_same_floors() -> None:
    (sentence,) = re.findall(r"Floors: (.+?)\.\s", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    floors = [set(re.findall(r"\w+", floor)) for floor in sentence.split("<")]
    assert floors == FLOORS[::-1]


def test_files_and_names_of_the_page_exist() -> None:
    quoted = set(re.findall(r"`([^`\n]+)`", PAGE))
    files = {name for name in quoted if re.fullmatch(r"[\w/]+\.py", name)}
    assert len(files) > 5
    rooms = [ROOT / "src" / "fantasyid", *(ROOT / "src" / "fantasyid").rglob("*/")]
    assert not {name for name in files if not any((room / name).is_file() for room in rooms)}
    dotted = {name for name in quoted if re.match(r"\w+\.", name) and name.split(".")[0] in set.union(*FLOORS)}
    assert len(dotted) > 5
    for name in dotted:
        room, module, *rest = name.split(".")
        found = import_module(f"fantasyid.{room}.{module}")
        for part in rest:
            found = getattr(found, part)
