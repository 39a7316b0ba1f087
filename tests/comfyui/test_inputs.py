"""Every input of every node acts, is explained, and refuses what cannot be, by its own name."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from fantasyid.core.errors import FantasyIDError
from fantasyid.generation.record import GenerationRecord
from fantasyid.geometry.edit_table import EDIT_NAMES
from fantasyid.models.kernels.fp8 import multiplies_fp8
from tests.comfyui.graph import check_value

PROMPT = "a woman smiles"


def defaults(node: Any) -> dict[str, Any]:
    """What stands in a new node."""
    return {asked.id: asked.default for asked in node.GET_SCHEMA().inputs if hasattr(asked, "default")}


def given(node: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a node gives, by the names of its outputs, so that it can be compared."""
    with torch.inference_mode():
        result = node.execute(**{**defaults(node), **values}).result
    outputs = dict(zip((out.display_name for out in node.GET_SCHEMA().outputs), result, strict=True))
    if "record" in outputs:
        outputs["record"] = GenerationRecord.model_validate_json(outputs["record"]).request
    if "video" in outputs:
        outputs["video"] = outputs["video"].get_stream_source().read()
    if "person" in outputs:
        outputs["person"] = outputs["person"].request
    return outputs


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Outputs that differ."""
    return {name for name in one if not np.array_equal(one[name], other[name])}


TESTED: dict[str, set[str]] = {
    "Load": {"model", "device", "precision", "offload", "speed"},
    "ReadPerson": {"model", "image", "face", "reader"},
    "EditHead": {"person", *(name.replace("-", "_") for name in EDIT_NAMES)},
    "Generate": {
        *("model", "person", "prompt", "negative_prompt", "seed", "steps", "guidance", "identity_scale", "fps"),
        *("use_reference", "use_identity_tokens", "frames", "width", "height", "preview", "keep_model"),
    },
}
"""Inputs that tests of this file change, each by its name."""


def test_no_input_is_left_out(nodes: dict[str, Any]) -> None:
    assert {name: {asked.id for asked in node.GET_SCHEMA().inputs} for name, node in nodes.items()} == TESTED


def test_inputs_are_explained_and_their_defaults_allowed(nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        assert schema.description
        for asked in schema.inputs:
            assert asked.tooltip, asked.id
            if hasattr(asked, "default"):
                check_value(asked, asked.default)


# Load FantasyID


@pytest.mark.parametrize(
    ("changed", "chosen"),
    [
        ({"precision": "bfloat16"}, lambda request: request.dtype == "bfloat16"),
        ({"model": "mini"}, lambda request: request.name == "mini"),
        ({"speed": "fast"}, lambda request: request.acceleration.compile),
    ],
    ids=["precision", "model", "speed"],
)
def test_what_is_loaded_is_what_was_chosen(nodes: dict[str, Any], changed: Any, chosen: Any) -> None:
    values = {**defaults(nodes["Load"]), "model": "tiny", "device": "cpu", "precision": "float32"}
    for more, expected in (({}, False), (changed, True)):
        (model,) = nodes["Load"].execute(**{**values, **more}).result
        assert chosen(model.request) is expected


@pytest.mark.skipif(not multiplies_fp8(torch.device("cpu")), reason="this PyTorch has no 8-bit products on CPUs")
def test_draft_also_guides_the_first_steps_alone(nodes: dict[str, Any]) -> None:
    values = {**defaults(nodes["Load"]), "model": "tiny", "device": "cpu"}
    intervals = [
        nodes["Load"].execute(**{**values, "speed": speed}).result[0].guidance_interval for speed in ("exact", "draft")
    ]
    assert intervals == [(0.0, 1.0), (0.0, 0.6)]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"model": "../elsewhere"}, "There is no model '../elsewhere'; take one of mini, tiny, or put its folder"),
        ({"device": "cuda"}, "no usable CUDA device"),
        ({"offload": "low"}, "use 'fast'"),
    ],
    ids=["model", "device", "offload"],
)
def test_what_cannot_be_loaded_is_refused(nodes: dict[str, Any], changed: Any, sentence: str) -> None:
    if "device" in changed and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    values = {**defaults(nodes["Load"]), "model": "tiny", "device": "cpu", **changed}
    with pytest.raises(FantasyIDError, match=re.escape(sentence)):
        nodes["Load"].execute(**values)


# Read Person


def test_the_photo_and_its_reader_are_taken(nodes: dict[str, Any], loaded: Any, image: torch.Tensor) -> None:
    usual = given(nodes["ReadPerson"], {"model": loaded, "image": image})
    assert usual["overlay"].shape == image.shape
    assert usual["reading"].startswith("A face of 101 pixels")
    both = given(nodes["ReadPerson"], {"model": loaded, "image": torch.cat([image, image.flip(2)])})
    assert differences(usual, both) == {"person", "overlay", "reading"}
    assert np.array_equal(both["overlay"][:1], usual["overlay"])
    assert len(both["person"].photos) == len(set(both["person"].photos)) == 2
    other = given(nodes["ReadPerson"], {"model": loaded, "image": image, "reader": "builtin"})
    assert (usual["person"].face_backend, other["person"].face_backend) == (None, "builtin")


def test_the_face_and_its_number_in_the_picture_are_those_asked_for(
    nodes: dict[str, Any], loaded: Any, image: torch.Tensor
) -> None:
    small = torch.nn.functional.interpolate(image.permute(0, 3, 1, 2), (400, 400)).permute(0, 2, 3, 1)
    couple = torch.cat([torch.nn.functional.pad(small, (0, 0, 0, 0, 0, 112)), image], dim=2)
    first, second = (given(nodes["ReadPerson"], {"model": loaded, "image": couple, "face": face}) for face in (0, 1))
    assert differences(first, second) == {"person", "overlay", "reading"}
    assert (first["person"].face_index, second["person"].face_index) == (0, 1)
    left = slice(None), slice(None), slice(0, 270)
    assert np.allclose(first["overlay"][left][:, 400:], second["overlay"][left][:, 400:], atol=0.02)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"image": torch.zeros(1, 64, 64, 4)}, "The image has 4 channels; give one of three"),
        ({"image": torch.full((1, 240, 320, 3), 0.5)}, "No face was found in the photo (320x240 pixels)"),
        ({"face": 5}, "There is no face 5 in the photo; there is 1 face: choose 0"),
        ({"reader": "deca"}, "generic_model.pkl"),
    ],
    ids=["channels", "image", "face", "reader"],
)
def test_a_photo_that_cannot_be_read_is_refused(
    nodes: dict[str, Any], loaded: Any, image: torch.Tensor, changed: Any, sentence: str
) -> None:
    with pytest.raises(FantasyIDError, match=re.escape(sentence)):
        given(nodes["ReadPerson"], {"model": loaded, "image": image, **changed})


# Edit Head


def test_every_slider_moves_the_head(nodes: dict[str, Any], person: Any) -> None:
    usual = given(nodes["EditHead"], {"person": person})
    assert usual["person"] == person.request
    half = usual["turntable"].shape[1] // 2
    assert np.array_equal(usual["turntable"][:, :half], usual["turntable"][:, half:])
    for name in EDIT_NAMES:
        edited = given(nodes["EditHead"], {"person": person, name.replace("-", "_"): 0.8})
        assert edited["person"].edits == {name: 0.8}
        assert np.array_equal(edited["turntable"][:, :half], usual["turntable"][:, :half])
        assert not np.array_equal(edited["turntable"][:, half:], usual["turntable"][:, half:]), name


def test_edits_of_several_nodes_add_up_as_far_as_a_head_goes(nodes: dict[str, Any], person: Any) -> None:
    edit = nodes["EditHead"]
    (once, _) = edit.execute(**{**defaults(edit), "person": person, "nose_width": 0.5, "eye_spacing": -0.5}).result
    (twice, _) = edit.execute(**{**defaults(edit), "person": once, "nose_width": 0.5, "eye_spacing": 0.5}).result
    assert twice.request.edits == {"nose-width": 1.0}
    with pytest.raises(FantasyIDError, match=re.escape("The edit nose-width is 1.05")):
        edit.execute(**{**defaults(edit), "person": twice, "nose_width": 0.05})


# Generate Video


@pytest.fixture(scope="module")
def asked(loaded: Any, person: Any) -> dict[str, Any]:
    """What is asked for where a test asks for nothing else."""
    return {"model": loaded, "person": person, "prompt": PROMPT, "seed": 3, "preview": False}


@pytest.fixture(scope="module")
def usual(nodes: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    return given(nodes["Generate"], asked)


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ({"prompt": "a woman nods"}, {"frames"}),
        ({"negative_prompt": "a man nods"}, {"frames"}),
        ({"seed": 4}, {"frames"}),
        ({"steps": 3}, {"frames"}),
        ({"guidance": 1.0}, {"frames"}),
        ({"identity_scale": 3.0}, {"frames"}),
        ({"use_reference": False}, {"frames"}),
        ({"use_identity_tokens": False}, {"frames"}),
        ({"person": None}, {"frames"}),
        ({"frames": 1}, {"frames"}),
        ({"width": 64, "height": 128}, {"frames"}),
        ({"fps": 12.0}, {"fps"}),
        ({"prompt": "eine Frau lacht und nickt"}, {"frames", "notes"}),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_an_input_acts(
    nodes: dict[str, Any], asked: dict[str, Any], usual: dict[str, Any], changed: dict[str, Any], others: set[str]
) -> None:
    made = given(nodes["Generate"], {**asked, **changed})
    assert differences(usual, made) == {"video", "record", *others}
    assert made["frames"].dtype == torch.float32
    assert made["frames"].shape[1:] == (changed.get("height", 128), changed.get("width", 128), 3)
    assert made["record"].fps == made["fps"]


def test_the_model_chooses_what_is_left_to_it(usual: dict[str, Any], loaded: Any) -> None:
    record, config = usual["record"], loaded._studio.pipeline.config
    assert record.num_inference_steps == config.default_num_inference_steps
    assert record.guidance_scale == config.default_guidance_scale
    assert (record.num_frames, record.width, record.height, usual["fps"]) == (9, 128, 128, 8)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty; say what happens"),
        ({"width": 64}, "Of height and width one is missing"),
        ({"frames": 4}, "this model makes 1, 9"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance": 101.0}, "guidance is 101.0"),
        ({"fps": 0.5}, "fps is 0.5"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_made_is_refused(
    nodes: dict[str, Any], asked: dict[str, Any], changed: Any, sentence: str
) -> None:
    with pytest.raises(FantasyIDError, match=re.escape(sentence)):
        given(nodes["Generate"], {**asked, **changed})


def test_an_edited_head_needs_the_tokens_that_tell_of_it(
    nodes: dict[str, Any], asked: dict[str, Any], person: Any
) -> None:
    (edited, _) = (
        nodes["EditHead"].execute(**{**defaults(nodes["EditHead"]), "person": person, "nose_width": 0.5}).result
    )
    with pytest.raises(FantasyIDError, match="switch use_identity_tokens on, or leave Edit Head out"):
        given(nodes["Generate"], {**asked, "person": edited, "use_identity_tokens": False})
    assert "never measured" in given(nodes["Generate"], {**asked, "person": edited})["notes"]


def test_a_typed_prompt_is_checked_before_anything_is_loaded(nodes: dict[str, Any]) -> None:
    assert nodes["Generate"].validate_inputs(prompt=PROMPT) is True
    assert nodes["Generate"].validate_inputs(prompt=None) is True  # it comes from another node
    assert nodes["Generate"].validate_inputs(prompt="").startswith("The prompt is empty")
