"""What the commands are given."""

from pathlib import Path

import pytest
from PIL import Image
from skimage.data import astronaut


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public-domain portrait as a file."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(astronaut()).save(path)
    return path
