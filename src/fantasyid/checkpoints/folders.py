"""Folders with a whole pipeline, read strictly: only classes we know, all of their weights, and no code."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import BertModel, BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel, T5Tokenizer

from fantasyid.checkpoints.builtin import PipelineSettings
from fantasyid.checkpoints.full_size import check_pipeline_folder
from fantasyid.checkpoints.released.manifest import MANIFEST, check_conversion
from fantasyid.core.component_files import check_files
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.faults import first_fault
from fantasyid.core.json_files import read_json
from fantasyid.core.network_folder import load_network, read_component
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel

INDEX = "model_index.json"
REMEDY = "get the folder again, or write it again with save_pretrained or `fantasyid convert`"
_VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.txt")
_PROBE = "a person smiles"


def _ours(*classes: type) -> dict[tuple[str, str], type]:
    return {(cls.__module__, cls.__name__): cls for cls in classes}


CLASSES: Mapping[str, Mapping[tuple[str, str], type]] = MappingProxyType(
    {
        "tokenizer": {
            ("transformers", "BertTokenizer"): BertTokenizer,
            ("transformers", "BertTokenizerFast"): BertTokenizer,
            ("transformers", "T5Tokenizer"): T5Tokenizer,
            ("transformers", "T5TokenizerFast"): T5Tokenizer,
        },
        "text_encoder": {
            ("transformers", "BertModel"): BertModel,
            ("transformers", "T5EncoderModel"): T5EncoderModel,
        },
        "vae": {("diffusers", "AutoencoderKLCogVideoX"): AutoencoderKLCogVideoX},
        "transformer": _ours(FantasyIDTransformer3DModel),
        "scheduler": {
            ("diffusers", "CogVideoXDDIMScheduler"): CogVideoXDDIMScheduler,
            ("diffusers", "CogVideoXDPMScheduler"): CogVideoXDPMScheduler,
        },
        "identity_encoder": _ours(IdentityEncoder, ReleasedIdentityEncoder),
        "face_vision": _ours(FaceVisionModel, EvaVisionModel),
        "face_reader_model": _ours(FaceReaderModel),
    }
)
"""What each component may be, by the library and class that `model_index.json` names; nothing else is imported."""


class FolderSettings(PipelineSettings):
    """What a folder tells the pipeline about itself; the pipeline has defaults for what it does not tell."""

    model_config = ConfigDict(allow_inf_nan=False)

    guidance_drops_identity: bool = False
    """As `PipelineSettings`."""
    default_num_inference_steps: int = Field(50, ge=1)
    """As `PipelineSettings`."""
    default_guidance_scale: float = Field(6.0, gt=0)
    """As `PipelineSettings`."""
    fps: int = Field(8, ge=1)
    """As `PipelineSettings`."""
    keep_expression_and_pose: bool = False
    """Whether the 3D head keeps the photo's expression and pose."""


class SchedulerFields(BaseModel):
    """The fields of a scheduler's config that decide its noise; without one of them the library takes another's."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    num_train_timesteps: int = Field(ge=1, le=100_000)
    """Steps of training."""
    beta_start: float = Field(gt=0, lt=1)
    """Noise of the first step."""
    beta_end: float = Field(gt=0, lt=1)
    """Noise of the last step."""
    beta_schedule: str
    """How noise grows between them."""
    prediction_type: str
    """What the network predicts."""
    rescale_betas_zero_snr: bool
    """Whether the last step is noise alone."""
    snr_shift_scale: float = Field(gt=0)
    """By how much the signal is weakened."""
    timestep_spacing: str
    """Which steps a shorter schedule takes."""


class VaeFields(BaseModel):
    """The fields of a VAE's config that no shape of a weight tells."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    scaling_factor: float = Field(gt=0)
    """Factor on the latents."""
    temporal_compression_ratio: int = Field(ge=1)
    """Frames in a latent frame."""


def read_index(folder: Path, given: Mapping[str, Any]) -> tuple[dict[str, type], dict[str, Any]]:
    """Read which classes a folder's components have, and what it says of the pipeline.

    Args:
        folder: As `save_pretrained` writes it.
        given: What the caller brings instead.

    Returns:
        Class by component, without those that are given or left out, and the other arguments of the pipeline: None for
        what is left out.

    Raises:
        MissingWeightsError: There is no `model_index.json`.
        CorruptWeightsError: It is no JSON, or names another pipeline, a class that we do not load, or a field that we
            do not know.
    """
    path = folder / INDEX
    if not path.is_file():
        raise MissingWeightsError(
            f"{folder} does not hold a whole pipeline: there is no {INDEX}. Name a folder that save_pretrained or "
            "`fantasyid convert` wrote."
        )
    content = read_json(path, REMEDY)
    if content.pop("_class_name", None) != "FantasyIDPipeline":
        raise CorruptWeightsError(f"{path} is not of a FantasyIDPipeline; name a folder of one, or {REMEDY}.")
    fields = {name: value for name, value in content.items() if name not in ("_diffusers_version", "_name_or_path")}
    classes, settings = {}, {}
    left_out: dict[str, None] = {}
    for name, value in fields.items():
        if name in given:
            continue
        if name not in CLASSES:
            settings[name] = value
        elif value == [None, None]:
            left_out[name] = None
        else:
            classes[name] = _class_of(path, name, value)
    return classes, {**_validate(path, FolderSettings, settings).model_dump(exclude_unset=True), **left_out}


