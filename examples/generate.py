"""A photo and a prompt become a video, with the settings one may want to change.

python examples/generate.py photo.jpg "A woman smiles, in front of a plain blue background." smile.mp4
"""

import argparse
from pathlib import Path

import torch

from fantasyid.core.output_files import check_outputs
from fantasyid.core.provenance import add_mark, container_metadata
from fantasyid.core.video import check_video_name, write_video
from fantasyid.pipelines.fantasyid import FantasyIDPipeline


def main() -> None:
    """Parse the command line and generate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("out", type=Path, help="video to write, .mp4, .webm or .gif")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps; the model's own number by default")
    parser.add_argument("--overwrite", action="store_true", help="replace a video that is there")
    options = parser.parse_args()
    check_video_name(options.out)
    check_outputs([options.out], overwrite=options.overwrite, inputs=[options.photo])
    # The record of another video, as the command writes it, would seem to belong to this one.
    check_outputs([options.out.with_suffix(".json")], overwrite=False)

    pipe = FantasyIDPipeline.from_pretrained("mini")
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    frames = pipe(
        prompt=options.prompt,
        image=options.photo,
        num_inference_steps=options.steps,
        identity_scale=1.0,  # strength of the identity tokens; 0 leaves the reference latent alone
        use_reference=True,  # False leaves the identity tokens alone
        generator=torch.Generator().manual_seed(options.seed),
        output_type="np",
    ).frames[0]
    marked = add_mark((frames * 255).round().astype("uint8"))
    write_video(options.out, marked, pipe.config.fps, container_metadata(), overwrite=options.overwrite)


if __name__ == "__main__":
    main()
