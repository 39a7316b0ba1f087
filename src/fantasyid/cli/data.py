"""`fantasyid data`: from portraits to what the stages of `fantasyid train` read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fantasyid.cli.train import DeviceOption, chosen_device
from fantasyid.core.clip_format import MINI_CLIPS
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.

_LARGEST_SEED = 2**32 - 1


Rigs = Annotated[Path, typer.Option(help="File of `fantasyid data prepare`.")]
Seed = Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="Of everything that is drawn.")]

data_app = typer.Typer(
    help="Make what the built-in model is trained on: prepare, render, views, encode. See docs/training.md.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data_app.command()
def prepare(
    portraits: Annotated[Path, typer.Option(help="Folder with manifest.csv, landmarks.npz and the photos.")],
    out: Annotated[Path, typer.Option(help="File of rigs to write, FILE.npz.")],
    split: Annotated[Literal["train", "val"], typer.Option(help="Rows of the manifest to take.")] = "train",
    leave_out: Annotated[Path | None, typer.Option(help="File of people who are not taken, one id a line.")] = None,
    only: Annotated[Path | None, typer.Option(help="File of people who alone are taken, one id a line.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first photos.")] = None,
) -> None:
    """Fit the head to each photo, and separate person and background; takes about 0.35 s a photo on one core.

    Photos that cannot be re-posed well are left out and counted by reason. Needs pip install 'fantasyid\\[build]'.

    [bold]Example[/bold]

      fantasyid data prepare --portraits PORTRAITS --leave-out configs/eval/shape-people.txt --out rigs.npz
    """
    for name, what in (("manifest.csv", "manifest"), ("landmarks.npz", "landmarks")):
        check_input_file(portraits / name, what)
    for listed in (leave_out, only):
        if listed is not None:
            check_input_file(listed, "list of people")

    from fantasyid.core.output_files import check_outputs
    from fantasyid.data.repose.prepare import prepare

    check_outputs([out], overwrite=True)
    left_out = prepare(portraits, out, split, limit, leave_out, only)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
    typer.echo(f"Written to {out}; photos left out: {reasons or 'none'}.")


@data_app.command()
def render(
    rigs: Rigs,
    pool: Annotated[Path, typer.Option(help="Folder to write.")],
    clips: Annotated[int, typer.Option(min=1, help="How many.")],
    frames: Annotated[
        int, typer.Option(min=1, max=MINI_CLIPS.frames, help="Neighbouring frames kept of every clip; 2 for pairs.")
    ] = MINI_CLIPS.frames,
    seed: Seed = 0,
    device: DeviceOption = "auto",
) -> None:
    """Render clips of re-posed people to a pool; most show people who do not exist.

    [bold]Examples[/bold]

      fantasyid data render --rigs rigs.npz --pool clips --clips 10000 --seed 2

      fantasyid data render --rigs rigs.npz --pool pairs --clips 18000 --frames 2 --seed 3
    """
    check_input_file(rigs, "rigs")

    from fantasyid.data.precompute import render_pool

    render_pool(rigs, pool, clips, chosen_device(device), seed, frames)


@data_app.command()
def encode(
    pool: Annotated[Path, typer.Option(help="Folder of `fantasyid data render`.")],
    vae: Annotated[Path, typer.Option(help="Result of the stage vae.")],
    vision: Annotated[Path, typer.Option(help="Folder face_vision of the stage encoder.")],
    device: DeviceOption = "auto",
) -> None:
    """Encode a pool to what the video model reads: latents, face tokens and text states, beside the clips.

    [bold]Example[/bold]

      fantasyid data encode --pool clips --vae runs/vae/result --vision runs/encoder/result/face_vision
    """
    if not pool.is_dir():
        raise InvalidRequestError(f"There is no folder {pool}; make it with `fantasyid data render`.")

    from diffusers import AutoencoderKLCogVideoX

    from fantasyid.core.network_folder import load_network
    from fantasyid.data.precompute import encode_pool
    from fantasyid.models.vision import FaceVisionModel

    remedy = "give the folder `result` of a finished stage"
    network = load_network(vae, AutoencoderKLCogVideoX, None, remedy)
    encode_pool(pool, network, load_network(vision, FaceVisionModel, None, remedy), chosen_device(device))


@data_app.command()
def views(
    rigs: Rigs,
    out: Annotated[Path, typer.Option(help="Folder to write, about 0.3 MB a person.")],
    people: Annotated[int, typer.Option(min=1, help="How many.")],
    seed: Seed = 0,
    device: DeviceOption = "auto",
) -> None:
    """Render crops of faces with known shape, expression, pose and landmarks, for the face reader.

    [bold]Example[/bold]

      fantasyid data views --rigs rigs.npz --people 40000 --out views
    """
    check_input_file(rigs, "rigs")

    from fantasyid.data.face_views import render_views

    render_views(rigs, out, people, chosen_device(device), seed)
