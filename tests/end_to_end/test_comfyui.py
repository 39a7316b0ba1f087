"""ComfyUI's nodes: the example workflows make the videos of the command line, and every input acts."""

import asyncio
import importlib.util
import json
import shutil
import sys
import tomllib
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from fantasyid import __version__
from fantasyid.core.errors import FantasyIDError
from fantasyid.core.provenance import DETECTION_THRESHOLD, declares_ai, detect_mark
from fantasyid.core.video import read_video
from fantasyid.generation.record import GenerationRecord, read_record
from fantasyid.geometry.edit_table import EDIT_NAMES
from fantasyid.geometry.head_model import HeadModel
from tests.comfy_graph import check_value, open_workflow, run_workflow
from tests.commands import run
from tests.end_to_end.test_cli_generate import model

__all__ = ["model"]  # a fixture

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "comfyui"
WORKFLOWS = sorted((FOLDER / "example_workflows").glob("*.json"))
LOAD, READ, EDIT, GENERATE = (f"FantasyID_{name}" for name in ("Load", "ReadPerson", "EditHead", "Generate"))


@pytest.fixture(scope="module")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The folder, imported as ComfyUI imports a custom node, by its path; its models are in a folder of the test."""
    before = dict(sys.modules)
    if importlib.util.find_spec("comfy_api") is None:
        sys.path.insert(0, str(ROOT / "tests" / "comfy_host"))
    folder_paths = importlib.import_module("folder_paths")
    folder_paths.models_dir = str(tmp_path_factory.mktemp("models"))
    shutil.copytree(model, Path(folder_paths.models_dir) / "fantasyid" / "tiny")
    spec = importlib.util.spec_from_file_location(
        str(FOLDER).replace(".", "_x_"), FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    spec.loader.exec_module(package)
    yield package
    sys.path[:] = [place for place in sys.path if not place.endswith("comfy_host")]
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in ("comfy", "comfy_api", "folder_paths") or name.startswith(spec.name):
            del sys.modules[name]


@pytest.fixture(scope="module")
def nodes(package: ModuleType) -> dict[str, Any]:
    """The nodes by their ids, after ComfyUI's start."""

    async def start() -> list[Any]:
        extension = await package.comfy_entrypoint()
        await extension.on_load()
        nodes: list[Any] = await extension.get_node_list()
        return nodes

    HeadModel.load()  # kept for all tests, so not made in inference mode
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(start())}


def load_image(image: str, upload: str) -> tuple[torch.Tensor, None]:
    """ComfyUI's own node."""
    return torch.from_numpy(np.asarray(Image.open(image), dtype=np.float32) / 255)[None], None


PLAIN = {
    "MarkdownNote": lambda: (),
    "LoadImage": load_image,
    "SaveVideo": lambda video, filename_prefix, format, codec: (video,),
    "PreviewAny": lambda source: (source,),
}


def tiny(nodes: Mapping[str, Any], **values: Any) -> Any:
    """The tiny model, loaded."""
    asked = {"model": "tiny", "device": "cpu", "precision": "float32", "offload": "auto", "speed": "exact"}
    return nodes[LOAD].execute(**{**asked, **values}).result[0]


def frames_of(image: torch.Tensor) -> NDArray[np.uint8]:
    return (image * 255).round().byte().numpy()


# The example workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_makes_the_video_of_the_command_line(
    path: Path, nodes: dict[str, Any], photo: Path, tmp_path: Path
) -> None:
    workflow = open_workflow(path, nodes, PLAIN)
    changes = {
        "LoadImage": {"image": str(photo)},
        LOAD: {"model": "tiny", "device": "cpu", "precision": "float32"},
        GENERATE: {"seed": 7},
    }
    made = run_workflow(workflow, nodes, PLAIN, changes)
    edits = next((node.values for node in workflow.values() if node.kind == EDIT), {})
    (generate,) = (node for node in workflow.values() if node.kind == GENERATE)
    options = [f"--edit={name.replace('_', '-')}={strength}" for name, strength in edits.items() if strength]
    assert len(options) == (2 if "edited" in path.stem else 0)
    model = GenerationRecord.model_validate_json(made["PreviewAny"][0]).request.model.name
    options += ["--prompt", generate.values["prompt"], "--seed=7", "--device=cpu", "--dtype=float32", f"--model={model}"]
    for form in ("png", "mp4"):
        result = run("generate", photo, "--out", tmp_path / form, "--format", form, *options)
        assert result.exit_code == 0, result.output

    frames = frames_of(made[GENERATE][0])
    pictures = [np.asarray(Image.open(picture)) for picture in sorted((tmp_path / "png").iterdir())]
    assert np.array_equal(frames, pictures)
    assert detect_mark(frames) >= DETECTION_THRESHOLD
    (video,) = made["SaveVideo"]
    file = tmp_path / "comfy.mp4"
    file.write_bytes(video.get_stream_source().read())
    assert file.read_bytes() == (tmp_path / "mp4.mp4").read_bytes()
    assert declares_ai(file)
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
    spoil: Any, told: str, nodes: dict[str, Any], tmp_path: Path
) -> None:
    workflow = json.loads(WORKFLOWS[0].read_text())
    spoil(next(node for node in workflow["nodes"] if node["type"] == GENERATE))
    (tmp_path / "spoilt.json").write_text(json.dumps(workflow))
    with pytest.raises((AssertionError, IndexError), match=told or None):
        open_workflow(tmp_path / "spoilt.json", nodes, PLAIN)


