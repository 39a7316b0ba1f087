"""The paper's Tables 2 and 3, by the commands: from models that differ in one part, and from videos that show faces."""

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.video import write_video
from fantasyid.evaluation.tables import RunTable
from fantasyid.training.config_files import differences, load_stage
from tests.commands import run as run_command
from tests.tiny_photo_model import tiny_photo_pipeline
from tests.unit.evaluation.run_folder import FACE

ROOT = Path(__file__).parents[3]
ABLATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no-fa": ({"abstractor": "q-former"}, {}),
    "no-mfc": ({}, {}),
    "no-fv": ({"use_vertices": False}, {}),
    "no-lacsi": ({}, {"injection_kind": "paper_without_layers"}),
}
"""What differs of the identity encoder and of the transformer; without multi-view collections the weights do."""


def tables_of(folder: Path, systems: list[dict[str, Any]]) -> tuple[RunTable, str]:
    """Run `evaluate run` and `evaluate table` on the photos in `folder`; the table as numbers and as Markdown."""
    config = {
        "people": {"photos": "photos"},
        "prompts": [{"key": "smile", "text": "{person} smiles."}],
        "seeds": [1],
        "systems": systems,
        "compared_with": "ours",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    for command in ("run", "table"):
        result = run_command("evaluate", command, folder / "run.yaml", "--out", folder / "out")
        assert result.exit_code == 0, result.output
    table = RunTable.model_validate_json((folder / "out" / "table.json").read_text())
    return table, (folder / "out" / "table.md").read_text()


def first_cells(text: str, title: str) -> list[str]:
    rows = text.partition(f"**{title}**")[2].partition("\n\n**")[0].splitlines()
    return [row.split("|")[1].strip() for row in rows if row.startswith("|")][2:]


def test_table_3_is_made_of_models_that_differ_in_one_part(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(astronaut()[:256, 96:352]).save(tmp_path / "photos" / "a.png")
    systems = []
    for name, configs in {"ours": ({}, {}), **ABLATIONS}.items():
        pipeline = tiny_photo_pipeline(*configs)
        if name == "no-mfc":
            for weights in pipeline.identity_encoder.lift.parameters():
                weights.data.neg_()
        pipeline.save_pretrained(tmp_path / name)
        model = {"name": str(tmp_path / name), "device": "cpu", "dtype": "float32"}
        systems.append({"name": name, "request": {"model": model, "num_frames": 1}, "ablation": name != "ours"})
    table, text = tables_of(tmp_path, systems)
    assert table.failures == {}
    assert first_cells(text, "Table 3") == [*ABLATIONS, "ours"]
    assert first_cells(text, "Table 2") == ["ours"]
    videos = {path.read_bytes() for path in (tmp_path / "out" / "videos").rglob("*.mp4")}
    assert len(videos) == 5, "each part does something"


def test_both_tables_have_paired_tests_over_people(tmp_path: Path) -> None:
    shown = {"ours": 0.4, "theirs": 1.2, "no-fa": 0.8}
    for name in ("photos", *shown):
        (tmp_path / name).mkdir()
    for index, person in enumerate("abc"):
        photo = np.ascontiguousarray(FACE[:, :: -1 if index == 1 else 1]) // (1 + index // 2)
        Image.fromarray(photo).save(tmp_path / "photos" / f"{person}.png")
        for system, blur in shown.items():
            frames = [cv2.GaussianBlur(np.roll(photo, step, axis=1), (0, 0), blur + 0.2 * index) for step in (0, 2)]
            write_video(tmp_path / system / f"{person}_smile_1.mp4", np.stack(frames), 8)
    systems = [{"name": name, "videos": {"folder": name}, "ablation": name == "no-fa"} for name in shown]
    table, text = tables_of(tmp_path, systems)
    assert first_cells(text, "Table 2") == ["ours", "theirs"]
    assert first_cells(text, "Table 3") == ["no-fa", "ours"]
    (rs,) = (column for column in table.columns if column.key == "reference_similarity")
    for system, compared in zip(list(shown)[1:], rs.comparisons[1:], strict=True):
        apart = np.array([likeness(tmp_path, system, person) - likeness(tmp_path, "ours", person) for person in "abc"])
        assert compared is not None
        assert compared.difference == pytest.approx(apart.mean())
        samples = [apart[list(drawn)].mean() for drawn in itertools.product(range(3), repeat=3)]
        assert min(samples) <= compared.low <= compared.difference <= compared.high <= max(samples)
        exchanged = [abs((apart * signs).mean()) for signs in itertools.product((-1, 1), repeat=3)]
        assert compared.p == pytest.approx(np.mean(np.array(exchanged) >= abs(apart.mean()) - 1e-9), abs=0.04)
        assert f"{compared.difference:+.3f} [" in text


def likeness(folder: Path, system: str, person: str) -> float:
    kept = json.loads((folder / "out" / "items" / system / f"{person}_smile_1.json").read_text())["measured"]
    value: float = kept["reference_similarity"]["value"]
    return value


MINI = {
    "no-fa": ("identity_encoder: {centre: true", ", abstractor: q-former", "objective.identity_encoder.abstractor"),
    "no-fv": ("identity_encoder: {centre: true", ", use_vertices: false", "objective.identity_encoder.use_vertices"),
    "no-lacsi": ("injection_heads: 3", "\n  injection_kind: paper_without_layers", "model.injection_kind"),
}


@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize("stage", ["encoder", "pairs", "clips"])
def test_minis_presets_take_the_parts_away_in_one_line(name: str, stage: str, tmp_path: Path) -> None:
    """Clips that are rendered have one view of the person each, so that multi-view collections cannot be left out."""
    before, more, place = MINI[name]
    whole = ROOT / "configs" / "train" / f"mini-{stage}.yaml"
    text = whole.read_text()
    if stage == "encoder" and name == "no-lacsi":
        assert before not in text, "the encoder is the same"
        return
    assert text.count(before) == 1
    (tmp_path / "ablation.yaml").write_text(text.replace(before, before + more))
    configs = [load_stage(path, stage).model_dump() for path in (tmp_path / "ablation.yaml", whole)]
    assert [where for where, _, _ in differences(*configs)] == [place]
