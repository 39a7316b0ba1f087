"""What training reads has the same bytes however often its making was killed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data_kills import Work, differing, encoding_of_a_pool, encoding_of_clips, views


@pytest.mark.parametrize(("work", "kills"), [(encoding_of_clips, 4), (encoding_of_a_pool, 3), (views, 1)])
def test_kills_are_survived_to_the_same_bytes(work: Callable[[Path], Work], kills: int, tmp_path: Path) -> None:
    """More of them by `python -m tests.data_kills`."""
    assert differing(tmp_path, work(tmp_path), kills) == []
