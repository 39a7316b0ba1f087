"""The mutations apply, name tests that exist, cover the paper map, and the command tells the seen from the unseen."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.mutants.catalogue import MUTATIONS
from tests.mutants.mutation import ROOT, Mutation, mutated
from tests.unit.test_paper_map import ROWS

NAMES = [mutation.breaks for mutation in MUTATIONS]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_mutation_applies_and_its_test_exists(mutation: Mutation) -> None:
    mutated(mutation)
    file, name = mutation.test.split("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_names_are_unlike() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("row", [row for row in ROWS if row[3] != "—"], ids=lambda row: row[1])
def test_the_test_of_every_row_of_the_paper_map_sees_its_item_break(row: list[str]) -> None:
    """Some mutation of the file that holds the row's symbol must fail the row's test."""
    _, item, symbol, test, _ = row
    places = {mutation.file.removesuffix(".py").replace("/", ".") for mutation in MUTATIONS if mutation.test == test}
    assert any(symbol.startswith(f"fantasyid.{place}.") for place in places), (
        f"no mutation shows that {test} sees {item}"
    )


@pytest.mark.parametrize(
    ("find", "replacement"), [("no such text", "x"), ("def ", "x"), ("num_blocks: int = 4", "num_blocks: int = ")]
)
def test_what_does_not_apply_is_said(find: str, replacement: str) -> None:
    mutation = replace(MUTATIONS[0], file="models/fusion.py", find=find, replacement=replacement)
    with pytest.raises(ValueError, match=r"models/fusion\.py"):
        mutated(mutation)


UNSEEN = """
import sys
from tests.mutants import __main__ as command, catalogue
from tests.mutants.mutation import Mutation

def of(breaks, find, replacement, test="unit/models/test_identity_encoder.py::test_lift_equals_its_steps"):
    return Mutation(breaks, "models/fusion.py", find, replacement, f"tests/{test}")

command.MUTATIONS = (
    of("seen", "num_blocks: int = 4", "num_blocks: int = 3"),
    of("unseen", "Number of layers L.", "Number of layers."),
    of("gone", "no such text", ""),
    of("not to be loaded", "import torch.nn.functional as F", "import nothing as F"),
)
if __name__ == "__main__":
    sys.exit(command.main(["--jobs", "1"]))
"""


def test_the_command_fails_for_what_survives_or_applies_no_longer(tmp_path) -> None:
    (tmp_path / "unseen.py").write_text(UNSEEN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "unseen.py")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["killed", "seen"]
    assert lines[1].startswith("ALIVE    unseen survived: tests/unit/models/test_identity_encoder.py::test_lift")
    assert lines[2].startswith("ALIVE    gone does not apply: its text is 0 times in models/fusion.py")
    assert lines[3].startswith("ALIVE    not to be loaded tests/unit/models/test_identity_encoder.py::test_lift_equals")
    assert lines[-1] == "1 of 4 mutations are seen by the test that guards against them."
