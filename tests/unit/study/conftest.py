"""A folder of a study whose files say what they are, so that a test knows what a page shows."""

from pathlib import Path

import pytest

SYSTEMS = ("ours", "other", "third")
ITEMS = ("p1", "p2", "p3", "p4")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "photos").mkdir(parents=True)
    rows = ["item,reference,prompt"]
    for item in ITEMS:
        (folder / "photos" / f"{item}.jpg").write_bytes(f"photo {item}".encode())
        rows.append(f'{item},photos/{item}.jpg,"A <b>woman</b> smiles, says {item}."')
        for system in SYSTEMS:
            (folder / system).mkdir(exist_ok=True)
            suffix = "webm" if system == "third" else "mp4"
            (folder / system / f"{item}.{suffix}").write_bytes(f"{item} {system}".encode())
    (folder / "items.csv").write_text("\n".join(rows))
    return folder
