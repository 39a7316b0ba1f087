"""What docs/security.md promises of the provenance mark is what was measured."""

import json
from pathlib import Path

from benchmarks.provenance_mark import ATTACKS, RESULTS, SIZES, table
from fantasyid.core.mark_search import THRESHOLDS

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_results() -> None:
    content = json.loads((ROOT / RESULTS).read_text())
    assert table(content) in (ROOT / "docs" / "security.md").read_text()
    assert set(content["attacks"]) == set(ATTACKS)
    assert all(len(row) == len(SIZES) for row in content["attacks"].values())


def test_no_unmarked_picture_was_accused() -> None:
    unmarked = json.loads((ROOT / RESULTS).read_text())["unmarked"]
    assert set(unmarked) == set(THRESHOLDS)
    for place, threshold in THRESHOLDS.items():
        assert len(unmarked[place]) >= 2000
        assert max(unmarked[place]) < threshold - 0.5
