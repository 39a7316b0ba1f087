"""The example workflows make the videos of the command line, to the last bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.core.provenance import DETECTION_THRESHOLD, add_xmp, container_metadata, detect_mark
from fantasyid.core.video import write_video
from fantasyid.generation.record import GenerationRecord, read_record
from tests.comfyui.conftest import FOLDER
from tests.comfyui.graph import open_workflow, run_workflow
from tests.commands import run

WORKFLOWS = sorted((FOLDER / "example_workflows").glob("*.json"))


def load_image(image: str, upload: str) -> tuple[torch.Tensor, None]:
    """ComfyUI's own node."""
    return torch.from_numpy(np.asarray(Image.open(image), dtype=np.float32) / 255)[None], None


PLAIN = {
    "MarkdownNote": lambda: (),
    "LoadImage": load_image,
    "SaveVideo": lambda video, filename_prefix, format, codec: (video,),
    "PreviewAny": lambda source: (source,),
}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_makes_the_video_of_the_command_line(
    path: Path, nodes: dict[str, Any], photo: Path, tmp_path: Path
) -> None:
    workflow = open_workflow(path, nodes, PLAIN)
    changes = {
        "LoadImage": {"image": str(photo)},
        "FantasyID_Load": {"model": "tiny", "device": "cpu", "precision": "float32"},
        "FantasyID_Generate": {"seed": 7},
    }
    made = run_workflow(workflow, nodes, PLAIN, changes)
    edits = next((node.values for node in workflow.values() if node.kind == "FantasyID_EditHead"), {})
    (generate,) = (node for node in workflow.values() if node.kind == "FantasyID_Generate")
    options = [f"--edit={name.replace('_', '-')}={strength}" for name, strength in edits.items() if strength]
    assert len(options) == (2 if "edited" in path.stem else 0)
    model = GenerationRecord.model_validate_json(made["PreviewAny"][0]).request.model.name
    options += [
        "--prompt",
        generate.values["prompt"],
        "--seed=7",
        "--device=cpu",
        "--dtype=float32",
        f"--model={model}",
    ]
    result = run("generate", photo, "--out", tmp_path / "png", "--format", "png", *options)
    assert result.exit_code == 0, result.output
    frames = (made["FantasyID_Generate"][0] * 255).round().byte().numpy()
    pictures = [np.asarray(Image.open(picture)) for picture in sorted((tmp_path / "png").iterdir())]
    assert np.array_equal(frames, pictures)
    assert detect_mark(frames) >= DETECTION_THRESHOLD
    (video,) = made["SaveVideo"]
    file = tmp_path / "as-the-command-line-writes-it.mp4"
    write_video(file, frames, 8, container_metadata())
    add_xmp(file)
    assert video.get_stream_source().read() == file.read_bytes()
    theirs = read_record(tmp_path / "png.json").request
    ours = GenerationRecord.model_validate_json(made["PreviewAny"][0]).request
    assert ours.person is not None
    assert theirs.person is not None
    assert ours.person.edits == theirs.person.edits
    assert ours.model_copy(update={"person": None}) == theirs.model_copy(update={"person": None})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda node: node["widgets_values"].insert(0, node["widgets_values"].pop()), "prompt"),
        (lambda node: node["widgets_values"].pop(), "keep_model"),
        (lambda node: node["widgets_values"].append(1), "more values"),
        (lambda node: node["inputs"].reverse(), ""),
    ],
    ids=["other-order", "one-less", "one-more", "inputs-in-another-order"],
)
def test_a_workflow_whose_values_are_not_those_of_the_schema_is_found_out(
    spoil: Callable[[dict[str, Any]], Any], told: str, nodes: dict[str, Any], tmp_path: Path
) -> None:
    workflow = json.loads(WORKFLOWS[0].read_text())
    spoil(next(node for node in workflow["nodes"] if node["type"] == "FantasyID_Generate"))
    (tmp_path / "spoilt.json").write_text(json.dumps(workflow))
    with pytest.raises((AssertionError, IndexError), match=told or None):
        open_workflow(tmp_path / "spoilt.json", nodes, PLAIN)
