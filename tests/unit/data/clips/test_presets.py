"""The preset says every field, and the same as its default."""

from pathlib import Path

import yaml

from fantasyid.core.yaml_files import read_preset
from fantasyid.data.clips.config import PrepareConfig

PAPER = Path(__file__).parents[4] / "configs" / "data" / "paper.yaml"


def test_the_preset_of_the_paper_is_what_is_used_without_one() -> None:
    assert read_preset(PAPER, PrepareConfig, "configs/data") == PrepareConfig()
    assert yaml.safe_load(PAPER.read_text()) == PrepareConfig().model_dump()
