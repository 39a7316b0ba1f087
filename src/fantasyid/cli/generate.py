"""`fantasyid generate`: a photo and a prompt become a video file."""

import hashlib
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fantasyid.cli.progress import stage, told_steps
from fantasyid.core.bounds import GUIDANCE_SCALE, IDENTITY_SCALE, SEED, check_number, check_shares
from fantasyid.core.errors import FantasyIDWarning, InvalidRequestError, TopologyMismatchError
from fantasyid.core.input_files import check_input_file
from fantasyid.geometry.edit_table import check_strengths

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    import torch

    from fantasyid.conditioning.identity import IdentityInputs
    from fantasyid.face.reader import FaceReader
    from fantasyid.face.types import FaceReading
    from fantasyid.pipelines.fantasyid import FantasyIDPipeline


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(StrEnum):
    """Precision of the video network and the VAE."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Plan(StrEnum):
    """Which networks stay in the GPU's memory; `pipelines.memory.MemoryPlan` and auto."""

    auto = "auto"
    fast = "fast"
    balanced = "balanced"
    low = "low"


class Attention(StrEnum):
    """Attention kernels; `models.kernels.attention_kernels.AttentionKernel` and auto."""

    auto = "auto"
    flash3 = "flash3"
    cudnn = "cudnn"
    flash2 = "flash2"
    efficient = "efficient"
    math = "math"
    native = "native"


class Cache(StrEnum):
    """Step caches; `pipelines.acceleration.CacheKind`."""

    first_block = "first-block"
    taylor = "taylor"


NO_EDITS_OF_FLAME = (
    "Edits are made on the built-in head, and --backend deca makes FLAME's; use --backend builtin or insightface."
)


class FaceBackend(StrEnum):
    """What reads a photo: the keys of `face.registry.READERS`, which takes seconds to import."""

    builtin = "builtin"
    insightface = "insightface"
    deca = "deca"


DecaFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder with FLAME 2020's generic_model.pkl and DECA's deca_model.tar, for --backend deca. "
        "Default: ~/.cache/fantasyid/deca."
    ),
]
"""Where the user keeps what `--backend deca` needs; `check_deca_folder` says whether it may be given."""


