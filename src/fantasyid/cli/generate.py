"""`fantasyid generate`: a photo and a prompt become a video file."""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fantasyid.cli.progress import ConsoleProgress, quieten_libraries
from fantasyid.cli.signing import Sign, SignWith, signing_key
from fantasyid.core.choices import (
    AttentionChoice,
    CacheChoice,
    Device,
    Dtype,
    FaceBackend,
    MemoryPlanChoice,
    OutputFormat,
)
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file
from fantasyid.generation.request import SPEED_PRESETS, GenerationRequest, as_text

PERSON, VIDEO, FILES, MODEL, SPEED = "Person", "Video", "Files", "Model and machine", "Speed and memory"

DECA_FOLDER_HELP = (
    "Folder with FLAME 2020's generic_model.pkl and DECA's deca_model.tar, for --backend deca. "
    "Default: ~/.cache/fantasyid/deca."
)

_PLACES: Mapping[str, tuple[str, ...]] = {
    "photos": ("person", "photos"),
    "face": ("person", "face_index"),
    "backend": ("person", "face_backend"),
    "deca_folder": ("person", "deca_folder"),
    "vertices": ("person", "head_file"),
    "prompt": ("prompt",),
    "negative_prompt": ("negative_prompt",),
    "identity_scale": ("identity_scale",),
    "guidance": ("guidance_scale",),
    "guidance_interval": ("guidance_interval",),
    "steps": ("num_inference_steps",),
    "seed": ("seed",),
    "num_videos": ("num_videos",),
    "frames": ("num_frames",),
    "fps": ("fps",),
    "model": ("model", "name"),
    "device": ("model", "device"),
    "dtype": ("model", "dtype"),
    "gpus": ("model", "gpus"),
    "plan": ("model", "memory_plan"),
    "compile_blocks": ("model", "acceleration", "compile"),
    "tune": ("model", "acceleration", "tune"),
    "attention": ("model", "acceleration", "attention"),
    "fp8": ("model", "acceleration", "fp8"),
    "cache": ("model", "acceleration", "cache"),
    "cache_interval": ("model", "acceleration", "cache_interval"),
}
"""Where the value of each option goes in a request."""
_OPTION_NAMES = (
    {"scale": "the scale of --lora"}
    | {place[-1]: "--" + option.removesuffix("_blocks").replace("_", "-") for option, place in _PLACES.items()}
    | {"height": "--size", "width": "--size"}
)


