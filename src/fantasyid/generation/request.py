"""All that a user can ask of a video, with its bounds: the same for the command line, Python, a page and a server.

Importing this takes no time: no library behind is loaded. What is wrong raises an `InvalidRequestError` that names the
field, or what the user calls it: `GenerationRequest.model_validate(fields, context={"names": {"seed": "--seed"}})`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    model_validator,
)

from fantasyid.core.bounds import (
    DENOISING_STEPS,
    FACE_INDEX,
    FRAMES_PER_SECOND,
    GUIDANCE_SCALE,
    IDENTITY_SCALE,
    LORA_SCALE,
    NUM_FRAMES,
    NUM_GPUS,
    PIXELS_PER_SIDE,
    SEED,
    VIDEOS_PER_PROMPT,
    Bounds,
    check_integer,
    check_number,
    check_shares,
)
from fantasyid.core.choices import Device, Dtype, FaceBackend, MemoryPlanChoice
from fantasyid.core.errors import InvalidRequestError
from fantasyid.geometry.edit_table import check_strengths
from fantasyid.pipelines.options import Acceleration

NO_EDITS_OF_FLAME = (
    "Edits are made on the built-in head, and the backend deca makes FLAME's; use the backend builtin or insightface."
)
SPEED_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "exact": {},
        "fast": {"model": {"acceleration": {"compile": True, "attention": "auto"}}},
        "draft": {
            "model": {
                "acceleration": {
                    "compile": True,
                    "attention": "auto",
                    "fp8": True,
                    "cache": "taylor",
                    "cache_interval": 2,
                }
            },
            "guidance_interval": (0.0, 0.6),
        },
    }
)
"""Fields for full size on a GPU: `exact` changes nothing, `fast` rounds differently, `draft` changes the video."""


def as_text(text: str) -> str:
    """Text as a file or a message can hold it: bytes that are no UTF-8 as `\\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _name(info: ValidationInfo) -> str:
    """What the user calls a field."""
    names = (info.context or {}).get("names", {})
    return str(names.get(info.field_name, info.field_name))


def _bounded(check: Callable[[str, Any, Bounds], None], bounds: Bounds) -> Any:
    def refuse(value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            check(_name(info), value, bounds)
        return value

    return BeforeValidator(refuse)


def _check_text(text: str, info: ValidationInfo) -> str:
    if as_text(text) != text:
        raise InvalidRequestError(
            f"The {_name(info).strip('-').replace('_', ' ')} holds bytes that are not UTF-8 ({as_text(text)!r}); type "
            "it in a terminal set to UTF-8."
        )
    return text


def _check_interval(interval: Any, info: ValidationInfo) -> Any:
    check_shares(_name(info), interval)
    return interval


Text = Annotated[str, AfterValidator(_check_text)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PersonRequest(_Part):
    """Whom the video shows."""

    photos: tuple[Path, ...] = Field(min_length=1)
    """Photos of the person. The first gives face and reference; the head's shape is the mean of what all show."""
    face_index: Annotated[int, _bounded(check_integer, FACE_INDEX)] | None = None
    """Which face of each photo, 0 being the largest, which None takes."""
    face_backend: FaceBackend | None = None
    """What reads the photos; None is what the model was trained with."""
    deca_folder: Path | None = None
    """Where the files of the backend deca are; None is ~/.cache/fantasyid/deca."""
    head_file: Path | None = None
    """Mesh whose vertices stand in for those of the photos."""
    edits: dict[str, float] = {}
    """Edits of the head, -1..1 by the names of `geometry.edit_table`."""

    @model_validator(mode="after")
    def _check(self) -> "PersonRequest":
        check_strengths(self.edits)
        if self.edits and self.face_backend == "deca":
            raise InvalidRequestError(NO_EDITS_OF_FLAME)
        check_deca_folder(self.deca_folder, self.face_backend)
        return self

    @field_serializer("photos", "head_file", "deca_folder", when_used="json")
    def _paths_as_text(self, value: Any) -> Any:
        return (
            value
            if value is None
            else [as_text(str(path)) for path in value]
            if isinstance(value, tuple)
            else (as_text(str(value)))
        )

    @property
    def files(self) -> tuple[tuple[Path, str], ...]:
        """Files that are read, and what each is."""
        head = () if self.head_file is None else ((self.head_file, "head"),)
        return (*((photo, "photo") for photo in self.photos), *head)


class LoraRequest(_Part):
    """An adapter of the video network."""

    file: Path
    """Safetensors, as diffusers saves a LoRA of CogVideoX."""
    scale: Annotated[float, _bounded(check_number, LORA_SCALE)] = 1.0
    """Its strength."""

    @field_serializer("file", when_used="json")
    def _path_as_text(self, file: Path) -> str:
        return as_text(str(file))


class ModelRequest(_Part):
    """What makes the video: loaded once for any number of videos."""

    name: Text = "mini"
    """`"mini"` (built in), a folder, or a name on the Hugging Face Hub."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Precision of the video network and the VAE."""
    gpus: Annotated[int, _bounded(check_integer, NUM_GPUS)] = 1
    """GPUs of this machine that make a video together."""
    memory_plan: MemoryPlanChoice = "auto"
    """Which networks stay in the GPU's memory."""
    acceleration: Acceleration = Acceleration()
    """What is made faster."""
    loras: tuple[LoraRequest, ...] = ()
    """Adapters that are merged into its weights, one after the other."""


class GenerationRequest(_Part):
    """One video, or several that differ by their seeds alone."""

    prompt: Text
    """What happens."""
    negative_prompt: Text = ""
    """What guidance leads away from."""
    person: PersonRequest | None = None
    """Whom it shows; None is anybody."""
    use_reference: bool = True
    """Whether the portrait's latent enters the base; without a person nothing does."""
    use_identity_tokens: bool = True
    """Whether the identity tokens are injected; as `use_reference`."""
    identity_scale: Annotated[float, _bounded(check_number, IDENTITY_SCALE)] = 1.0
    """Strength of the identity tokens."""
    guidance_scale: Annotated[float, _bounded(check_number, GUIDANCE_SCALE)] | None = None
    """How strictly the prompt is followed, off at 1; None takes the model's own."""
    guidance_interval: Annotated[tuple[float, float], BeforeValidator(_check_interval)] = (0.0, 1.0)
    """Share of the steps that are guided, from and to."""
    num_inference_steps: Annotated[int, _bounded(check_integer, DENOISING_STEPS)] | None = None
    """Denoising steps; None takes the model's own."""
    seed: Annotated[int, _bounded(check_integer, SEED)] | None = None
    """Of the first video, the next ones count up; None draws one."""
    num_videos: Annotated[int, _bounded(check_integer, VIDEOS_PER_PROMPT)] = 1
    """How many."""
    num_frames: Annotated[int, _bounded(check_integer, NUM_FRAMES)] | None = None
    """Frames; None takes the model's own, as the next three."""
    height: Annotated[int, _bounded(check_integer, PIXELS_PER_SIDE)] | None = None
    """Pixels."""
    width: Annotated[int, _bounded(check_integer, PIXELS_PER_SIDE)] | None = None
    """Pixels."""
    fps: Annotated[float, _bounded(check_number, FRAMES_PER_SECOND)] | None = None
    """Frames shown per second: another rate than the model's plays the same frames slower or faster."""
    model: ModelRequest = ModelRequest()
    """What makes it."""

    @model_validator(mode="after")
    def _check(self) -> "GenerationRequest":
        if not self.prompt.strip():
            raise InvalidRequestError("The prompt is empty; say what happens, such as 'a person smiles'.")
        if (self.height is None) != (self.width is None):
            raise InvalidRequestError("Of height and width one is missing; give both, or neither for the model's own.")
        person = self.person
        if person is not None and (person.edits or person.head_file is not None) and not self.use_identity_tokens:
            raise InvalidRequestError(
                "--vertices and --edit act through the identity tokens, which --no-identity and --no-identity-tokens "
                "leave out; give one or the other."
            )
        if self.seed is not None and self.seed + self.num_videos - 1 > SEED.high:
            raise InvalidRequestError(f"Seeds would count up from {self.seed} beyond {SEED.high}; take a smaller one.")
        return self


def check_deca_folder(folder: Path | None, backend: FaceBackend | None) -> None:
    """Refuse, before any work, a folder that is not there or that the backend has no use for.

    Args:
        folder: Where the files of the backend deca should be.
        backend: What reads the photo.

    Raises:
        InvalidRequestError: The message says what to change.
    """
    if folder is None:
        return
    if backend != "deca":
        raise InvalidRequestError("--deca-folder is for --backend deca; give that too, or leave the folder out.")
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {folder}; check the path given as --deca-folder.")