def _class_of(path: Path, name: str, value: Any) -> type:
    allowed = CLASSES[name]
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)):
        raise CorruptWeightsError(f"{path} says {value!r} of {name}, which is no library and class; {REMEDY}.")
    if tuple(value) not in allowed:
        raise CorruptWeightsError(
            f"{path} wants {value[1]!r} of {value[0]!r} as {name}, which is not loaded from a folder; it can be "
            f"{' or '.join(sorted({cls.__name__ for cls in allowed.values()}))}, or pass {name}= yourself."
        )
    return allowed[value[0], value[1]]


def load_folder(folder: Path, dtype: torch.dtype | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read a whole pipeline.

    Args:
        folder: As `save_pretrained` or `convert_release` writes it; the files of a conversion are hashed first.
        dtype: Type of the networks; None takes float32, and the text encoder's own.
        given: Components and settings to use instead of the folder's.

    Returns:
        The arguments of `FantasyIDPipeline`.

    Raises:
        MissingWeightsError: A file is not there, or a Git LFS pointer is in its place.
        CorruptWeightsError: A file is damaged, a weight is missing, unknown, of another shape or not finite, or the
            folder names a class that we do not load.
    """
    classes, settings = read_index(folder, given)
    check_pipeline_folder(folder, {name: cls.__name__ for name, cls in classes.items()})
    if (folder / MANIFEST).is_file():
        check_conversion(folder)
    components = {name: load_component_folder(folder / name, cls, dtype) for name, cls in classes.items()}
    if {"tokenizer", "text_encoder"} <= set(components):
        check_vocabulary(folder, components["tokenizer"], components["text_encoder"])
    return {**settings, **components, **given}


def load_component_folder(folder: Path, cls: type, dtype: torch.dtype | None = None) -> Any:
    """Read one component.

    Args:
        folder: Its folder.
        cls: One of `CLASSES`.
        dtype: Type of a network; None takes the class's own.

    Returns:
        The component; a network in evaluation mode, with every weight of its class and no other.

    Raises:
        MissingWeightsError: A file is not there, or a Git LFS pointer is in its place.
        CorruptWeightsError: As `load_folder`.
    """
    if cls in CLASSES["tokenizer"].values():
        return _load_tokenizer(folder, cls)
    if cls in CLASSES["scheduler"].values():
        return load_scheduler(folder, cls)
    if cls is AutoencoderKLCogVideoX:
        _validate(folder / "config.json", VaeFields, read_json(folder / "config.json", REMEDY))
    return load_network(folder, cls, dtype, REMEDY)


def check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> None:
    """Refuse a tokenizer that has more tokens than the text encoder knows.

    Args:
        folder: Of the pipeline, for the error.
        tokenizer: The tokenizer.
        text_encoder: The text encoder.

    Raises:
        CorruptWeightsError: It has.
    """
    tokens, rows = len(tokenizer), text_encoder.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise CorruptWeightsError(
            f"The tokenizer in {folder} has {tokens} tokens and its text encoder knows {rows}; {REMEDY}."
        )


def load_scheduler(folder: Path, cls: type) -> Any:
    """Read a noise schedule, whose config must say all that decides its noise.

    Args:
        folder: Its folder.
        cls: `CogVideoXDDIMScheduler` or `CogVideoXDPMScheduler`.

    Raises:
        MissingWeightsError: Its config is not there, or a Git LFS pointer is in its place.
        CorruptWeightsError: It is damaged or says too little.
    """
    check_files(folder, REMEDY)
    path = folder / "scheduler_config.json"
    _validate(path, SchedulerFields, read_json(path, REMEDY))
    return read_component(folder, cls, REMEDY)


def _load_tokenizer(folder: Path, cls: type) -> Any:
    check_files(folder, REMEDY)
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise MissingWeightsError(f"{folder} has no vocabulary ({' or '.join(_VOCABULARIES)}); {REMEDY}.")
    tokenizer = read_component(folder, cls, REMEDY)
    if set(tokenizer(_PROBE, add_special_tokens=False).input_ids) <= {tokenizer.unk_token_id}:
        raise CorruptWeightsError(f"The vocabulary in {folder} has no English words; {REMEDY}.")
    return tokenizer


def _validate(path: Path, model: type[BaseModel], content: dict[str, Any]) -> BaseModel:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        name, said = first_fault(error)
        raise CorruptWeightsError(f"{path} says nothing usable of {name} ({said}); {REMEDY}.") from error
