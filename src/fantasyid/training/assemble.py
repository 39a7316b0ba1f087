"""A whole model of a CogVideoX base and what was trained on it, as one folder that `fantasyid generate` takes."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.checkpoints.folders import CLASSES, load_component_folder
from fantasyid.checkpoints.full_size import load_eva_clip
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.json_files import read_json
from fantasyid.core.output_files import write_together
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.training.config import VideoStage
from fantasyid.training.config_files import CONFIG_FILE, load_stage
from fantasyid.training.networks import load

_REMEDY = "name a folder of CogVideoX as diffusers writes it"
_INDEX = "model_index.json"


def assemble(run: Path, base: Path, face_vision: Path, out: Path, fps: int) -> None:
    """Write a model's folder, its large networks in bfloat16.

    Heads are read from photos by the built-in reader, as `fantasyid data prepare` does for training clips. A LoRA stays
    where it is, to be merged at whatever strength is wanted.

    Args:
        run: A finished run of the video model with identity modules.
        base: The CogVideoX it was trained on, for VAE, text encoder and noise levels.
        face_vision: What the clips were encoded with: a folder, or EVA02-CLIP's file.
        out: The folder to make.
        fps: Frames a second of the clips.

    Raises:
        FantasyIDError: A part is missing or damaged, or the folder is there.
    """
    config = load_stage(run / CONFIG_FILE, "clips", "pairs")
    assert isinstance(config, VideoStage)
    if config.model.identity_token_dim is None:
        raise InvalidRequestError(f"The run {run} trained no identity modules; its result is a base, load it as one.")
    result = run / "result"
    if not result.is_dir():
        raise InvalidRequestError(f"The run {run} is not finished, it has no folder result; go on with it first.")
    with write_together([out], overwrite=False) as (made,):
        FantasyIDPipeline(
            **parts_of_base(base),
            transformer=load(result / "transformer", FantasyIDTransformer3DModel).to(torch.bfloat16),
            identity_encoder=load(result / "identity_encoder", IdentityEncoder),
            face_vision=load_face_vision(face_vision),
            face_reader_model=load_component(MINI_FOLDER, "face_reader_model"),
            guidance_drops_identity=config.objective.drop_all > 0,
            fps=fps,
        ).save_pretrained(made)


def parts_of_base(base: Path) -> dict[str, Any]:
    """VAE, tokenizer, text encoder and scheduler of a CogVideoX's folder, in bfloat16.

    Raises:
        FantasyIDError: One is missing, damaged, or of a class that is not loaded.
    """
    index = read_json(base / _INDEX, _REMEDY)
    parts: dict[str, Any] = {"vae": load_component_folder(base / "vae", AutoencoderKLCogVideoX, torch.bfloat16)}
    for name in ("tokenizer", "text_encoder", "scheduler"):
        kind = tuple(index.get(name, ()))
        if kind not in CLASSES[name]:
            raise InvalidRequestError(f"{base / _INDEX} names {list(kind)} as {name}, which is not loaded; {_REMEDY}.")
        parts[name] = load_component_folder(base / name, CLASSES[name][kind], torch.bfloat16)
    return parts


def load_face_vision(path: Path) -> Any:
    """A face vision network's folder, or EVA02-CLIP's file.

    Raises:
        FantasyIDError: It is missing, damaged, or another network's.
    """
    if path.is_file():
        return load_eva_clip(path)
    remedy = "give the folder of a face vision network, or EVA02-CLIP's file"
    name = read_json(path / "config.json", remedy).get("_class_name")
    kinds = {kind.__name__: kind for kind in CLASSES["face_vision"].values()}
    if name not in kinds:
        raise InvalidRequestError(f"{path} is a {name}, and {' or '.join(kinds)} is read; give another folder.")
    return load_component_folder(path, kinds[name])
