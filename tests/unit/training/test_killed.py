"""A run that is killed while it saves goes on as if nothing had been."""

from pathlib import Path

from tests.training_kills import differing


def test_a_few_kills_are_survived_to_the_same_bits(tmp_path: Path) -> None:
    """More by `python -m tests.training_kills`."""
    assert differing(tmp_path, kills=5) == []
