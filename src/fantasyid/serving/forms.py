"""What clients send: the fields of a form, checked one by one, and one photo."""

import re
import secrets
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from fantasyid.core.imaging import as_photo, photo_size
from fantasyid.generation.request import GenerationRequest, ModelRequest
from fantasyid.generation.studio import RANDOM_SEEDS
from fantasyid.serving.errors import InvalidFieldError, TooLargeError, WrongMediaError
from fantasyid.serving.service import Limits

_MOST_FIELDS = 100
_MOST_FIELD_BYTES = 2**16
_MOST_SHOWN = 80
_EDIT = re.compile(r"edits\[([^\[\]]+)\]")
_CHARACTER = re.compile(r"characters\[\d*\]\[id\]")
_NAMES = {"height": "size", "width": "size"}

Fields = dict[str, Any]
Form = TypeVar("Form", bound=BaseModel)


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CharacterReference(_Form):
    """A person kept earlier."""

    id: str


class VideoForm(_Form):
    """The fields of a request for a video, beside the photo `input_reference`."""

    prompt: str
    """What happens."""
    model: Annotated[str, Field(max_length=200)] | None = None
    """The one that is served; see `/v1/models`."""
    seconds: Annotated[int, Field(ge=1, le=60)] | None = None
    """Length; alternatively num_frames."""
    size: Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    """Width x height in pixels, such as 720x480."""
    seed: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str = ""
    identity_scale: float = 1.0
    face_index: int | None = None
    """Which face of the photo, 0 being the largest."""
    edits: dict[str, float] = {}
    """Edits of the head, -1 to 1; in a form `edits[face-width]`."""
    characters: Annotated[tuple[CharacterReference, ...], Field(max_length=1)] = ()
    """The person, in place of a photo; in a form `characters[][id]`."""

    def to_request(self, model: ModelRequest, has_photo: bool) -> GenerationRequest:
        """What is asked of the model.

        Args:
            model: The one that is served.
            has_photo: Whether there is a person.

        Raises:
            FantasyIDError: A value is out of bounds, or two do not go together.
        """
        if self.seconds is not None and self.num_frames is not None:
            raise InvalidFieldError("seconds and num_frames both say how long; give one of them.", "seconds")
        if not has_photo and (self.edits or self.face_index is not None):
            raise InvalidFieldError("face_index and edits need a photo; give input_reference or characters too.")
        width, height = (None, None) if self.size is None else map(int, self.size.split("x"))
        asked = ("prompt", "negative_prompt", "num_frames", "fps", "num_inference_steps", "guidance_scale")
        fields = {name: getattr(self, name) for name in (*asked, "identity_scale")}
        # Drawn here, so that a video that is begun anew after a death is the same video.
        fields["seed"] = secrets.randbelow(RANDOM_SEEDS) if self.seed is None else self.seed
        fields |= {"height": height, "width": width, "model": model.model_dump()}
        if has_photo:
            fields["person"] = {"photos": ("photo",), "face_index": self.face_index, "edits": self.edits}
        return GenerationRequest.model_validate(fields, context={"names": _NAMES})


class CharacterForm(_Form):
    """The fields that keep a person, beside the photo, which the official client calls `video`."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """What the client calls the person."""


async def read_form(request: Request, file_field: str) -> tuple[Fields, bytes | None]:
    """Read a multipart body.

    Args:
        request: Its size was limited before.
        file_field: The one field that is a file.

    Returns:
        The fields as text, those with brackets gathered, and the file.

    Raises:
        ApiError: It is no form, is too large, or names a field twice.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise WrongMediaError("The body must be a form, multipart/form-data, as the official client sends it.")
    texts: list[tuple[str, str]] = []
    content = None
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES) as form:
        for key, value in form.multi_items():
            if isinstance(value, UploadFile) != (key == file_field):
                kind = "a file" if key == file_field else "text"
                raise InvalidFieldError(f"{_shown(key)} must be {kind}.", _shown(key))
            if isinstance(value, UploadFile):
                content = await value.read()
            else:
                texts.append((key, value))
    return _gather(texts), content


def _gather(texts: list[tuple[str, str]]) -> Fields:
    """Fields by name, those with brackets as one."""
    fields: Fields = {}
    edits: Fields = {}
    characters = []
    for key, value in texts:
        if _CHARACTER.fullmatch(key):
            characters.append({"id": value})
            continue
        edit = _EDIT.fullmatch(key)
        room, name = (edits, edit[1]) if edit else (fields, key)
        if name in room:
            raise InvalidFieldError(f"{_shown(key)} is given twice; give it once.", _shown(key))
        room[name] = value
    for name, gathered in (("edits", edits), ("characters", characters)):
        if gathered and name in fields:
            raise InvalidFieldError(f"{name} is given twice; give it once.", name)
        if gathered:
            fields[name] = gathered
    return fields


def check_fields(kind: type[Form], fields: Fields) -> Form:
    """The fields as values.

    Args:
        kind: Which form.
        fields: As read.

    Raises:
        InvalidFieldError: It names the first field at fault, and the value.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = _shown(".".join(map(str, first["loc"])))
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise InvalidFieldError(f"There is no field {param}; there are {known}.", param) from error
        if first["type"] == "missing":
            raise InvalidFieldError(f"The field {param} is missing.", param) from error
        said = first["msg"][:1].lower() + first["msg"][1:]
        raise InvalidFieldError(f"{param} is {_shown(repr(first['input']))}: {said}.", param) from error


def check_upload(content: bytes, limits: Limits) -> None:
    """Refuse what is no photo, or too large a one.

    Args:
        content: The uploaded file.
        limits: How large it may be.

    Raises:
        FantasyIDError: It cannot be used.
    """
    if len(content) > limits.max_upload_mb * 1_000_000:
        raise TooLargeError(f"The photo has more than {limits.max_upload_mb} MB; send a smaller one.")
    width, height = photo_size(content)
    if width * height > limits.max_megapixels * 1_000_000:
        most = f"{limits.max_megapixels} megapixels"
        raise TooLargeError(f"The photo has {width}x{height} pixels, more than {most}; send a smaller one.")
    as_photo(content)


def _shown(text: str) -> str:
    """Text of a client as a message may hold it."""
    return ascii(text[:_MOST_SHOWN])[1:-1]
