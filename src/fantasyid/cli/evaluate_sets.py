"""`fantasyid evaluate people | latents | frames | reposed | judge | reader`: the evaluation on many held-out people."""

import logging
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from fantasyid.cli.train import DeviceOption, chosen_device
from fantasyid.core.bounds import GUIDANCE_SCALE, check_number
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.

ReaderStep = Literal["calibrate", "pairs", "found", "render", "renders", "false-faces", "report"]

Portraits = Annotated[Path, typer.Option(help="Folder with manifest.csv and the photos that it names.")]
People = Annotated[Path, typer.Option(help="File of `fantasyid evaluate people`.")]
Frames = Annotated[Path, typer.Option(help="Folder of latents and frames, one folder a way to use the identity.")]
First = Annotated[int | None, typer.Option(min=1, help="Only the first so many people.")]
Model = Annotated[Path | None, typer.Option(help="Folder of a packed model. Default: the built-in one.")]


def people(
    portraits: Portraits,
    out: Annotated[Path, typer.Option(help="File to write, FILE.npz.")],
    model: Model = None,
) -> None:
    """Read the photos of the held-out people, once: the first step of the evaluation on many people.

    [bold]The steps[/bold], which may run on several machines and go on where they stopped:

      fantasyid evaluate people --portraits PORTRAITS --out people.npz

      fantasyid evaluate latents --people people.npz --out videos --device cuda

      fantasyid evaluate frames --out videos

      fantasyid evaluate judge --portraits PORTRAITS --frames videos --out report
    """
    check_input_file(portraits / "manifest.csv", "manifest")

    from fantasyid.checkpoints.builtin import MINI_FOLDER
    from fantasyid.core.output_files import check_outputs
    from fantasyid.evaluation.generate import read
    from fantasyid.evaluation.protocol import read_people

    check_outputs([out], overwrite=True)
    read(read_people(portraits / "manifest.csv"), portraits, out, model or MINI_FOLDER)


def latents(
    people: People,
    out: Frames,
    device: DeviceOption = "auto",
    guidance: Annotated[
        float | None, typer.Option(help="How strictly the prompt is followed. Default: the model's own.")
    ] = None,
    model: Model = None,
) -> None:
    """Denoise the videos of all held-out people; needs a GPU to take minutes."""
    check_input_file(people, "file of people")
    if guidance is not None:
        check_number("--guidance", guidance, GUIDANCE_SCALE)

    import torch

    from fantasyid.checkpoints.builtin import MINI_FOLDER, load_builtin
    from fantasyid.evaluation.generate import load_inputs, make_latents
    from fantasyid.pipelines.fantasyid import FantasyIDPipeline

    pipeline = FantasyIDPipeline(**load_builtin(model or MINI_FOLDER, torch.bfloat16)).to(chosen_device(device))
    if guidance is not None:
        pipeline.register_to_config(default_guidance_scale=guidance)
    make_latents(pipeline, *load_inputs(people), out)


def frames(out: Frames, model: Model = None) -> None:
    """Decode what `fantasyid evaluate latents` left."""
    if not any(out.glob("*.npz")):
        raise InvalidRequestError(f"There are no latents in {out}; make them with `fantasyid evaluate latents`.")

    import torch

    from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
    from fantasyid.evaluation.generate import make_frames

    make_frames(load_component(model or MINI_FOLDER, "vae", torch.bfloat16), out, fps=8)


def reposed(
    rigs: Annotated[Path, typer.Option(help="File of `fantasyid data rigs --split val`.")],
    portraits: Portraits,
    out: Frames,
    first: First = None,
) -> None:
    """Act out the same prompts by re-posing the people's photos: the ceiling of identity, and the unit of motion.

    Takes about 0.3 s a frame on one CPU core.
    """
    check_input_file(rigs, "rigs")
    check_input_file(portraits / "manifest.csv", "manifest")

    from fantasyid.evaluation.protocol import read_people
    from fantasyid.evaluation.reposed import repose

    repose(read_people(portraits / "manifest.csv")[:first], rigs, out)


def judge(
    portraits: Portraits,
    frames: Annotated[Path, typer.Option(help="Folder of `fantasyid evaluate frames` and `reposed`.")],
    out: Annotated[Path, typer.Option(help="Folder for report.json, report.md and each judgement.")],
    first: First = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    model: Model = None,
) -> None:
    """Judge the videos of many people, and write the table with its intervals over people.

    Every judgement is kept: an interrupted run goes on where it stopped, and a video made anew is judged anew.
    """
    check_input_file(portraits / "manifest.csv", "manifest")

    from fantasyid.checkpoints.builtin import MINI_FOLDER
    from fantasyid.evaluation.judge import judge_folder
    from fantasyid.evaluation.protocol import read_people
    from fantasyid.evaluation.report import to_markdown

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = read_people(portraits / "manifest.csv")[:first]
    typer.echo(to_markdown(judge_folder(chosen, portraits, frames, out, model or MINI_FOLDER, workers)))


def reader(
    step: Annotated[ReaderStep, typer.Argument(help=f"One of {', '.join(get_args(ReaderStep))}.")],
    out: Annotated[Path, typer.Option(help="Folder of the results, a file a step.")],
    portraits: Annotated[
        Path | None, typer.Option(help="Folder with manifest.csv and photos; not for renders, false-faces, report.")
    ] = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="People held out beside the manifest's split val, one id a line.")
    ] = None,
    rigs: Annotated[list[Path] | None, typer.Option(help="Files of `fantasyid data rigs`, for render.")] = None,
    first: First = None,
    model: Model = None,
) -> None:
    """Measure what the face reader is worth, on people that nothing was trained on.

    calibrate learns a better distance of the reader's shapes from the other people with two photos, and render makes
    pictures of known shape; pairs, found, renders and false-faces measure; report shows all of them, and exits with 1
    where a bar is missed or a step was not run. Run calibrate and render again after changing the head model, calibrate
    also after changing the reader.

    [bold]Examples[/bold]

      fantasyid evaluate reader pairs --portraits PORTRAITS --leave-out configs/eval/shape-people.txt --out shape

      fantasyid evaluate reader report --out shape
    """
    needed: dict[str, object] = {}
    if step in ("calibrate", "pairs", "found", "render"):
        needed = {"--portraits": portraits, "--leave-out": leave_out}
    if step == "render":
        needed["--rigs"] = rigs
    for option, value in needed.items():
        if not value:
            raise InvalidRequestError(f"The step {step} needs {option}; see `fantasyid evaluate reader --help`.")
    if portraits is not None:
        check_input_file(portraits / "manifest.csv", "manifest")
    for path, what in [(leave_out, "list of people"), *((file, "rigs") for file in rigs or ())]:
        if path is not None:
            check_input_file(path, what)

    from fantasyid.checkpoints.builtin import MINI_FOLDER
    from fantasyid.evaluation.reader.run import HeldOut, run_step

    people = None if portraits is None or leave_out is None else HeldOut(portraits, leave_out, first)
    if run_step(step, out, people, tuple(rigs or ()), model or MINI_FOLDER):
        raise typer.Exit(1)


SET_COMMANDS = (people, latents, frames, reposed, judge, reader)
"""In the order in which they are run."""
