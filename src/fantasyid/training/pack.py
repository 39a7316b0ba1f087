"""Pack trained stages into the model that ships.

Command: `python -m fantasyid.training.pack --transformer DIR --identity-encoder DIR --vae DIR --vision DIR
--reader DIR [--out FOLDER] [--storage int8]`
"""

import argparse
from pathlib import Path

from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

from fantasyid.checkpoints.builtin import MINI_FOLDER, save_builtin
from fantasyid.conditioning.text import load_text_encoder
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.models.vision import FaceVisionModel
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.training.video import SCHEDULER

STEPS, GUIDANCE = 25, 2.5


def main() -> None:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("transformer", "identity-encoder", "vae", "vision", "reader"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"result of training the {name}")
    parser.add_argument("--out", type=Path, default=MINI_FOLDER, help="folder to write")
    parser.add_argument("--storage", choices=("int8", "float16"), default="int8", help="of large weights")
    options = parser.parse_args()
    tokenizer, text_encoder = load_text_encoder()
    pipeline = FantasyIDPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=AutoencoderKLCogVideoX.from_pretrained(options.vae),
        transformer=FantasyIDTransformer3DModel.from_pretrained(options.transformer),
        scheduler=CogVideoXDDIMScheduler(**SCHEDULER),
        identity_encoder=IdentityEncoder.from_pretrained(options.identity_encoder),
        face_vision=FaceVisionModel.from_pretrained(options.vision),
        face_reader_model=FaceReaderModel.from_pretrained(options.reader),
        guidance_drops_identity=True,
        default_num_inference_steps=STEPS,
        default_guidance_scale=GUIDANCE,
        fps=8,
    )
    save_builtin(pipeline, options.out, options.storage)


if __name__ == "__main__":
    main()