def generate(
    ctx: typer.Context,
    out: Annotated[
        Path,
        typer.Option(
            help="Video to write, FILE.mp4, .webm or .gif; FILE.json and FILE.jpg are put beside it.",
            rich_help_panel=FILES,
        ),
    ],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photo of the person, in any common format, or several; none with --no-identity."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What happens in the video.", rich_help_panel=VIDEO)] = None,
    negative_prompt: Annotated[
        str, typer.Option(help="What the video should keep away from; needs guidance.", rich_help_panel=VIDEO)
    ] = "",
    seed: Annotated[
        int | None,
        typer.Option(help="Same seed, same machine: same video. Default: random.", rich_help_panel=VIDEO),
    ] = None,
    num_videos: Annotated[
        int, typer.Option(help="Videos, with seeds counting up: FILE-1.mp4, FILE-2.mp4.", rich_help_panel=VIDEO)
    ] = 1,
    frames: Annotated[
        int | None, typer.Option(help="Frames of the video. Default: the model's own.", rich_help_panel=VIDEO)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Width and height in pixels, such as 720x480. Default: the model's.", rich_help_panel=VIDEO),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames shown per second; another than the model's plays slower or faster.", rich_help_panel=VIDEO
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps. Default: the model's own.", rich_help_panel=VIDEO)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How strictly the prompt is followed, 0 to 100; 1 is off. Default: the model's own.",
            rich_help_panel=VIDEO,
        ),
    ] = None,
    identity_scale: Annotated[
        float, typer.Option(help="Strength of the identity tokens, 0 to 10.", rich_help_panel=PERSON)
    ] = 1.0,
    identity: Annotated[
        bool, typer.Option("--identity/--no-identity", help="Off: anybody, text-to-video.", rich_help_panel=PERSON)
    ] = True,
    reference: Annotated[
        bool,
        typer.Option("--reference/--no-reference", help="Off: without the portrait's latent.", rich_help_panel=PERSON),
    ] = True,
    identity_tokens: Annotated[
        bool,
        typer.Option(
            "--identity-tokens/--no-identity-tokens", help="Off: without the identity tokens.", rich_help_panel=PERSON
        ),
    ] = True,
    face: Annotated[
        int | None,
        typer.Option(help="Which face of the photo, 0 being the largest. Default: 0.", rich_help_panel=PERSON),
    ] = None,
    backend: Annotated[
        FaceBackend | None,
        typer.Option(
            help="What reads the photo; see `fantasyid doctor`. Default: what the model was trained with.",
            rich_help_panel=PERSON,
        ),
    ] = None,
    deca_folder: Annotated[Path | None, typer.Option(help=DECA_FOLDER_HELP, rich_help_panel=PERSON)] = None,
    vertices: Annotated[
        Path | None,
        typer.Option(
            help="Head to use instead of the photo's: a .ply or .obj of `fantasyid edit` or `face inspect`.",
            rich_help_panel=PERSON,
        ),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(
            help="Change the head, NAME=STRENGTH with -1 to 1, such as face-width=+0.3; may be repeated.",
            rich_help_panel=PERSON,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="FILE.json of an earlier video: make it again, with the changes that other options name.",
            rich_help_panel=FILES,
        ),
    ] = None,
    form: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="png is a folder of pictures. Default: as --out ends.", rich_help_panel=FILES),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.", rich_help_panel=FILES)
    ] = False,
    sign: Sign = False,
    sign_with: SignWith = None,
    model: Annotated[
        str, typer.Option(help="mini (built in), a folder, or a name on the Hugging Face Hub.", rich_help_panel=MODEL)
    ] = "mini",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="LoRA to merge, FILE or FILE:SCALE: of `fantasyid train` or any CogVideoX; may be repeated.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.", rich_help_panel=MODEL)] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="Precision. Auto: bfloat16 where the machine has it.", rich_help_panel=MODEL)
    ] = "auto",
    gpus: Annotated[
        int, typer.Option(help="GPUs of this machine that make the video together.", rich_help_panel=MODEL)
    ] = 1,
    preset: Annotated[
        Literal["exact", "fast", "draft"] | None,
        typer.Option(
            help="For full size on a GPU. fast: --compile --attention auto; draft: also --fp8, --cache taylor with "
            "--cache-interval 2, and --guidance-interval 0 0.6. Single options go before it.",
            rich_help_panel=SPEED,
        ),
    ] = None,
    plan: Annotated[
        MemoryPlanChoice,
        typer.Option(
            help="GPU memory: balanced fits 24 GB, low 10 GB. Auto: the first that fits.", rich_help_panel=SPEED
        ),
    ] = "auto",
    compile_blocks: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network: a slower first step, then faster.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune/--no-tune",
            help="With --compile, search for the fastest kernels: 40 s, once per machine.",
            rich_help_panel=SPEED,
        ),
    ] = False,
    attention: Annotated[
        AttentionChoice | None,
        typer.Option(
            help="Attention kernel; auto is the fastest here. Default: PyTorch's choice.", rich_help_panel=SPEED
        ),
    ] = None,
    fp8: Annotated[
        bool,
        typer.Option(
            "--fp8/--no-fp8", help="8-bit matrix products: faster, changes the video a little.", rich_help_panel=SPEED
        ),
    ] = False,
    cache: Annotated[
        CacheChoice | None,
        typer.Option(help="Skip steps that earlier ones foretell: faster, changes the video.", rich_help_panel=SPEED),
    ] = None,
    cache_interval: Annotated[
        int, typer.Option(help="With --cache taylor: one of so many steps is computed.", rich_help_panel=SPEED)
    ] = 3,
    guidance_interval: Annotated[
        tuple[float, float],
        typer.Option(
            help="Share of the steps that are guided, from and to; the others cost half.", rich_help_panel=SPEED
        ),
    ] = (0.0, 1.0),
) -> None:
    """Make a video of the person in PHOTO doing what the prompt says.

    Most people need PHOTO, --prompt, --out and --seed.

    [bold]Examples[/bold]

      fantasyid generate photo.jpg --prompt "a woman smiles" --out smile.mp4

      fantasyid generate group.jpg --face 1 --prompt "a man turns the head to the left" --out turn.mp4 --seed 7

      fantasyid generate --prompt "a person talks" --out anybody.mp4 --no-identity

      fantasyid generate photo.jpg --prompt "a woman nods" --out wide.mp4 --edit face-width=+0.5 --edit nose-length=-0.3

      fantasyid generate --from smile.json --seed 8 --out again.mp4
    """
    values = dict(locals())
    typed = {name for name in values if _was_typed(ctx, name)}
    options = {name: values[name] for name in typed if values[name] is not None}
    if cache == "none":
        options["cache"] = None
    progress = ConsoleProgress()

    from fantasyid.generation.output_paths import GenerationPaths
    from fantasyid.generation.record import find_inputs, find_loras, read_record

    like = None if record is None else read_record(record)
    fields: dict[str, Any] = {} if like is None else like.request.model_dump()
    if like is not None and photos is None:
        person = find_inputs(like, Path(str(record))) if identity else None
        fields["person"] = None if person is None else person.model_dump()
    if like is not None and lora is None:
        loras = find_loras(like, Path(str(record)))
        fields["model"]["loras"] = [one.model_dump() for one in loras]
    request = _request(fields, options)
    files = () if request.person is None else request.person.files
    files = (*files, *((one.file, "LoRA") for one in request.model.loras))
    paths = GenerationPaths.several(out, form, request.num_videos)
    for place in paths:
        place.check(overwrite=overwrite, inputs=[path for path, _ in files])
    for path, what in files:
        check_input_file(path, what)
    with progress.stage("Starting"):
        from fantasyid.generation.studio import generate_files

        quieten_libraries()
        key = signing_key(sign, sign_with)
    command = tuple(as_text(argument) for argument in sys.argv[1:])
    generate_files(request, paths, overwrite=overwrite, progress=progress, command=command, like=like, signing_key=key)
    for place in paths:
        made = read_record(place.record)
        total = sum(made.timings_s.values())
        beside = f"and {place.record.name}, {place.sheet.name}"
        typer.echo(f"{place.video} ({beside}), seed {made.request.seed}, {total:.0f} s")


