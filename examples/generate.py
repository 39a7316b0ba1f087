"""A photo and a prompt become a video, with its record and contact sheet, as `fantasyid generate` writes them.

python examples/generate.py photo.jpg "A woman smiles, in front of a plain blue background." smile.mp4
"""

import argparse
from pathlib import Path

from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.request import GenerationRequest, PersonRequest
from fantasyid.generation.studio import generate


def main() -> None:
    """Parse the command line and generate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("out", type=Path, help="video to write, .mp4, .webm or .gif")
    parser.add_argument("--seed", type=int, help="random by default")
    parser.add_argument("--steps", type=int, help="denoising steps; the model's own number by default")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    options = parser.parse_args()
    GenerationPaths.beside(options.out).check(overwrite=options.overwrite, inputs=[options.photo])

    request = GenerationRequest(
        prompt=options.prompt,
        person=PersonRequest(photos=(options.photo,)),
        num_inference_steps=options.steps,
        identity_scale=1.0,  # strength of the identity tokens; 0 leaves the reference latent alone
        use_reference=True,  # False leaves the identity tokens alone
        seed=options.seed,
    )
    (video,) = generate(request)
    video.save(options.out, overwrite=options.overwrite)


if __name__ == "__main__":
    main()
