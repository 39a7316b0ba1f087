"""`fantasyid data`: from videos, or from portraits, to what `fantasyid train` reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fantasyid.cli.train import DeviceOption, chosen_device
from fantasyid.core.choices import Dtype, SourceFormat
from fantasyid.core.clip_format import MINI_CLIPS
from fantasyid.core.errors import CorruptDatasetError, InvalidRequestError
from fantasyid.core.input_files import check_input_file

if TYPE_CHECKING:
    from fantasyid.data.engines.job import Engine

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.

_LARGEST_SEED = 2**32 - 1


Rigs = Annotated[Path, typer.Option(help="File of `fantasyid data rigs`.")]
Seed = Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="Of everything that is drawn.")]

EngineOption = Annotated[Literal["local", "ray"], typer.Option("--engine", help="What runs the work.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each on one thread.")]

_VIDEOS, _PORTRAITS = "Clips of real videos", "Clips of re-posed portraits, in this order"

data_app = typer.Typer(
    help="Make what is trained on: from videos with caption, prepare and encode, from portraits with rigs, render, "
    "views and encode-pool. See docs/training.md.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data_app.command(rich_help_panel=_VIDEOS)
def caption(
    videos: Annotated[Path, typer.Argument(help="Folder of videos.")],
    model: Annotated[
        Path, typer.Option(help="Folder of a vision-language model as transformers saves it, such as Qwen2.5-VL.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, FILE.jsonl; one that was begun goes on.")],
    frames: Annotated[int, typer.Option(min=1, max=64, help="Looked at of each video, evenly spread.")] = 8,
    batch: Annotated[int, typer.Option(min=1, help="Videos described at once.")] = 1,
    device: DeviceOption = "auto",
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in; auto is bfloat16 on a GPU.")] = "auto",
) -> None:
    """Describe videos by a model of yours: action, pose, expression, clothes, place and light, and no names.

    The file is what `prepare --captions` reads. The most probable words are taken, so a run that was killed goes on and
    ends with the same file. Nothing is downloaded, and no code of the model's folder is run.

    [bold]Example[/bold]

      fantasyid data caption VIDEOS --model Qwen2.5-VL-7B-Instruct --out captions.jsonl
    """
    import torch

    from fantasyid.cli.progress import ConsoleProgress
    from fantasyid.data.sources.caption_model import PROMPT, CaptionModel
    from fantasyid.data.sources.captioning import caption
    from fantasyid.data.sources.folder import videos_in

    found, place = videos_in(videos), chosen_device(device)
    kind = ("bfloat16" if place.startswith("cuda") else "float32") if dtype == "auto" else dtype
    files = {path.name: path.stat().st_size for path in sorted(model.glob("*")) if path.is_file()}
    made_with = {"prompt": PROMPT, "model": files, "dtype": kind}
    with ConsoleProgress().steps("Describing", len(found)) as done:
        faults = caption(
            found, out, lambda: CaptionModel.load(model, place, getattr(torch, kind)), made_with, frames, batch, done
        )
    for fault in faults.values():
        typer.echo(f"Without a caption: {fault}", err=True)
    typer.echo(f"{len(found) - len(faults)} of {len(found)} videos are described in {out}.")


@data_app.command(rich_help_panel=_VIDEOS)
def prepare(
    videos: Annotated[Path | None, typer.Argument(help="Folder of videos.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the dataset; one that was begun goes on.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Preset of how to measure and what to keep; without, that of configs/data/paper.yaml."),
    ] = None,
    layout: Annotated[
        SourceFormat, typer.Option("--format", help="How the folder is laid out: plainly, or as a set was published.")
    ] = "folder",
    licence: Annotated[
        str | None, typer.Option(help="Terms of the videos of a plain folder.", show_default=False)
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="File .jsonl or .csv with path and caption; else NAME.txt beside NAME.mp4."),
    ] = None,
    engine: EngineOption = "local",
    workers: Workers = 1,
    portraits: Annotated[Path | None, typer.Option(hidden=True)] = None,
    split: Annotated[str | None, typer.Option(hidden=True)] = None,
    leave_out: Annotated[Path | None, typer.Option(hidden=True)] = None,
    only: Annotated[Path | None, typer.Option(hidden=True)] = None,
    limit: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Cut videos into clips of one person, measure each, and keep the good ones with views from several sides.

    Takes about 20 s of one core a clip. A run that was killed goes on and ends with the same files; with other rules
    of the preset's `keep` it decides anew without looking at a video. DATASET/report.html shows what came of it.
    Needs pip install 'fantasyid\\[data]', and for Ray 'fantasyid\\[data,ray]'.

    [bold]Examples[/bold]

      fantasyid data prepare VIDEOS --licence CC-BY-4.0 --out DATASET --workers 8

      fantasyid data prepare OPENVID --format openvid --out DATASET --engine ray --workers 64
    """
    # What `rigs` was called with when it had this name.
    if any(old is not None for old in (portraits, split, leave_out, only, limit)):
        raise InvalidRequestError("`data prepare --portraits` is called `fantasyid data rigs --portraits` now.")
    if videos is None or out is None:
        raise InvalidRequestError("Give the folder of videos, and with --out that of the dataset.")

    from fantasyid.cli.instruments import instruments
    from fantasyid.cli.progress import ConsoleProgress
    from fantasyid.core.yaml_files import read_preset
    from fantasyid.data.clips.config import PrepareConfig
    from fantasyid.data.clips.prepare import prepare
    from fantasyid.data.sources.formats import list_sources

    preset = PrepareConfig() if config is None else read_preset(config, PrepareConfig, "configs/data")
    listing = list_sources(videos, layout, licence, captions)
    units = -(-len(listing.sources) // preset.measure.unit_size)
    with ConsoleProgress().steps(f"Measuring {len(listing.sources)} videos", units) as done:
        manifest = prepare(
            listing, layout, videos, out, preset, instruments(preset.measure), _engine(engine, workers), done
        )
    reasons = ", ".join(f"{reason}: {count}" for reason, count in manifest.dropped.items())
    typer.echo(f"{manifest.kept} of {manifest.candidates} clips are kept in {out}; dropped: {reasons or 'none'}.")


@data_app.command(rich_help_panel=_VIDEOS)
def encode(
    dataset: Annotated[Path | None, typer.Argument(help="Folder of `prepare`.", show_default=False)] = None,
    videos: Annotated[Path | None, typer.Option(help="Folder of its videos.", show_default=False)] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Whose VAE, text encoder and face vision network: mini, or a folder of FantasyID or CogVideoX."
        ),
    ] = "mini",
    face_vision: Annotated[
        Path | None, typer.Option(help="Folder of a face vision network, or EVA02-CLIP's file, if MODEL has none.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the encoding, DATASET/encodings/NAME; the model's own otherwise.")
    ] = None,
    noised: Annotated[
        int, typer.Option(min=1, max=16, help="Noised references of each view, for presets with noised_reference.")
    ] = 1,
    engine: EngineOption = "local",
    workers: Workers = 1,
    device: DeviceOption = "auto",
    pool: Annotated[Path | None, typer.Option(hidden=True)] = None,
    vae: Annotated[Path | None, typer.Option(hidden=True)] = None,
    vision: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Encode the kept clips for one model: latents, text states, reference latents, face tokens and heads.

    What is written is what training reads: neither VAE nor text encoder nor face networks enter it. A run that was
    killed goes on and ends with the same files.

    [bold]Examples[/bold]

      fantasyid data encode DATASET --videos VIDEOS

      fantasyid data encode DATASET --videos VIDEOS --name 5b --model CogVideoX-5b-I2V --face-vision EVA02_CLIP_L.pt
    """
    # What `encode-pool` was called with when it had this name.
    if any(old is not None for old in (pool, vae, vision)):
        raise InvalidRequestError("`data encode --pool` is called `fantasyid data encode-pool --pool` now.")
    if dataset is None or videos is None:
        raise InvalidRequestError("Give the folder of the dataset, and with --videos that of its videos.")

    from fantasyid.cli.encoders import model_encoders
    from fantasyid.cli.progress import ConsoleProgress
    from fantasyid.data.dataset.encode import encode
    from fantasyid.data.dataset.encodings import SHARD_SIZE
    from fantasyid.data.dataset.layout import DatasetFolder

    folder = DatasetFolder(dataset)
    shards = -(-folder.read_manifest().kept // SHARD_SIZE)
    encoders = model_encoders(model, face_vision, chosen_device(device))
    name = Path(model).resolve().name if name is None else name
    with ConsoleProgress().steps("Encoding", max(1, shards)) as done:
        manifest = encode(folder, videos, name, encoders, _engine(engine, workers), done, noised)
    typer.echo(
        f"{manifest.clips} clips are encoded in {folder.encodings / name}; {manifest.captions_cut} captions cut."
    )


@data_app.command(rich_help_panel=_VIDEOS)
def check(
    dataset: Annotated[Path, typer.Argument(help="Folder of `prepare`.")],
    videos: Annotated[Path | None, typer.Option(help="Folder of its videos, to compare them too.")] = None,
) -> None:
    """See whether every file of a dataset and its encodings is there, unchanged, and fits the others.

    [bold]Example[/bold]

      fantasyid data check DATASET
    """
    from fantasyid.data.dataset.check import check_dataset
    from fantasyid.data.dataset.layout import DatasetFolder

    faults = 0
    for fault in check_dataset(DatasetFolder(dataset), videos):
        typer.echo(fault)
        faults += 1
    if faults:
        raise CorruptDatasetError(
            f"{dataset} is not whole (faults: {faults}); remove what is named, and run the command that made it again."
        )
    typer.echo(f"{dataset} is whole.")


def _engine(name: Literal["local", "ray"], workers: int) -> "Engine":
    from fantasyid.data.engines.local import LocalEngine
    from fantasyid.data.engines.ray import RayEngine

    return RayEngine(workers) if name == "ray" else LocalEngine(workers)


@data_app.command(rich_help_panel=_PORTRAITS)
def rigs(
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

      fantasyid data rigs --portraits PORTRAITS --leave-out configs/eval/shape-people.txt --out rigs.npz
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


@data_app.command(rich_help_panel=_PORTRAITS)
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


@data_app.command(rich_help_panel=_PORTRAITS)
def encode_pool(
    pool: Annotated[Path, typer.Option(help="Folder of `fantasyid data render`.")],
    vae: Annotated[Path, typer.Option(help="Result of the stage vae.")],
    vision: Annotated[Path, typer.Option(help="Folder face_vision of the stage encoder.")],
    device: DeviceOption = "auto",
) -> None:
    """Encode a pool to what the video model reads: latents, face tokens and text states, beside the clips.

    [bold]Example[/bold]

      fantasyid data encode-pool --pool clips --vae runs/vae/result --vision runs/encoder/result/face_vision
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


@data_app.command(rich_help_panel=_PORTRAITS)
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
