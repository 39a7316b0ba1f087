"""The hash of code changes with everything that a result can depend on, and with nothing else."""

from pathlib import Path

import pytest

from fantasyid.core import code_fingerprint as subject
from fantasyid.core.code_fingerprint import code_fingerprint

FILES = {
    "fantasyid/__init__.py": "",
    "fantasyid/top.py": '"""Text."""\nfrom fantasyid.room import mid\n\n\ndef top(x: int) -> int:\n    return mid(x)\n',
    "fantasyid/room/__init__.py": "",
    "fantasyid/room/mid.py": "def mid(x):\n    from fantasyid.room.low import low\n    return low(x)\n",
    "fantasyid/room/low.py": "def low(x):\n    import numpy\n    return numpy.abs(x)\n",
    "fantasyid/room/alone.py": "x = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(subject, "_FOLDER", tmp_path / "fantasyid")
    return tmp_path / "fantasyid"


def fingerprint() -> str:
    subject._parsed.cache_clear()  # it holds the package as it was
    try:
        return code_fingerprint.__wrapped__("fantasyid.top")
    finally:
        subject._parsed.cache_clear()


@pytest.mark.parametrize("file", ["top.py", "room/mid.py", "room/low.py"])
def test_code_counts_also_where_it_is_imported_from(package: Path, file: str) -> None:
    before = fingerprint()
    (package / file).write_text((package / file).read_text().replace("(x)\n", "(-x)\n"))
    assert fingerprint() != before


def test_what_is_not_imported_does_not_count(package: Path) -> None:
    before = fingerprint()
    (package / "room" / "alone.py").write_text("x = 2\n")
    assert fingerprint() == before


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    before = fingerprint()
    text = (
        (package / "top.py").read_text().replace("Text", "Other text").replace("int:\n", 'int:  # why\n    """D."""\n')
    )
    (package / "top.py").write_text(text)
    assert fingerprint() == before


@pytest.mark.parametrize("text", ["import numpy", 'require("numpy", "eval", "count")'])
def test_versions_of_other_packages_count(package: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "room" / "low.py").write_text(f"def low(x):\n    {text}\n")
    before = fingerprint()
    monkeypatch.setattr(subject, "version", lambda name: "0.0")
    assert fingerprint() != before


def test_the_packages_own_modules_are_followed() -> None:
    assert code_fingerprint("fantasyid.core.bounds") == code_fingerprint("fantasyid.core.bounds")
    assert code_fingerprint("fantasyid.core.bounds") != code_fingerprint("fantasyid.core.errors")
