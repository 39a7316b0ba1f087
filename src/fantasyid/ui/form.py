"""From what a visitor filled in to a request, and back."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.request import GenerationRequest, ModelRequest, PersonRequest
from fantasyid.geometry.edit_table import EDIT_NAMES

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "Prompt",
        "negative_prompt": "Keep away from",
        "seed": "Seed",
        "num_videos": "Videos",
        "num_inference_steps": "Steps",
        "guidance_scale": "Guidance",
        "identity_scale": "Strength of the identity tokens",
        "use_reference": "Use the portrait itself",
        "use_identity_tokens": "Use the identity tokens",
        "num_frames": "Frames",
        "width": "Width",
        "height": "Height",
        "fps": "Frames per second",
    }
)
"""What the page calls the fields of a request that go into it as they are."""
_NAMES = {**LABELS, "guidance_interval": "Guided share of the steps", "face_index": "Face"}
_WHOLE = ("seed", "num_inference_steps", "num_frames", "width", "height")
NUMBERS = (*_WHOLE, "guidance_scale", "fps")
"""Fields that are typed as text, because they may be empty, and a seed has more digits than numbers in browsers."""


def label_of(edit: str) -> str:
    """What the page calls an edit of the head."""
    return edit.replace("-", " ").capitalize()


def person_asked_for(values: Mapping[str, Any]) -> PersonRequest | None:
    """The person of a form; None for a video of anybody.

    Args:
        values: `photo`, `more_photos`, `anybody`, `face`, `face_backend`, `head_file`, and the edits by their names.

    Raises:
        InvalidRequestError: There is no photo and somebody is wanted.
    """
    if values["anybody"]:
        return None
    if values["photo"] is None:
        raise InvalidRequestError("There is no photo; add one, or tick “Nobody in particular” under Settings.")
    edits = {name: values[name] for name in EDIT_NAMES if values[name]}
    fields = {
        "photos": [values["photo"], *(values["more_photos"] or ())],
        "face_index": values["face"],
        "face_backend": values["face_backend"] or None,
        "head_file": values["head_file"],
        "edits": edits,
    }
    return PersonRequest.model_validate(fields, context={"names": _NAMES})


def request_asked_for(values: Mapping[str, Any], model: ModelRequest) -> GenerationRequest:
    """The request of a form.

    Args:
        values: Of the fields of `LABELS`, those of `NUMBERS` as text, empty where one is left to the model;
            `guided_from` and `guided_to` in 0..1; and what `person_asked_for` takes.
        model: Of the page.

    Raises:
        InvalidRequestError: One sentence says what to change, by the page's names.
    """
    if not (values["prompt"] or "").strip():
        raise InvalidRequestError("The prompt is empty; say what happens, such as “A person smiles.”")
    numbers = {name: _number(name, values[name]) for name in NUMBERS}
    if (numbers["width"] is None) != (numbers["height"] is None):
        raise InvalidRequestError("Give both width and height, or leave both empty for the model's own.")
    person = person_asked_for(values)
    tokens = values["use_identity_tokens"]
    if person is not None and (person.edits or person.head_file is not None) and not tokens:
        raise InvalidRequestError(
            "The edited head acts through the identity tokens, which are switched off under Settings; switch them on, "
            "or reset the head."
        )
    fields = {name: values[name] for name in LABELS} | numbers
    fields |= {
        "num_videos": int(values["num_videos"]),
        "person": person,
        "guidance_interval": (values["guided_from"], values["guided_to"]),
        "model": model,
    }
    return GenerationRequest.model_validate(fields, context={"names": _NAMES})


def values_of(request: GenerationRequest) -> dict[str, Any]:
    """What a form is filled in with to ask for the same again.

    Args:
        request: Complete, of a record.

    Returns:
        Values by name, as `request_asked_for` takes them.
    """
    values: dict[str, Any] = {name: getattr(request, name) for name in LABELS}
    values |= {name: "" if values[name] is None else f"{values[name]}" for name in NUMBERS}
    person = request.person
    photos: tuple[Path, ...] = () if person is None else person.photos
    values |= {
        "guided_from": request.guidance_interval[0],
        "guided_to": request.guidance_interval[1],
        "anybody": person is None,
        "photo": str(photos[0]) if photos else None,
        "more_photos": [str(photo) for photo in photos[1:]] or None,
        "face": None if person is None else person.face_index,
        "face_backend": "" if person is None else person.face_backend or "",
        "head_file": None if person is None or person.head_file is None else str(person.head_file),
    }
    edits = {} if person is None else person.edits
    return values | {name: edits.get(name, 0.0) for name in EDIT_NAMES}


def _number(name: str, text: str) -> int | float | None:
    """A number as it was typed; None where nothing was."""
    text = text.strip()
    try:
        return None if not text else int(text) if name in _WHOLE else float(text)
    except ValueError as error:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise InvalidRequestError(f"{LABELS[name]} is {text!r}; type {kind}, or leave it empty.") from error