def _was_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _request(fields: dict[str, Any], options: Mapping[str, Any]) -> GenerationRequest:
    """What the options ask for, over the fields of an earlier request."""
    if "prompt" not in options and "prompt" not in fields:
        raise InvalidRequestError("There is no prompt; say what happens, such as --prompt 'a person smiles'.")
    _put_all(fields, SPEED_PRESETS[options.get("preset", "exact")])
    for option, place in _PLACES.items():
        if option in options:
            _put(fields, place, options[option])
    if "edit" in options:
        _put(fields, ("person", "edits"), _parse_edits(options["edit"]))
    if "lora" in options:
        _put(fields, ("model", "loras"), [_parse_lora(lora) for lora in options["lora"]])
    if "size" in options:
        fields["width"], fields["height"] = _parse_size(options["size"])
    for option, ways in {
        "identity": ("use_reference", "use_identity_tokens"),
        "reference": ("use_reference",),
        "identity_tokens": ("use_identity_tokens",),
    }.items():
        if option in options:
            fields.update(dict.fromkeys(ways, options[option]))
    has_photo = bool((fields.get("person") or {}).get("photos"))
    if not has_photo and (fields.get("use_reference", True) or fields.get("use_identity_tokens", True)):
        raise InvalidRequestError("There is no photo; give one, or --no-identity for a video of anybody.")
    if not has_photo and fields.pop("person", None):
        raise InvalidRequestError(
            "--face, --backend, --deca-folder, --vertices and --edit say how a photo is used; give one too."
        )
    return GenerationRequest.model_validate(fields, context={"names": _OPTION_NAMES})


def _put(fields: dict[str, Any], place: Iterable[str], value: Any) -> None:
    *rooms, last = place
    for room in rooms:
        if fields.get(room) is None:
            fields[room] = {}
        fields = fields[room]
    fields[last] = value


def _put_all(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            _put_all(fields.setdefault(name, {}), value)
        else:
            fields[name] = value


def _parse_size(size: str) -> tuple[int, int]:
    """Width and height, from WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d+)\s*[xX\u00d7]\s*(\d+)", size.strip())
    if match is None:
        raise InvalidRequestError(f"--size is {size!r}; it must be width x height in pixels, such as 720x480.")
    return int(match[1]), int(match[2])


def _parse_lora(lora: str) -> dict[str, Any]:
    """File and scale, from FILE or FILE:SCALE; a colon that no number follows is part of the name."""
    file, _, scale = lora.rpartition(":")
    try:
        return {"file": Path(file), "scale": float(scale)} if file else {"file": Path(lora)}
    except ValueError:
        return {"file": Path(lora)}


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
    return edits
