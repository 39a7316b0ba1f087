"""Packing trained stages into the model that ships, and unpacking it, so that training goes on from it."""

from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

from fantasyid.checkpoints.builtin import COMPONENTS, load_component, save_builtin
from fantasyid.conditioning.text import load_text_encoder
from fantasyid.core.checkpoint import Storage
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import make_folder, write_together
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.training.networks import load
from fantasyid.training.objectives.video import SCHEDULER

STEPS, GUIDANCE = 25, 2.5


@dataclass(frozen=True)
class TrainedParts:
    """Folders of the networks that are packed, as `save_pretrained` wrote them."""

    transformer: Path
    identity_encoder: Path
    vae: Path
    vision: Path
    reader: Path


def pack(parts: TrainedParts, out: Path, storage: Storage = "int8") -> None:
    """Pack trained networks as a built-in model.

    Args:
        parts: Where they are.
        out: Folder to write.
        storage: How large weights are kept.

    Raises:
        FantasyIDError: A network is missing or damaged.
    """
    tokenizer, text_encoder = load_text_encoder()
    pipeline = FantasyIDPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=load(parts.vae, AutoencoderKLCogVideoX),
        transformer=load(parts.transformer, FantasyIDTransformer3DModel),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER),
        identity_encoder=load(parts.identity_encoder, IdentityEncoder),
        face_vision=load(parts.vision, FaceVisionModel),
        face_reader_model=load(parts.reader, FaceReaderModel),
        guidance_drops_identity=True,
        default_num_inference_steps=STEPS,
        default_guidance_scale=GUIDANCE,
        fps=8,
    )
    save_builtin(pipeline, out, storage)


def unpack(packed: Path, out: Path) -> None:
    """Write the networks of a packed model as a stage leaves its result, each in a folder of its name.

    Args:
        packed: Where `pack` wrote; some of its networks will do.
        out: Folder to make.

    Raises:
        FantasyIDError: There is no network, one is damaged, or the folder is there already.
    """
    names = [name for name in COMPONENTS if (packed / name).is_dir()]
    if not names:
        raise InvalidRequestError(f"{packed} holds no packed network; give a folder of `fantasyid train pack`.")
    make_folder(out.parent)
    with write_together([out], overwrite=False) as (made,):
        for name in names:
            load_component(packed, name).save_pretrained(made / name)


if __name__ == "__main__":
    tell_new_command("fantasyid.training.pack", "fantasyid train pack")
