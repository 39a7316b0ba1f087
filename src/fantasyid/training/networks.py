"""The networks that a stage trains: new ones as the preset describes them, or an earlier result that is the same."""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.network_folder import load_network
from fantasyid.geometry.decimate import MeshHierarchy, build_hierarchy
from fantasyid.geometry.flame import FlameModel
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.frame_vae import forget_older_frames, is_frame_vae
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.training.config_files import differences
from fantasyid.training.network_config import IdentityEncoderConfig, ReaderConfig, Strict, TransformerConfig, VaeConfig

Network = TypeVar("Network")
_WRONG_SIZES = (ValueError, TypeError, RuntimeError, AssertionError, KeyError, IndexError, ArithmeticError)
_SPIRAL_LENGTH = 9
_REMEDY = "give the folder `result` of a finished stage"


def build(network: Callable[..., Network], fields: Mapping[str, Any]) -> Network:
    """A new network.

    Args:
        network: Its class.
        fields: Its config.

    Raises:
        InvalidRequestError: The config's values do not fit each other.
    """
    try:
        return network(**fields)
    except _WRONG_SIZES as error:
        raise InvalidRequestError(
            f"The preset's model cannot be built ({short_reason(error)}); choose values that fit each other."
        ) from error


def load(folder: Path, network: type[Network], asked: Strict | None = None) -> Network:
    """A trained network, in evaluation mode.

    Args:
        folder: As `save_pretrained` wrote it.
        network: Its class.
        asked: What the preset says of it; None takes any.

    Raises:
        FantasyIDError: It is not there, damaged, or not the one that the preset describes.
    """
    loaded: Any = load_network(folder, network, None, _REMEDY)
    if asked is not None:
        check_same(asked.model_dump(), loaded.config, folder)
    return loaded  # type: ignore[no-any-return]


def check_same(asked: Mapping[str, Any], got: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a network that is not the one the preset describes.

    Args:
        asked: The preset's fields.
        got: The network's config.
        folder: Where it lies, for the error.

    Raises:
        InvalidRequestError: A field differs; the message names all that do, with both values.
    """
    if words := [f"{name}: {value} ({other} there)" for name, value, other in differences(asked, got)]:
        raise InvalidRequestError(
            f"The preset asks for {', '.join(words)}, which {folder} does not have; start from another result, or "
            "change the preset."
        )


def frame_vae(config: VaeConfig, init: Path | None) -> AutoencoderKLCogVideoX:
    """A VAE whose frames do not mix: a new one, or the result of an earlier stage."""
    if init is None:
        vae = build(AutoencoderKLCogVideoX, config.model_dump())
        forget_older_frames(vae)
        return vae
    vae = load(init, AutoencoderKLCogVideoX, config)
    if not is_frame_vae(vae):
        raise InvalidRequestError(f"The VAE {init} mixes neighbouring frames; only those that do not are trained.")
    return vae


def face_reader(config: ReaderConfig, init: Path | None, mean_landmarks: Callable[[], torch.Tensor]) -> FaceReaderModel:
    """A new reader that begins at the mean landmarks, or the result of an earlier run."""
    model: FaceReaderModel
    if init is not None:
        model = load(init, FaceReaderModel, config)
    else:
        model = build(FaceReaderModel, config.model_dump())
        model.mean_landmarks.copy_(mean_landmarks())
    return model


def vision_network(folder: Path | None) -> FaceVisionModel:
    """The result of the stage vision."""
    if folder is None:
        raise InvalidRequestError("This stage needs the face vision model; give its result with --vision.")
    vision: FaceVisionModel = load(folder, FaceVisionModel)
    return vision


def transformer(config: TransformerConfig, init: Path | None) -> FantasyIDTransformer3DModel:
    """A new transformer, or the last stage's with an untrained injection added where the preset asks for one."""
    loaded: FantasyIDTransformer3DModel
    if init is None:
        loaded = build(FantasyIDTransformer3DModel, config.model_dump())
        return loaded
    folder = init / "transformer"
    loaded = load(folder, FantasyIDTransformer3DModel)
    if config.identity_token_dim is not None and loaded.config.identity_token_dim is None:
        of_base = signature(CogVideoXTransformer3DModel.__init__).parameters
        identity = {name: value for name, value in config.model_dump().items() if name not in of_base}
        check_same(config.model_dump(exclude=set(identity)), loaded.config, folder)
        loaded = build(FantasyIDTransformer3DModel.from_base, {"base": loaded, **identity})
    check_same(config.model_dump(), loaded.config, folder)
    return loaded


def identity_encoder(
    config: IdentityEncoderConfig, token_dim: int, taught: Path | None, init: Path | None, flame: Path | None = None
) -> IdentityEncoder:
    """The encoder that was taught, or that of the stage before where it has one, else a new one.

    Args:
        config: The preset's.
        token_dim: Width of the tokens.
        taught: Result of the stage encoder.
        init: Result of the stage before.
        flame: The user's FLAME, whose mesh a new encoder gets; None is the built-in head's.
    """
    encoder: IdentityEncoder
    fields = {"token_dim": token_dim, **config.model_dump()}
    before = None if init is None else init / "identity_encoder"
    folder = taught / "identity_encoder" if taught is not None else before
    if folder is not None and (taught is not None or folder.is_dir()):
        encoder = load(folder, IdentityEncoder)
        check_same(fields, encoder.config, folder)
        return encoder
    hierarchy, template = _builtin_mesh() if flame is None else _flame_mesh(FlameModel.load(flame))
    mesh = {"levels": hierarchy.num_vertices, "spiral_length": hierarchy.spirals[0].shape[1]}
    encoder = build(IdentityEncoder, {**mesh, **fields})
    if encoder.config.use_vertices:
        spirals = [torch.from_numpy(spiral) for spiral in hierarchy.spirals]
        pairs = zip(hierarchy.down_index, hierarchy.down_weight, strict=True)
        down = [(torch.from_numpy(index), torch.from_numpy(weight)) for index, weight in pairs]
        encoder.set_hierarchy(spirals, down, template, hierarchy.topology_hash)
    return encoder


def _builtin_mesh() -> tuple[MeshHierarchy, Tensor]:
    return MeshHierarchy.load(), HeadModel.load().mean


def _flame_mesh(flame: FlameModel) -> tuple[MeshHierarchy, Tensor]:
    """FLAME at three levels, each with a quarter of the vertices (5023, 1256, 314), and its mean head in cm."""
    template, count = 100 * flame.template, len(flame.template)
    coarser = tuple(-(-count // fewer) for fewer in (4, 16))
    hierarchy = build_hierarchy(template.double().numpy(), flame.topology, coarser, _SPIRAL_LENGTH)
    return hierarchy, template
