"""The evaluation separates systems whose order is known; benchmarks/separation.py does the same on many people.

A portrait in the public domain is the photo in three poses. `videos/ours.mp4` and `videos/no-identity.mp4` were made of
it by the built-in model, seed 0, with the prompt "A woman turns the head to the left, in front of a plain grey
background.", the second with `--no-identity`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.separation import FROZEN, NO_IDENTITY, ORDERS, OURS, REPOSED, STRANGER, SYSTEMS, Order, to_markdown
from fantasyid.core.video import open_video, write_video
from fantasyid.evaluation.metrics.interface import Measured
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.run import run
from fantasyid.evaluation.run_config import RunConfig, run_rows
from tests.unit.data.clips.films import packaged_film, portrait_rig, posed

ROOT = Path(__file__).parents[3]
MADE = Path(__file__).parent / "videos"
PHOTOS_DEG = (-14.0, 0.0, 14.0)
# Of each video where it begins and ends; the means do not follow the photos'.
TURNS_DEG = ((-4.0, 12.0), (4.0, -16.0), (12.0, -4.0))


def some_frames(path: Path) -> NDArray[np.uint8]:
    return np.stack(list(open_video(path).frames())[6:11])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float | None]:
    """The number of every metric and system, of three photos' videos."""
    folder = tmp_path_factory.mktemp("separation")
    rig = portrait_rig(folder)
    for name in ("photos", *SYSTEMS):
        (folder / name).mkdir()
    yaw = torch.tensor(PHOTOS_DEG)
    photos, _ = posed(rig, torch.stack([yaw, 0 * yaw, 0 * yaw], dim=1))
    same = {
        OURS: some_frames(MADE / "ours.mp4"),
        NO_IDENTITY: some_frames(MADE / "no-identity.mp4"),
        STRANGER: some_frames(packaged_film("carphone_pristine")),
    }
    for name, photo, turn in zip("abc", photos, TURNS_DEG, strict=True):
        Image.fromarray(photo).save(folder / "photos" / f"{name}.png")
        angles = torch.zeros(5, 3)
        angles[:, 0] = torch.linspace(*turn, 5)
        angles[:, 1] = torch.linspace(0, 8, 5)
        angles[:, 2] = torch.linspace(-3, 3, 5)
        videos = {**same, REPOSED: posed(rig, angles)[0], FROZEN: np.stack([photo] * 5)}
        for system, frames in videos.items():
            write_video(folder / system / f"{name}_turn_1.mp4", frames, 8)
    config = RunConfig.model_validate(
        {
            "people": {"photos": "photos"},
            "prompts": [{"key": "turn", "text": "{person} turns the head.", "asks": ["pose"]}],
            "seeds": [1],
            "systems": [{"name": name, "videos": {"folder": name}} for name in SYSTEMS],
            "compared_with": OURS,
        }
    )
    items = run(config, list(run_rows(config, folder)), folder, folder / "out", {})
    assert [item.failure for item in items] == [None] * len(items)
    return {
        (metric.definition.key, system): metric.combine(
            [
                Measured(item.person, item.prompt_key, item.measured[metric.definition.key].value)
                for item in items
                if item.system == system
            ]
        )
        for metric in all_metrics()
        for system in SYSTEMS
    }


# Three photos of one woman say nothing of expressions, and the set of their videos is too small for a distance of sets.
NOT_HERE = {"copy_paste_expression", "face_frechet_distance"}


@pytest.mark.parametrize(
    "order",
    [order for order in ORDERS if order.metric not in NOT_HERE],
    ids=lambda order: f"{order.metric}: {order.more} > {order.less}",
)
def test_the_order_is_seen(found: dict[tuple[str, str], float | None], order: Order) -> None:
    more, less = found[order.metric, order.more], found[order.metric, order.less]
    assert more is not None
    assert less is not None
    assert more > less


def test_the_documents_table_is_that_of_the_result() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "separation.json").read_text())["rows"]
    assert len(rows) == len(ORDERS)
    assert all(row["seen"] for row in rows.values())
    assert to_markdown(rows) in (ROOT / "docs" / "evaluation.md").read_text()
