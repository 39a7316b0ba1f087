"""The authors' release at a tiny size, and a copy of it that a test may spoil."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_release import write_release


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("pristine") / "release")


@pytest.fixture
def release(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "release"))