def generate(
    prompt: Annotated[str, typer.Option(help="What happens in the video.")],
    out: Annotated[
        Path, typer.Option(help="Video to write, FILE.mp4, .webm or .gif; FILE.json and FILE.jpg are put beside it.")
    ],
    photo: Annotated[
        Path | None,
        typer.Argument(help="Photo of the person, in any common format; not needed with --no-identity."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=SEED.low, max=SEED.high, help="Same seed, same machine: same video. Else random."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps. Default: the model's own.")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strictly the prompt is followed, 0 to 100; 1 is off. Default: the model's own."),
    ] = None,
    identity_scale: Annotated[float, typer.Option(help="Strength of the identity tokens, 0 to 10.")] = 1.0,
    no_identity: Annotated[bool, typer.Option("--no-identity", help="Anybody: text-to-video.")] = False,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Leave out the portrait's latent.")] = False,
    no_identity_tokens: Annotated[
        bool, typer.Option("--no-identity-tokens", help="Leave out the identity tokens.")
    ] = False,
    model: Annotated[str, typer.Option(help="mini (built in), a folder, or a name on the Hugging Face Hub.")] = "mini",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    dtype: Annotated[Dtype, typer.Option(help="Precision. Auto: bfloat16 where the machine has it.")] = Dtype.auto,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of this machine that make the video together.")] = 1,
    plan: Annotated[
        Plan, typer.Option(help="GPU memory: balanced fits 24 GB, low 10 GB. Auto: the first that fits.")
    ] = Plan.auto,
    compile_blocks: Annotated[
        bool, typer.Option("--compile", help="Compile the network: a slower first step, then faster.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="With --compile, search for the fastest kernels: 40 s, once per machine.")
    ] = False,
    attention: Annotated[
        Attention | None, typer.Option(help="Attention kernel; auto is the fastest here. Default: PyTorch's choice.")
    ] = None,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="8-bit matrix products: faster, changes the video a little.")
    ] = False,
    cache: Annotated[
        Cache | None, typer.Option(help="Skip steps that earlier ones foretell: faster, changes the video.")
    ] = None,
    guidance_interval: Annotated[
        tuple[float, float], typer.Option(help="Share of the steps that are guided, from and to; the others cost half.")
    ] = (0.0, 1.0),
    face: Annotated[
        int | None, typer.Option(min=0, help="Which face of the photo, 0 being the largest. Default: 0.")
    ] = None,
    backend: Annotated[
        FaceBackend | None,
        typer.Option(help="What reads the photo; see `fantasyid doctor`. Default: what the model was trained with."),
    ] = None,
    deca_folder: DecaFolder = None,
    vertices: Annotated[
        Path | None,
        typer.Option(help="Head to use instead of the photo's: a .ply or .obj of `fantasyid edit` or `face inspect`."),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(help="Change the head, NAME=STRENGTH with -1 to 1, such as face-width=+0.3; may be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Make a video of the person in PHOTO doing what the prompt says.

    [bold]Examples[/bold]

      fantasyid generate photo.jpg --prompt "a woman smiles" --out smile.mp4

      fantasyid generate group.jpg --face 1 --prompt "a man turns the head to the left" --out turn.mp4 --seed 7

      fantasyid generate --prompt "a person talks" --out anybody.mp4 --no-identity

      fantasyid generate photo.jpg --prompt "a woman nods" --out wide.mp4 --edit face-width=+0.5 --edit nose-length=-0.3
    """
    request = dict(locals())
    console = Console(stderr=True)
    named_inputs = [(path, what) for path, what in ((photo, "photo"), (vertices, "head")) if path is not None]
    for path, what in named_inputs:
        check_input_file(path, what)
    inputs = [path for path, _ in named_inputs]
    check_text(prompt, "prompt")
    check_deca_folder(deca_folder, backend)
    edits = _parse_edits(edit or [])
    if edits and backend is FaceBackend.deca:
        raise InvalidRequestError(NO_EDITS_OF_FLAME)
    if (edits or vertices is not None) and (no_identity or no_identity_tokens):
        raise InvalidRequestError(
            "--vertices and --edit act through the identity tokens, which --no-identity and --no-identity-tokens leave "
            "out; give one or the other."
        )
    if guidance is not None:
        check_number("--guidance", guidance, GUIDANCE_SCALE)
    check_number("--identity-scale", identity_scale, IDENTITY_SCALE)
    check_shares("--guidance-interval", guidance_interval)
    if photo is None and not no_identity:
        raise InvalidRequestError("There is no photo; give one, or --no-identity for a video of anybody.")
    if not prompt.strip():
        raise InvalidRequestError("The prompt is empty; say what happens, such as --prompt 'a person smiles'.")

    from fantasyid.generation.output_paths import GenerationPaths

    paths = GenerationPaths.beside(out)
    paths.check(overwrite=overwrite, inputs=inputs)
    with stage(console, "Starting"):
        import numpy as np
        import torch

        from fantasyid.core.imaging import read_photo
        from fantasyid.geometry.head_files import read_head

        pixels = None if photo is None else read_photo(photo)
        head = None if vertices is None else read_head(vertices)
        photo_sha256 = None if photo is None else _sha256(photo)
        head_sha256 = None if vertices is None else _sha256(vertices)

        from fantasyid.conditioning.identity import read_identity
        from fantasyid.generation.output import GenerationRecord, SoftwareVersions, save_generation
        from fantasyid.pipelines.acceleration import Acceleration, accelerate
        from fantasyid.pipelines.fantasyid import FantasyIDPipeline
        from fantasyid.pipelines.memory import apply_plan
        from fantasyid.pipelines.parallel import DeviceGroup, ParallelLayout, launch, process_count, process_rank

    wanted = Acceleration(
        compile=compile_blocks,
        tune=tune,
        attention=None if attention is None else attention.value,
        fp8=fp8,
        cache=None if cache is None else cache.value,
    )
    if gpus > 1 and process_count() == 1:
        if device is Device.cpu or torch.cuda.device_count() < gpus:
            found = 0 if device is Device.cpu else torch.cuda.device_count()
            raise InvalidRequestError(f"--gpus is {gpus}, and {found} CUDA devices may be used; give as many or fewer.")
        launch(gpus, _generate_part, request)
        return
    console.quiet = process_rank() > 0
    clock = _Clock()
    used_device, used_dtype = _choose_device(device, dtype)
    quieten_libraries()
    with stage(console, "Loading the model"):
        pipeline = FantasyIDPipeline.from_pretrained(model, torch_dtype=used_dtype)
        acceleration = accelerate(pipeline.transformer, wanted, used_device)
        used_plan = apply_plan(pipeline, plan.value, used_device)
        pipeline.set_progress_bar_config(disable=True)
        clock.lap("load_model")
    preparation = pipeline.identity_preparation()
    person, reading = None, None
    if pixels is not None:
        with stage(console, "Reading the photo"):
            person, reading = read_identity(pixels, _reader(pipeline, backend, deca_folder), face, preparation)
            clock.lap("read_photo")
        tell_faces(console, reading)
        person = _change_head(person, head, edits)
    if (edits or head is not None) and pipeline.config.follows_vertices is not True:
        follows = "was never measured to follow" if pipeline.config.follows_vertices is None else "does not follow"
        console.print(f"Warning: this model's video {follows} the head's vertices; see docs/editing.md.")

    used_seed = secrets.randbelow(2**32) if seed is None else seed
    call: dict[str, Any] = {
        "num_inference_steps": pipeline.config.default_num_inference_steps if steps is None else steps,
        "guidance_scale": pipeline.config.default_guidance_scale if guidance is None else guidance,
        "guidance_interval": guidance_interval,
        "identity_scale": identity_scale,
        "use_reference": not (no_identity or no_reference),
        "use_identity_tokens": not (no_identity or no_identity_tokens),
    }
    if process_count() > 1:
        layout = ParallelLayout.for_devices(process_count(), call["guidance_scale"] > 1)
        pipeline.enable_parallelism(DeviceGroup(layout, used_device))
    num_frames, (height, width) = pipeline.transformer.config.sample_frames, preparation.reference_size
    paths.check_room(num_frames, height, width)
    record = GenerationRecord(
        versions=SoftwareVersions.installed(),
        command=tuple(_as_text(argument) for argument in sys.argv[1:]),
        prompt=prompt,
        negative_prompt="",
        seed=used_seed,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=pipeline.config.fps,
        model_name=_as_text(model),
        weights_sha256=_weights_sha256(pipeline),
        photo_sha256=photo_sha256,
        face_index=None if reading is None else reading.face_index,
        face_box=None if reading is None else reading.face.box,
        face_backend=None if backend is None else backend.value,
        head_file_sha256=head_sha256,
        edits=edits,
        acceleration=acceleration,
        memory_plan=used_plan,
        device=_device_name(used_device),
        dtype=str(used_dtype).removeprefix("torch."),
        timings_s={},
        **call,
    )
    clock.restart()
    with told_warnings(console), told_steps(console, "Generating", call["num_inference_steps"]) as tell:

        def advance(_: FantasyIDPipeline, step: int, __: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            tell(step + 1)
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
    if process_count() > 1:
        torch.distributed.destroy_process_group()
        if process_rank() > 0:
            return
    frames = (videos[0] * 255).round().astype(np.uint8)
    record = record.model_copy(update={"timings_s": clock.seconds})
    portrait = None
    if person is not None:
        picture = (person.reference_image[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5
        portrait = picture.round().clip(0, 255).astype(np.uint8)
    save_generation(out, frames, record.fps, portrait, record, overwrite=overwrite)
    total = sum(clock.seconds.values())
    typer.echo(f"{paths.video} (and {paths.record.name}, {paths.sheet.name}), seed {used_seed}, {total:.0f} s")


def _parse_edits(assignments: list[str]) -> dict[str, float]:
    """Strengths by name, from NAME=STRENGTH."""
    edits: dict[str, float] = {}
    for assignment in assignments:
        name, _, strength = assignment.partition("=")
        try:
            value = float(strength)
        except ValueError as error:
            raise InvalidRequestError(
                f"The edit {assignment!r} is not of the form NAME=STRENGTH, such as face-width=+0.3."
            ) from error
        if name in edits:
            raise InvalidRequestError(f"The edit {name} is given twice; give it once.")
        edits[name] = value
    check_strengths(edits)
    return edits


def _reader(pipeline: "FantasyIDPipeline", backend: FaceBackend | None, deca_folder: Path | None) -> "FaceReader":
    """The pipeline's own reader, or one with the detector or reconstructor asked for."""
    if backend is None:
        return pipeline.face_reader

    from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
    from fantasyid.face.reader import FaceReader
    from fantasyid.face.registry import reader_backends

    model = pipeline.face_reader_model or load_component(MINI_FOLDER, "face_reader_model")
    keep = pipeline.config.keep_expression_and_pose
    return FaceReader(model, *reader_backends(backend.value, deca_folder, keep))


def _change_head(
    person: "IdentityInputs", head: "tuple[torch.Tensor, str] | None", edits: dict[str, float]
) -> "IdentityInputs":
    """The person with the vertices of another head, if one is given, and edited."""
    from fantasyid.geometry.edits import HeadEditor
    from fantasyid.geometry.head_model import HeadModel

    if head is not None:
        vertices, topology_hash = head
        if topology_hash != person.topology_hash:
            raise TopologyMismatchError(
                f"The file given as --vertices is of mesh {topology_hash}, the photo's head of {person.topology_hash}; "
                "use one that `fantasyid edit` or `fantasyid face inspect` wrote, its vertices in their order."
            )
        person = replace(person, vertices=vertices[None].to(person.vertices))
    if edits:
        editor = HeadEditor(HeadModel.load())
        person = replace(person, vertices=editor.edit(person.vertices, person.topology_hash, edits))
    return person


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Leave out the time since the last call."""
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last call to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._start, 3)
        self._start = now


def check_text(text: str, what: str) -> None:
    """Refuse text that was typed or pasted as something else than UTF-8."""
    if _as_text(text) != text:
        raise InvalidRequestError(
            f"The {what} holds bytes that are not UTF-8 ({_as_text(text)!r}); type it in a terminal set to UTF-8."
        )


def _as_text(argument: str) -> str:
    """An argument as a record can hold it: bytes that are no UTF-8 as `\\xff`."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_deca_folder(folder: Path | None, backend: FaceBackend | None) -> None:
    """Refuse, before any work, a folder that is not there or that the backend has no use for."""
    if folder is None:
        return
    if backend is not FaceBackend.deca:
        raise InvalidRequestError("--deca-folder is for --backend deca; give that too, or leave the folder out.")
    if not folder.is_dir():
        raise InvalidRequestError(f"There is no folder {folder}; check the path given as --deca-folder.")


def _generate_part(request: dict[str, Any]) -> None:
    """Make the same call in one of several processes."""
    generate(**request)


def _choose_device(device: Device, dtype: Dtype) -> "tuple[torch.device, torch.dtype]":
    import torch

    from fantasyid.pipelines.parallel import connect, process_count

    if device is Device.cuda and not torch.cuda.is_available():
        raise InvalidRequestError("There is no usable CUDA device on this machine; use --device cpu.")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device is Device.auto else device.value
    used = connect(name) if process_count() > 1 else torch.device(name)
    if dtype is not Dtype.auto:
        return used, getattr(torch, dtype.value)
    # Measured on two cores: with bfloat16 instructions the built-in model is 1.7 times as fast; without, it is slower.
    fast = name == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return used, torch.bfloat16 if fast else torch.float32


def _device_name(device: "torch.device") -> str:
    import platform

    import torch

    from fantasyid.pipelines.parallel import process_count

    if device.type == "cuda":
        count = f"{process_count()} x " if process_count() > 1 else ""
        return f"{count}cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def quieten_libraries() -> None:
    """Keep the libraries' own progress bars and hints out of ours; errors still show."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


@contextmanager
def told_warnings(console: Console) -> Iterator[None]:
    """Print our own warnings as one line each; others show as they always do."""
    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.simplefilter("always", FantasyIDWarning)

        def tell(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, FantasyIDWarning):
                console.print(f"Warning: {message}", markup=False)
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = tell
        yield


def tell_faces(console: Console, reading: "FaceReading") -> None:
    """Say which face is used, where there are several."""
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
