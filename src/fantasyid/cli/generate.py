"""`fantasyid generate`: a photo and a prompt become a video file."""

import hashlib
import secrets
import sys
import tempfile
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fantasyid.core.errors import InvalidRequestError

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    import torch

    from fantasyid.face.types import FaceReading
    from fantasyid.pipelines.fantasyid import FantasyIDPipeline


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(str, Enum):
    """Precision of the video network and the VAE."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def generate(
    photo: Annotated[Path, typer.Argument(help="Photo of the person, in any common format.")],
    prompt: Annotated[str, typer.Option(help="What happens in the video.")],
    out: Annotated[Path, typer.Option(help="Video to write, FILE.mp4; FILE.json and FILE.jpg are put beside it.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same machine: same video. Else random.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps. Default: the model's own.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly the prompt is followed; 1 is off. Default: the model's own.")
    ] = None,
    identity_scale: Annotated[float, typer.Option(min=0, help="Strength of the identity tokens.")] = 1.0,
    no_identity: Annotated[bool, typer.Option("--no-identity", help="Anybody: text-to-video.")] = False,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Leave out the portrait's latent.")] = False,
    no_identity_tokens: Annotated[
        bool, typer.Option("--no-identity-tokens", help="Leave out the identity tokens.")
    ] = False,
    model: Annotated[str, typer.Option(help="mini (built in), a folder, or a name on the Hugging Face Hub.")] = "mini",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    dtype: Annotated[Dtype, typer.Option(help="Precision. Auto: bfloat16 where the machine has it.")] = Dtype.auto,
    face: Annotated[
        int | None, typer.Option(min=0, help="Which face of the photo, 0 being the largest. Default: 0.")
    ] = None,
) -> None:
    """Make a video of the person in PHOTO doing what the prompt says.

    [bold]Examples[/bold]

      fantasyid generate photo.jpg --prompt "a woman smiles" --out smile.mp4

      fantasyid generate group.jpg --face 1 --prompt "a man turns the head to the left" --out turn.mp4 --seed 7

      fantasyid generate photo.jpg --prompt "a person talks" --out anybody.mp4 --no-identity
    """
    console = Console(stderr=True)
    _check_output(out)
    if not prompt.strip():
        raise InvalidRequestError("The prompt is empty; say what happens, such as --prompt 'a person smiles'.")

    import numpy as np
    import torch

    from fantasyid.core.imaging import read_photo

    pixels = read_photo(photo)

    from fantasyid.conditioning.identity import read_identity
    from fantasyid.pipelines.fantasyid import FantasyIDPipeline
    from fantasyid.pipelines.output import GenerationRecord, SoftwareVersions, save_generation

    clock = _Clock()
    used_device, used_dtype = _choose_device(device, dtype)
    quieten_libraries()
    with console.status("Loading the model"):
        pipeline = FantasyIDPipeline.from_pretrained(model, torch_dtype=used_dtype).to(used_device)
        pipeline.set_progress_bar_config(disable=True)
        clock.lap("load_model")
    with console.status("Reading the photo"):
        person, reading = read_identity(pixels, pipeline.face_reader, face)
        clock.lap("read_photo")
    _tell_faces(console, reading)

    used_seed = secrets.randbelow(2**32) if seed is None else seed
    call: dict[str, Any] = {
        "num_inference_steps": pipeline.config.default_num_inference_steps if steps is None else steps,
        "guidance_scale": pipeline.config.default_guidance_scale if guidance is None else guidance,
        "identity_scale": identity_scale,
        "use_reference": not (no_identity or no_reference),
        "use_identity_tokens": not (no_identity or no_identity_tokens),
    }
    with _progress(console) as progress:
        task = progress.add_task("Generating", total=call["num_inference_steps"])

        def advance(_: FantasyIDPipeline, step: int, __: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            progress.update(task, completed=step + 1)
            clock.lap("denoise")
            return tensors

        generator = torch.Generator().manual_seed(used_seed)
        videos = pipeline(
            prompt=prompt,
            identity_inputs=person,
            generator=generator,
            output_type="np",
            callback_on_step_end=advance,
            **call,
        ).frames
        clock.lap("decode")
    frames = (videos[0] * 255).round().astype(np.uint8)
    num_frames, height, width, _ = frames.shape
    record = GenerationRecord(
        versions=SoftwareVersions.installed(),
        command=tuple(sys.argv[1:]),
        prompt=prompt,
        negative_prompt="",
        seed=used_seed,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=pipeline.config.fps,
        model_name=model,
        weights_sha256=_weights_sha256(pipeline),
        photo_sha256=hashlib.sha256(photo.read_bytes()).hexdigest(),
        face_index=reading.face_index,
        face_box=reading.face.box,
        device=_device_name(used_device),
        dtype=str(used_dtype).removeprefix("torch."),
        timings_s=clock.seconds,
        **call,
    )
    portrait = (person.reference_image[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5
    paths = save_generation(out, frames, record.fps, portrait.round().clip(0, 255).astype(np.uint8), record)
    total = sum(clock.seconds.values())
    typer.echo(f"{paths.video} (and {paths.record.name}, {paths.sheet.name}), seed {used_seed}, {total:.0f} s")


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last call to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._start, 3)
        self._start = now


def _check_output(out: Path) -> None:
    from fantasyid.pipelines.output import GenerationPaths

    GenerationPaths.beside(out)
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise InvalidRequestError(
            f"Nothing can be written to {out.parent} ({error.strerror}); choose another."
        ) from error


def _choose_device(device: Device, dtype: Dtype) -> "tuple[torch.device, torch.dtype]":
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise InvalidRequestError("There is no usable CUDA device on this machine; use --device cpu.")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device is Device.auto else device.value
    if dtype is not Dtype.auto:
        return torch.device(name), getattr(torch, dtype.value)
    # Measured on two cores: with bfloat16 instructions the built-in model is 1.7 times as fast; without, it is slower.
    fast = name == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.device(name), torch.bfloat16 if fast else torch.float32


def _device_name(device: "torch.device") -> str:
    import platform

    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def quieten_libraries() -> None:
    """Keep the libraries' own progress bars and hints out of ours; errors still show."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def _tell_faces(console: Console, reading: "FaceReading") -> None:
    if reading.num_faces == 1:
        return
    boxes = ", ".join(
        f"{index}: {round((face.box[0] + face.box[2]) / 2)},{round((face.box[1] + face.box[3]) / 2)}"
        for index, face in enumerate(reading.faces)
    )
    console.print(
        f"{reading.num_faces} faces found; using face {reading.face_index}. Choose with --face. "
        f"Centres in pixels from the top left: {boxes}."
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _weights_sha256(pipeline: "FantasyIDPipeline") -> str:
    """Hash of all networks' weights as they were used."""
    import torch

    digest = hashlib.sha256()
    for name, component in sorted(pipeline.components.items()):
        if isinstance(component, torch.nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                digest.update(f"{name}.{key}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
