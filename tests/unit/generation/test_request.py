"""What may be asked, and what a refusal says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.request import SPEED_PRESETS, GenerationRequest, ModelRequest, PersonRequest

PHOTO = {"photos": ["photo.jpg"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "caf\udce9"}, r"The prompt holds bytes that are not UTF-8 \('caf\\\\xe9'\)"),
        ({"negative_prompt": "caf\udce9"}, "The negative prompt holds bytes"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64 - 1, "num_videos": 2}, "Seeds would count up"),
        ({"num_videos": 0}, "num_videos is 0"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 0.5}, r"fps is 0\.5; it must be a number from 1 to 120"),
        ({"height": 128}, "one is missing"),
        ({"height": 5000, "width": 128}, "height is 5000"),
        ({"guidance_scale": 101.0}, r"guidance_scale is 101\.0"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance_interval"),
        ({"identity_scale": float("inf")}, "identity_scale is inf"),
        ({"model": {"gpus": 0}}, "gpus is 0"),
        ({"model": {"acceleration": {"tune": True}}}, "compile is off"),
        ({"person": {**PHOTO, "face_index": -1}}, "face_index is -1"),
        ({"person": {**PHOTO, "edits": {"ears": 1.0}}}, "no edit 'ears'"),
        ({"person": {**PHOTO, "edits": {"face-width": 1.0}, "face_backend": "deca"}}, "the built-in head"),
        ({"person": {**PHOTO, "edits": {"face-width": 1.0}}, "use_identity_tokens": False}, "through the identity"),
        ({"person": {**PHOTO, "deca_folder": "."}}, "is for --backend deca"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        GenerationRequest.model_validate({"prompt": "a person smiles", **fields})


def test_every_door_calls_the_fields_by_its_own_names() -> None:
    with pytest.raises(InvalidRequestError, match=r"^--steps is 0"):
        GenerationRequest.model_validate(
            {"prompt": "a", "num_inference_steps": 0}, context={"names": {"num_inference_steps": "--steps"}}
        )


def test_a_request_survives_json() -> None:
    asked = GenerationRequest(
        prompt="a person smiles",
        person=PersonRequest(photos=(Path("a.jpg"), Path("b.jpg")), edits={"face-width": 0.5}),
        seed=7,
        model=ModelRequest(device="cpu"),
    )
    assert GenerationRequest.model_validate_json(asked.model_dump_json()) == asked


def test_presets_are_requests() -> None:
    for preset in SPEED_PRESETS.values():
        GenerationRequest.model_validate({"prompt": "a", **preset})
    draft = GenerationRequest.model_validate({"prompt": "a", **SPEED_PRESETS["draft"]})
    assert (draft.model.acceleration.cache, draft.model.acceleration.cache_interval) == ("taylor", 2)


def test_asking_loads_no_library() -> None:
    libraries = "{'torch', 'diffusers', 'numpy', 'cv2'}"
    code = f"import sys, fantasyid.generation.request\nassert not {libraries} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
