"""What `fantasyid data encode` encodes clips with: the networks of a model that its training does without."""

import hashlib
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from transformers import BertModel, BertTokenizer, T5EncoderModel, T5Tokenizer

from fantasyid.checkpoints.builtin import MINI_FOLDER, builtin_preparation, load_component, verify_builtin
from fantasyid.checkpoints.folders import load_component_folder
from fantasyid.checkpoints.full_size import load_eva_clip
from fantasyid.cli.progress import quieten_libraries
from fantasyid.conditioning.identity import IdentityPreparation
from fantasyid.conditioning.text import load_text_encoder
from fantasyid.core.component_files import weights_files
from fantasyid.core.errors import InvalidRequestError, MissingWeightsError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.json_files import read_json
from fantasyid.data.dataset.encode import ModelEncoders
from fantasyid.data.dataset.encoders import Encoders
from fantasyid.models.eva_vision import EvaVisionModel
from fantasyid.models.vision import FaceVisionModel

BUILTIN = "mini"
_TEXT = {"t5": (T5EncoderModel, T5Tokenizer), "bert": (BertModel, BertTokenizer)}
_VISION: dict[str, type[FaceVisionModel] | type[EvaVisionModel]] = {
    cls.__name__: cls for cls in (FaceVisionModel, EvaVisionModel)
}
_REMEDY = "name a folder of FantasyID or CogVideoX as diffusers writes it"


def model_encoders(model: str, face_vision: Path | None, device: str) -> ModelEncoders:
    """Find a model's encoders; they are loaded by its `open`.

    Args:
        model: `"mini"`, or a folder with vae, text_encoder, tokenizer, the transformer's config and, unless it is given
            apart, face_vision.
        face_vision: A folder of the face vision network, or the file of EVA02-CLIP; for folders alone.
        device: Where to compute: on CUDA in bfloat16, else in float32.

    Raises:
        InvalidRequestError: There is no such folder.
        FantasyIDError: A file is missing or damaged.
    """
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    if model == BUILTIN:
        if face_vision is not None:
            raise InvalidRequestError("The model mini has its own face vision network; leave --face-vision out.")
        manifests = verify_builtin()
        hashes = {name: _text_hash(manifests[name].model_dump_json()) for name in ("vae", "face_vision")}
        tokens = manifests["transformer"].config["max_text_seq_length"]
        size = builtin_preparation().reference_size
        return ModelEncoders(partial(_open_builtin, device, dtype), hashes, tokens, size, _name(dtype))
    folder = Path(model)
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {folder}; give mini, or {_REMEDY}.")
    vision = folder / "face_vision" if face_vision is None else face_vision
    networks = {"vae": folder / "vae", "text_encoder": folder / "text_encoder", "face_vision": vision}
    hashes = {name: _weights_hash(path) for name, path in networks.items()}
    config = read_json(folder / "transformer" / "config.json", _REMEDY)
    scale = 2 ** (len(read_json(folder / "vae" / "config.json", _REMEDY)["block_out_channels"]) - 1)
    size = (config["sample_height"] * scale, config["sample_width"] * scale)
    tokens = config["max_text_seq_length"]
    opened = partial(_open_folder, folder, vision, size, tokens, device, dtype)
    return ModelEncoders(opened, hashes, tokens, size, _name(dtype))


def _open_builtin(device: str, dtype: torch.dtype) -> Encoders:
    quieten_libraries()
    tokenizer, text_encoder = load_text_encoder()
    manifest = verify_builtin()["transformer"]
    return Encoders(
        vae=load_component(MINI_FOLDER, "vae", dtype).to(device),
        tokenizer=tokenizer,
        text_encoder=text_encoder.to(device),
        face_vision=load_component(MINI_FOLDER, "face_vision").to(device),
        preparation=builtin_preparation(),
        text_length=manifest.config["max_text_seq_length"],
        dtype=dtype,
    )


def _open_folder(
    folder: Path, vision: Path, size: tuple[int, int], tokens: int, device: str, dtype: torch.dtype
) -> Encoders:
    quieten_libraries()
    kind = read_json(folder / "text_encoder" / "config.json", _REMEDY).get("model_type")
    if kind not in _TEXT:
        raise InvalidRequestError(
            f"{folder / 'text_encoder'} is a {kind}, and {' or '.join(_TEXT)} is read; {_REMEDY}."
        )
    text_class, tokenizer_class = _TEXT[kind]
    face_vision = load_eva_clip(vision) if vision.is_file() else load_component_folder(vision, _vision_class(vision))
    return Encoders(
        vae=load_component_folder(folder / "vae", AutoencoderKLCogVideoX, dtype).to(device),
        tokenizer=load_component_folder(folder / "tokenizer", tokenizer_class),
        text_encoder=load_component_folder(folder / "text_encoder", text_class, dtype).to(device),
        face_vision=face_vision.to(device),
        preparation=IdentityPreparation(reference_size=size, face_size=face_vision.config.image_size),
        text_length=tokens,
        dtype=dtype,
    )


def _vision_class(folder: Path) -> type[FaceVisionModel] | type[EvaVisionModel]:
    name = read_json(folder / "config.json", _REMEDY).get("_class_name")
    if name not in _VISION:
        raise InvalidRequestError(f"{folder} is a {name}, and {' or '.join(_VISION)} is read; give another folder.")
    return _VISION[name]


def _weights_hash(path: Path) -> str:
    """Of a network's weights, in a folder or a file."""
    files = (path,) if path.is_file() else weights_files(path) if path.is_dir() else ()
    if not files:
        raise MissingWeightsError(f"There are no weights at {path}; {_REMEDY}, or the network with --face-vision.")
    return _text_hash(" ".join(file_sha256(file) for file in files))


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
