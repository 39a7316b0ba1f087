"""`fantasyid train`: the stages of the built-in model, and what is done with their results."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fantasyid.core.choices import Device
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
_INPUTS, _RUN = "What it reads", "The run"


Config = Annotated[
    Path, typer.Option(help="Preset of the stage, see configs/train; RUN/config.yaml of a run works too.")
]
Pools = Annotated[
    list[Path],
    typer.Option(help="Folder of `fantasyid data render`; give it again for more.", rich_help_panel=_INPUTS),
]
EncodedPools = Annotated[
    list[Path],
    typer.Option(
        help="Folder of `fantasyid data encode-pool`, or DATASET/encodings/NAME of `encode`; give it again for more.",
        rich_help_panel=_INPUTS,
    ),
]
Rigs = Annotated[Path, typer.Option(help="File of `fantasyid data rigs`.", rich_help_panel=_INPUTS)]
Vision = Annotated[Path, typer.Option(help="Result of the stage vision.", rich_help_panel=_INPUTS)]
Out = Annotated[
    Path,
    typer.Option(help="Folder of log, checkpoints and result; a run begun there goes on.", rich_help_panel=_RUN),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=_RUN)]

train_app = typer.Typer(
    help="Train the built-in model, stage by stage: reader, vision, vae, encoder, pairs, clips; or by clips alone the "
    "identity modules of a CogVideoX (docs/training.md).\n\n"
    "Several GPUs: torchrun --nproc-per-node 2 -m fantasyid train clips ...",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@train_app.command()
def reader(
    config: Config,
    pool: Annotated[Path, typer.Option(help="Folder of `fantasyid data views`.", rich_help_panel=_INPUTS)],
    rigs: Rigs,
    out: Out,
    init: Annotated[
        Path | None, typer.Option(help="Result of this stage to start from.", rich_help_panel=_INPUTS)
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the face reader: landmarks, head shape, expression and pose from a crop of a face.

    [bold]Example[/bold]

      fantasyid train reader --config configs/train/mini-reader.yaml --pool views --rigs rigs.npz --out runs/reader
    """
    _train("reader", config, device, pools=(pool,), out=out, rigs=rigs, init=init)


@train_app.command()
def vision(
    config: Config,
    pool: Annotated[Path, typer.Option(help="Folder of `fantasyid data render`.", rich_help_panel=_INPUTS)],
    rigs: Rigs,
    out: Out,
    device: DeviceOption = "auto",
) -> None:
    """Train the face vision network to tell people apart; its tokens are what the identity encoder sees.

    [bold]Example[/bold]

      fantasyid train vision --config configs/train/mini-vision.yaml --pool pairs --rigs rigs.npz --out runs/vision
    """
    _train("vision", config, device, pools=(pool,), out=out, rigs=rigs)


