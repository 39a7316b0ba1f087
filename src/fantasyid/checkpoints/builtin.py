"""The model built into the package: where its weights lie, how they are written and read."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fantasyid.conditioning.identity import IdentityPreparation
from fantasyid.conditioning.text import load_text_encoder
from fantasyid.core.building import BUILDING
from fantasyid.core.checkpoint import PackedManifest, Storage, fill_network, load_packed, save_packed, verify_packed
from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError
from fantasyid.core.network_folder import read_component
from fantasyid.core.output_files import write_file
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel

MINI_FOLDER = Path(__file__).parent.parent / "weights" / "mini"
COMPONENTS: dict[str, type[ModelMixin]] = {
    "transformer": FantasyIDTransformer3DModel,
    "vae": AutoencoderKLCogVideoX,
    "identity_encoder": IdentityEncoder,
    "face_vision": FaceVisionModel,
    "face_reader_model": FaceReaderModel,
}


class PipelineSettings(BaseModel):
    """What a packed model tells the pipeline about itself; the fields are `FantasyIDPipeline`'s."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance_drops_identity: bool
    """Whether guidance's negative branch drops reference and identity tokens, as training did."""
    default_num_inference_steps: int = Field(ge=1)
    """Denoising steps when a call names none."""
    default_guidance_scale: float = Field(gt=0)
    """Guidance when a call names none."""
    fps: int = Field(ge=1)
    """Frames per second of the training clips."""
    follows_vertices: bool | None = None
    """Whether videos of these weights were measured to change with the head's vertices; None was not measured."""


def save_builtin(pipeline: DiffusionPipeline, folder: Path, storage: Storage = "int8") -> None:
    """Pack a pipeline's models, scheduler and settings; the text encoder is a package of its own and left out.

    Args:
        pipeline: A `FantasyIDPipeline` with all components.
        folder: Folder to write, `MINI_FOLDER` for the one that ships.
        storage: How large tensors are stored.
    """
    for name in COMPONENTS:
        model = getattr(pipeline, name)
        buffers = {key for key, _ in model.named_buffers()}
        state = model.state_dict()
        save_packed(state, folder, name, storage, model_class=type(model).__name__, config=model.config, exact=buffers)
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    settings = PipelineSettings(**{name: pipeline.config[name] for name in PipelineSettings.model_fields})
    write_file(folder / "pipeline.json", (settings.model_dump_json(indent=2) + "\n").encode())


def load_builtin(
    folder: Path = MINI_FOLDER, torch_dtype: torch.dtype = torch.float32, **components: Any
) -> dict[str, Any]:
    """Read a packed model.

    Args:
        folder: Where `save_builtin` wrote.
        torch_dtype: Type of the transformer and the VAE; the others run once per video and stay in float32.
        **components: Components to use instead of the packed ones.

    Returns:
        The arguments of `FantasyIDPipeline`.

    Raises:
        MissingWeightsError: A file is not there.
        CorruptWeightsError: A file does not match its manifest, or the weights not their class.
        InvalidRequestError: A component has a name this pipeline does not know.
    """
    known = {*COMPONENTS, "scheduler", "tokenizer", "text_encoder"}
    if unknown := set(components) - known:
        raise InvalidRequestError(f"The built-in model takes torch_dtype and {sorted(known)}, not {sorted(unknown)}.")
    arguments: dict[str, Any] = {**_load_settings(folder).model_dump(), **components}
    for name in COMPONENTS:
        if name not in components:
            dtype = torch_dtype if name in ("transformer", "vae") else torch.float32
            arguments[name] = load_component(folder, name, dtype)
    if "scheduler" not in components:
        remedy = "install the package again (pip install --force-reinstall fantasyid)"
        arguments["scheduler"] = read_component(folder / "scheduler", CogVideoXDDIMScheduler, remedy)
    if not {"tokenizer", "text_encoder"} <= set(components):
        tokenizer, text_encoder = load_text_encoder()
        arguments = {"tokenizer": tokenizer, "text_encoder": text_encoder, **arguments}
    return arguments


def verify_builtin(folder: Path = MINI_FOLDER) -> dict[str, PackedManifest]:
    """Check that every file of a packed model is there and unchanged.

    Args:
        folder: Where `save_builtin` wrote.

    Returns:
        The manifest of each network.

    Raises:
        MissingWeightsError: A file is not there.
        CorruptWeightsError: A file does not match its manifest.
    """
    _load_settings(folder)
    return {name: verify_packed(folder, name) for name in COMPONENTS}


def builtin_preparation(folder: Path = MINI_FOLDER) -> IdentityPreparation:
    """How a packed model's networks want a photo, without loading them.

    Args:
        folder: Where `save_builtin` wrote.

    Returns:
        What the pipeline's `identity_preparation` gives.
    """
    manifests = verify_builtin(folder)
    transformer, vae = manifests["transformer"].config, manifests["vae"].config
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    size = (transformer["sample_height"] * factor, transformer["sample_width"] * factor)
    return IdentityPreparation(reference_size=size, face_size=manifests["face_vision"].config["image_size"])


def load_component(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> ModelMixin:
    """Read one packed network, in evaluation mode.

    Args:
        folder: Where `save_builtin` wrote.
        name: A key of `COMPONENTS`.
        dtype: Type of its floating-point numbers.

    Returns:
        The network, without gradients.

    Raises:
        MissingWeightsError: A file is not there.
        CorruptWeightsError: A file does not match its manifest, or the weights not their class.
    """
    model_class = COMPONENTS[name]
    manifest = verify_packed(folder, name)
    if manifest.model_class != model_class.__name__:
        raise CorruptWeightsError(f"{folder / name} holds a {manifest.model_class}, not a {model_class.__name__}.")
    packed = load_packed(folder, name)
    state = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in packed.items()}
    with BUILDING, init_empty_weights(include_buffers=False):
        model = model_class.from_config(manifest.config)
    fill_network(model, state, f"The weights {folder / name} do not fit their class")
    return model


def _load_settings(folder: Path) -> PipelineSettings:
    settings, scheduler = folder / "pipeline.json", folder / "scheduler" / "scheduler_config.json"
    for path in (settings, scheduler):
        if not path.is_file():
            raise MissingWeightsError(
                f"The built-in model is not installed: there is no {path}. Install the package again "
                "(pip install --force-reinstall fantasyid), or train it (see configs/train)."
            )
    try:
        return PipelineSettings.model_validate_json(settings.read_bytes())
    except ValidationError as error:
        raise CorruptWeightsError(f"{settings} is not as the package wrote it: {error}") from error
