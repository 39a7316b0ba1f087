"""What the README says of Python and prompts is so, and links of all pages lead somewhere."""

import re
from pathlib import Path

import numpy as np

from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.data.repose.programs import PROGRAMS
from tests.documents import blocks_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_makes_a_video_in_at_most_six_lines() -> None:
    (block,) = (block for block in blocks_of(ROOT / "README.md") if block.language == "python")
    assert sum(bool(line.strip()) for line in block.code.splitlines()) <= 6


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{link} in {page.name}"


def test_words_of_the_prompts_are_those_of_training() -> None:
    (_, after) = README.split("## What the built-in model understands")
    table = after.split("##")[0]
    assert all(colour in table for colour in COLOURS)
    for name in PROGRAMS:
        assert _words(name) in table, name


def _words(program: str) -> str:
    """What the README calls a program; pairs of directions share a phrase."""
    phrase = PROGRAMS[program][1](np.random.default_rng(0), 17).phrase
    return re.sub(r" (left|right|up|down)$", "", phrase)