@train_app.command()
def vae(
    config: Config,
    pool: Pools,
    vision: Vision,
    out: Out,
    init: Annotated[
        Path | None, typer.Option(help="Result of this stage to start from.", rich_help_panel=_INPUTS)
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the VAE, which turns frames into latents and back.

    [bold]Example[/bold]

      fantasyid train vae --config configs/train/mini-vae.yaml --pool pairs --pool clips --vision runs/vision/result
      --out runs/vae
    """
    _train("vae", config, device, pools=tuple(pool), out=out, vision=vision, init=init)


@train_app.command()
def decoder(
    config: Config,
    pool: Pools,
    init: Annotated[Path, typer.Option(help="Result of the stage vae.", rich_help_panel=_INPUTS)],
    vision: Vision,
    out: Out,
    device: DeviceOption = "auto",
) -> None:
    """Go on with the VAE's decoder alone: the latents stay what they are, so the video model stays trained.

    [bold]Example[/bold]

      fantasyid train decoder --config configs/train/mini-decoder.yaml --pool pairs --init runs/vae/result
      --vision runs/vision/result --out runs/decoder
    """
    _train("decoder", config, device, pools=tuple(pool), out=out, vision=vision, init=init)


@train_app.command()
def encoder(
    config: Config,
    pool: Pools,
    vision: Vision,
    out: Out,
    init: Annotated[
        Path | None, typer.Option(help="Result of this stage to start from.", rich_help_panel=_INPUTS)
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Teach the identity encoder people, before the video model meets it.

    [bold]Example[/bold]

      fantasyid train encoder --config configs/train/mini-encoder.yaml --pool pairs --pool clips
      --vision runs/vision/result --out runs/encoder
    """
    _train("encoder", config, device, pools=tuple(pool), out=out, vision=vision, init=init)


VideoInit = Annotated[
    Path | None, typer.Option(help="Result of the stage pairs or clips to start from.", rich_help_panel=_INPUTS)
]
TaughtEncoder = Annotated[
    Path | None, typer.Option(help="Result of the stage encoder to start from.", rich_help_panel=_INPUTS)
]


Flame = Annotated[
    Path | None,
    typer.Option(
        help="Your FLAME, for clips whose heads have its mesh: a new encoder gets it. Default: the built-in head.",
        rich_help_panel=_INPUTS,
    ),
]


@train_app.command()
def pairs(
    config: Config,
    pool: EncodedPools,
    out: Out,
    init: VideoInit = None,
    encoder: TaughtEncoder = None,
    flame: Flame = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the video model on pairs of frames, where most is learned about faces.

    [bold]Example[/bold]

      torchrun --nproc-per-node 2 -m fantasyid train pairs --config configs/train/mini-pairs.yaml --pool pairs
      --encoder runs/encoder/result --out runs/pairs
    """
    _train("pairs", config, device, pools=tuple(pool), out=out, init=init, encoder=encoder, flame=flame)


@train_app.command()
def clips(
    config: Config,
    pool: EncodedPools,
    out: Out,
    init: VideoInit = None,
    encoder: TaughtEncoder = None,
    flame: Flame = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the video model on clips, which add motion.

    [bold]Example[/bold]

      torchrun --nproc-per-node 2 -m fantasyid train clips --config configs/train/mini-clips.yaml --pool clips
      --init runs/pairs/result --out runs/clips
    """
    _train("clips", config, device, pools=tuple(pool), out=out, init=init, encoder=encoder, flame=flame)


@train_app.command()
def replay(
    run: Annotated[Path, typer.Option(help="Folder of a run of pairs or clips.")],
    step: Annotated[int, typer.Option(min=1, help="Which, as log.jsonl and bad_step.json count them.")],
    pool: EncodedPools,
    init: VideoInit = None,
    encoder: TaughtEncoder = None,
    flame: Flame = None,
    device: DeviceOption = "auto",
) -> None:
    """Compute a step of a run again and show each of its samples, as JSON; the run is left as it is.

    All that a step draws is a function of seed and step, so it is the same step; on a CPU the same bits. Give what the
    run was given. It begins at the last checkpoint before the step.

    [bold]Example[/bold]

      fantasyid train replay --run runs/clips --step 1234 --pool clips --init runs/pairs/result
    """
    import json

    from fantasyid.training.config import VideoStage
    from fantasyid.training.config_files import CONFIG_FILE, load_stage
    from fantasyid.training.stages import StageInputs
    from fantasyid.training.stages import replay as replay_step

    settings = load_stage(run / CONFIG_FILE, "pairs", "clips")
    assert isinstance(settings, VideoStage)
    if step > settings.optimiser.steps:
        raise InvalidRequestError(f"The run {run} has {settings.optimiser.steps} steps, and --step is {step}.")
    inputs = StageInputs(tuple(pool), run, chosen_device(device), init=init, encoder=encoder, flame=flame)
    typer.echo(json.dumps(replay_step(settings, inputs, step), indent=1))


@train_app.command()
def validate(
    run: Annotated[Path, typer.Option(help="Folder of a run of pairs or clips.")],
    pool: EncodedPools,
    init: VideoInit = None,
    encoder: TaughtEncoder = None,
    flame: Flame = None,
    photo: Annotated[list[Path] | None, typer.Option(help="Of someone not trained on; give it again for more.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="For a video of each photo; may be repeated.")] = None,
    base: Annotated[Path | None, typer.Option(help="The CogVideoX, for videos.", rich_help_panel=_INPUTS)] = None,
    face_vision: Annotated[
        Path | None,
        typer.Option(help="For videos: what the clips were encoded with, as for assemble.", rich_help_panel=_INPUTS),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of a video.")] = 50,
    device: DeviceOption = "auto",
) -> None:
    """Tell of a run's last checkpoint, as JSON: its loss on clips held out, and how alike videos are to their photos.

    By the averaged weights; the run is left as it is, so another GPU may look while it goes on. Likeness is the face
    vision network's, for comparing steps; the judge takes no part. Videos are put in RUN/validation.

    [bold]Example[/bold]

      fantasyid train validate --run runs/paper --pool DATASET/encodings/5b --init CogVideoX-5b --base CogVideoX-5b
      --face-vision EVA02_CLIP_L.pt --photo one.jpg --prompt "A person smiles."
    """
    import json

    from fantasyid.training.config import VideoStage
    from fantasyid.training.config_files import CONFIG_FILE, load_stage
    from fantasyid.training.stages import StageInputs
    from fantasyid.training.validate import Samples
    from fantasyid.training.validate import validate as validate_run

    wanted = {"--photo": photo, "--prompt": prompt, "--base": base, "--face-vision": face_vision}
    missing = [name for name, value in wanted.items() if not value]
    if 0 < len(missing) < len(wanted):
        raise InvalidRequestError(f"Videos want {', '.join(wanted)}; {', '.join(missing)} is missing.")
    for path in photo or ():
        check_input_file(path, "photo")
    settings = load_stage(run / CONFIG_FILE, "pairs", "clips")
    assert isinstance(settings, VideoStage)
    samples = None
    if photo and prompt and base and face_vision:
        samples = Samples(photo, prompt, base, face_vision, steps)
    inputs = StageInputs(tuple(pool), run, chosen_device(device), init=init, encoder=encoder, flame=flame)
    typer.echo(json.dumps(validate_run(settings, inputs, samples, run / "validation"), indent=1))


@train_app.command()
def assemble(
    run: Annotated[Path, typer.Option(help="Folder of a finished run of pairs or clips.", rich_help_panel=_INPUTS)],
    base: Annotated[Path, typer.Option(help="The CogVideoX it was trained on.", rich_help_panel=_INPUTS)],
    face_vision: Annotated[
        Path,
        typer.Option(help="What its clips were encoded with: a folder, or EVA02-CLIP's file.", rich_help_panel=_INPUTS),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model to make.", rich_help_panel=_RUN)],
    fps: Annotated[int, typer.Option(min=1, help="Frames a second of its clips.", rich_help_panel=_RUN)] = 8,
) -> None:
    """Put a base and what was trained on it into one folder, a model for `fantasyid generate --model`.

    [bold]Example[/bold]

      fantasyid train assemble --run runs/paper --base CogVideoX-5b --face-vision EVA02_CLIP_L.pt --out MODEL
    """
    from fantasyid.training.assemble import assemble

    assemble(run, base, face_vision, out, fps)
    typer.echo(f"The model is {out}; use it with: fantasyid generate --model {out}")


@train_app.command()
def plan(
    config: Annotated[Path, typer.Option(help="Preset of the stage pairs or clips.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many there are.")] = 1,
    memory_gib: Annotated[float, typer.Option(min=1, help="Memory of one; an H100 of 80 GB has 78 GiB to give.")] = 78,
    teraflops: Annotated[
        float, typer.Option(min=1, help="What one sustains in bfloat16, 10^12 operations a second.")
    ] = 450,
) -> None:
    """Work out what training the video model takes, before any GPU is rented; fails if it does not fit.

    [bold]Example[/bold]

      fantasyid train plan --config configs/train/paper-full.yaml --gpus 8
    """
    from fantasyid.training.config import VideoStage
    from fantasyid.training.config_files import load_stage
    from fantasyid.training.plan import Gpus, make_plan, measure_cost, plan_lines, smallest_change

    settings = load_stage(config, "pairs", "clips")
    assert isinstance(settings, VideoStage)
    there, cost = Gpus(gpus, memory_gib, teraflops), measure_cost(settings)
    made = make_plan(settings, there, cost)
    for line in plan_lines(made, settings):
        typer.echo(line)
    if made.total_gib > memory_gib:
        change = smallest_change(settings, there, cost)
        remedy = "take more or larger GPUs" if change is None else f"set {change}"
        raise InvalidRequestError(
            f"{config} takes {made.total_gib:.1f} GiB on each of {gpus} GPUs, and one has {memory_gib:g}; {remedy}."
        )


@train_app.command("shrink-shape")
def shrink_shape(
    reader: Annotated[Path, typer.Option(help="Result of the stage reader.", rich_help_panel=_INPUTS)],
    manifest: Annotated[Path, typer.Option(help="CSV of the portraits.", rich_help_panel=_INPUTS)],
    photos: Annotated[Path, typer.Option(help="Folder the manifest's files are in.", rich_help_panel=_INPUTS)],
    leave_out: Annotated[
        Path, typer.Option(help="People held out beside the split val: one id a line.", rich_help_panel=_INPUTS)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the reader to.", rich_help_panel=_RUN)],
    share: Annotated[
        float,
        typer.Option(min=0, max=1, help="How far to go, 0 to 1; 1 costs accuracy on renders.", rich_help_panel=_RUN),
    ] = 0.5,
) -> None:
    """Shrink what the face reader says of a shape where two photos of one person disagree.

    [bold]Example[/bold]

      fantasyid train shrink-shape --reader runs/reader/result --manifest PORTRAITS/manifest.csv --photos PORTRAITS
      --leave-out configs/eval/shape-people.txt --out runs/reader/shrunk
    """
    check_input_file(manifest, "manifest")
    check_input_file(leave_out, "list of people")
    if not photos.is_dir():
        raise InvalidRequestError(f"There is no folder {photos}; check the path given as --photos.")

    from fantasyid.core.output_files import make_folder
    from fantasyid.core.portraits import held_out_and_others, read_portraits
    from fantasyid.evaluation.reader.steps import read_identities
    from fantasyid.face.reader import FaceReader
    from fantasyid.geometry.head_model import HeadModel
    from fantasyid.models.face_reader import FaceReaderModel
    from fantasyid.training.networks import load
    from fantasyid.training.shrink_shape import shrink

    _, others = held_out_and_others(read_portraits(manifest), leave_out)
    model = load(reader, FaceReaderModel)
    identity, person = read_identities(others, photos, FaceReader(model), HeadModel.load())
    shrink(model, identity, person, share)
    make_folder(out)
    model.save_pretrained(out)
    typer.echo(f"Learned from {len(person)} of {len(others)} photos; written to {out}.")


@train_app.command()
def pack(
    transformer: Annotated[Path, typer.Option(help="Folder transformer of the last stage.", rich_help_panel=_INPUTS)],
    identity_encoder: Annotated[
        Path, typer.Option(help="Folder identity_encoder of the last stage.", rich_help_panel=_INPUTS)
    ],
    vae: Annotated[Path, typer.Option(help="Result of the stage vae or decoder.", rich_help_panel=_INPUTS)],
    vision: Annotated[Path, typer.Option(help="Folder face_vision of the stage encoder.", rich_help_panel=_INPUTS)],
    reader: Annotated[Path, typer.Option(help="Result of the stage reader, shrunk.", rich_help_panel=_INPUTS)],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: the built-in model's.", rich_help_panel=_RUN)
    ] = None,
    storage: Annotated[
        Literal["int8", "float16"], typer.Option(help="Of large weights.", rich_help_panel=_RUN)
    ] = "int8",
) -> None:
    """Pack trained networks into the model that ships.

    [bold]Example[/bold]

      fantasyid train pack --transformer runs/clips/result/transformer
      --identity-encoder runs/clips/result/identity_encoder --vae runs/decoder/result
      --vision runs/encoder/result/face_vision --reader runs/reader/shrunk
    """
    from fantasyid.checkpoints.builtin import MINI_FOLDER
    from fantasyid.core.output_files import make_folder
    from fantasyid.training.pack import TrainedParts, pack

    folder = MINI_FOLDER if out is None else out
    make_folder(folder)
    pack(TrainedParts(transformer, identity_encoder, vae, vision, reader), folder, storage)


@train_app.command()
def unpack(
    out: Annotated[Path, typer.Option(help="Folder to make, which --init takes.", rich_help_panel=_RUN)],
    weights: Annotated[
        Path | None, typer.Option(help="Folder of pack. Default: the built-in model's.", rich_help_panel=_INPUTS)
    ] = None,
) -> None:
    """Write a packed model's networks as stages leave their results, to go on from them.

    [bold]Example[/bold]

      fantasyid train unpack --out runs/shipped
    """
    from fantasyid.checkpoints.builtin import MINI_FOLDER
    from fantasyid.training.pack import unpack

    unpack(MINI_FOLDER if weights is None else weights, out)


def chosen_device(device: Device) -> str:
    """The device's name in PyTorch.

    Raises:
        InvalidRequestError: A GPU is asked for, and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise InvalidRequestError("There is no usable CUDA device on this machine; use --device cpu.")
    if device == "auto":
        return "cuda" if there else "cpu"
    return device


def _train(stage: str, config: Path, device: Device, **inputs: Any) -> None:
    from fantasyid.training.config_files import load_stage
    from fantasyid.training.stages import StageInputs, train

    settings = load_stage(config, stage)
    if not train(settings, StageInputs(device=chosen_device(device), **inputs)):
        typer.echo(f"Stopped and saved in {inputs['out']}; the same command goes on.", err=True)