# Every input


def outputs_of(values: Mapping[str, Mapping[str, Any]], nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What all nodes give, as things that can be compared: values by node on top of the first workflow's."""
    photo = torch.from_numpy(astronaut().astype(np.float32) / 255)[None]
    with torch.inference_mode():
        model = tiny(nodes, **values.get(LOAD, {}))
        person, overlay, said = nodes[READ].execute(
            **{"model": model, "image": photo, "face": 0, "reader": "of the model", **values.get(READ, {})}
        ).result
        edits = {name.replace("-", "_"): 0.0 for name in EDIT_NAMES} | values.get(EDIT, {})
        edited, turntable = nodes[EDIT].execute(**{"person": person, **edits}).result
        asked = {asked.id: asked.default for asked in nodes[GENERATE].GET_SCHEMA().inputs if hasattr(asked, "default")}
        asked |= {"model": model, "person": edited, "prompt": "a woman smiles", "seed": 3, **values.get(GENERATE, {})}
        made = nodes[GENERATE].execute(**asked)
    frames, _, fps, record, notes = made.result
    return {
        "overlay": overlay.numpy(),
        "said": said,
        "turntable": turntable.numpy(),
        "frames": frames.numpy(),
        "fps": fps,
        "model": GenerationRecord.model_validate_json(record).request.model,
        "notes": notes,
        "kept": model._studio is not None,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    same = {name: np.array_equal(one[name], other[name]) for name in one}
    return {name for name, equal in same.items() if not equal}


@pytest.fixture(scope="module")
def usual(nodes: dict[str, Any]) -> dict[str, Any]:
    return outputs_of({}, nodes)


ACTS: dict[str, dict[str, tuple[Any, set[str]]]] = {
    LOAD: {
        "precision": ("bfloat16", {"model", "frames"}),
    },
    READ: {
        "image": (torch.from_numpy(astronaut()[:, ::-1].astype(np.float32) / 255)[None], {"overlay", "frames"}),
        "reader": ("builtin", set()),
    },
    EDIT: {name.replace("-", "_"): (0.8, {"turntable", "frames", "notes"}) for name in EDIT_NAMES},
    GENERATE: {
        "prompt": ("a woman nods", {"frames"}),
        "negative_prompt": ("a man nods", {"frames"}),
        "seed": (4, {"frames"}),
        "steps": (3, {"frames"}),
        "guidance": (1.0, {"frames"}),
        "identity_scale": (3.0, {"frames"}),
        "use_reference": (False, {"frames"}),
        "use_identity_tokens": (False, {"frames"}),
        "frames": (5, {"frames"}),
        "fps": (12.0, {"fps"}),
        "keep_model": (False, {"kept"}),
        "person": (None, {"frames"}),
    },
}
"""For inputs of which one value is enough: another value, and what must differ then."""
ELSEWHERE = {
    LOAD: {"model", "device", "offload", "speed"},
    READ: {"model", "face"},
    EDIT: {"person"},
    GENERATE: {"model", "width", "height", "preview"},
}
"""Inputs that tests of their own are about."""


@pytest.mark.parametrize(
    ("node", "name"), [(node, name) for node, names in ACTS.items() for name in names], ids=lambda name: name
)
def test_an_input_acts(node: str, name: str, nodes: dict[str, Any], usual: dict[str, Any]) -> None:
    value, expected = ACTS[node][name]
    changed = differences(usual, outputs_of({node: {name: value}}, nodes))
    assert expected <= changed
    if node == GENERATE:
        assert changed == expected


def test_no_input_is_left_out(nodes: dict[str, Any]) -> None:
    for node, cls in nodes.items():
        inputs = {asked.id for asked in cls.GET_SCHEMA().inputs}
        assert set(ACTS[node]) | ELSEWHERE[node] == inputs
        assert not set(ACTS[node]) & ELSEWHERE[node]


def test_inputs_are_explained_and_their_defaults_allowed(nodes: dict[str, Any]) -> None:
    for cls in nodes.values():
        schema = cls.GET_SCHEMA()
        assert schema.description
        for asked in schema.inputs:
            assert asked.tooltip, asked.id
            if hasattr(asked, "default"):
                check_value(asked, asked.default)
