"""`fantasyid face`: what is read from the face in a photo, to look at and to take elsewhere."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict

from fantasyid.cli.generate import DECA_FOLDER_HELP
from fantasyid.cli.progress import ConsoleProgress
from fantasyid.core.choices import FaceBackend
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file
from fantasyid.core.output_files import check_outputs, write_together
from fantasyid.generation.request import check_deca_folder

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    from fantasyid.face.drawing import DrawableHead
    from fantasyid.face.types import FaceReading

FILES = ("overlay.jpg", "turntable.png", "reading.json", "head.ply", "head.obj")

face_app = typer.Typer(help="Look at what is read from the face in a photo.", no_args_is_help=True)


class FoundFace(BaseModel):
    """A face in the photo."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels."""
    score: float
    """The detector's own measure, higher = surer."""


class InspectionRecord(BaseModel):
    """What `fantasyid face inspect` found, as in reading.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photo_sha256: str
    backend: str
    """What read the photo."""
    faces: tuple[FoundFace, ...]
    """All faces, largest first."""
    face_index: int
    """Which of them was read."""
    confidence: float
    """How surely the picture shows a face there, in [0, 1]."""
    yaw_deg: float
    """Positive: turned to the right of the picture."""
    pitch_deg: float
    """Positive: chin down."""
    roll_deg: float
    """Positive: counter-clockwise."""
    expression: dict[str, float]
    """Strength of each expression: by ARKit's names for the built-in head, `flame-00` and so on for FLAME."""
    error_cm: float
    """How far the fitted head is from what was seen of the face."""
    num_vertices: int
    topology_hash: str
    """Names the mesh of head.ply and head.obj."""
    seconds: dict[str, float]
    """Time of each stage, once the networks were loaded."""


@face_app.callback()
def face() -> None:
    """Look at what is read from the face in a photo."""


@face_app.command()
def inspect(
    photo: Annotated[Path, typer.Argument(help="Photo of the person, in any common format.")],
    out: Annotated[Path, typer.Option(help="Folder for the five files; made if it is not there.")],
    backend: Annotated[
        FaceBackend, typer.Option(help="What reads the photo; `fantasyid doctor` says which work here.")
    ] = "builtin",
    deca_folder: Annotated[Path | None, typer.Option(help=DECA_FOLDER_HELP)] = None,
    face: Annotated[
        int | None, typer.Option(min=0, help="Which face of the photo, 0 being the largest. Default: 0.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier inspection.")] = False,
) -> None:
    """Read the face in PHOTO and show what was understood.

    Writes into the folder: overlay.jpg, the fitted head over the photo; turntable.png, the person's neutral head from
    five sides; head.ply and head.obj, that head in centimetres; reading.json, all faces found, and of the one that was
    read pose, expression and fit.

    [bold]Examples[/bold]

      fantasyid face inspect photo.jpg --out reading

      fantasyid face inspect group.jpg --face 1 --out second --backend insightface
    """
    progress = ConsoleProgress()
    check_input_file(photo, "photo")
    if out.exists() and not out.is_dir():
        raise InvalidRequestError(f"{out} is a file; choose another name for the folder.")
    # A folder that is not there yet appears with all its files in it.
    targets = [out / name for name in FILES] if out.is_dir() else [out]
    check_outputs(targets, overwrite=overwrite, inputs=[photo])
    check_deca_folder(deca_folder, backend)
    with progress.stage("Starting"):
        from PIL import Image

        from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
        from fantasyid.core.imaging import read_photo_and_sha256
        from fantasyid.core.mesh_files import write_mesh
        from fantasyid.face.drawing import DrawableHead
        from fantasyid.face.reader import FaceReader
        from fantasyid.face.reconstruct_deca import DecaFiles
        from fantasyid.face.registry import reader_backends
        from fantasyid.geometry.flame import DEFAULT_FOLDER, FlameModel

        pixels, photo_sha256 = read_photo_and_sha256(photo)
    with progress.stage("Loading the networks"):
        reader_model = load_component(MINI_FOLDER, "face_reader_model")
        reader = FaceReader(reader_model, *reader_backends(backend, deca_folder))
        files = DecaFiles.in_folder(deca_folder or DEFAULT_FOLDER)
        flame = FlameModel.load(files.flame) if backend == "deca" else None
    start = time.perf_counter()
    reading = reader.read(pixels, face)
    read_s = time.perf_counter() - start
    if reading.num_faces > 1:
        progress.several_faces(reading)

    head = DrawableHead.of(reading, flame)
    with write_together(targets, overwrite=overwrite) as made:
        if targets == [out]:
            made[0].mkdir()
            made = [made[0] / name for name in FILES]
        overlay_path, turntable_path, record_path, *mesh_paths = made
        Image.fromarray(head.overlay(pixels)).save(overlay_path, quality=92)
        Image.fromarray(head.turntable()).save(turntable_path)
        for path in mesh_paths:
            write_mesh(path, head.neutral.numpy(), head.triangles.numpy())
        seconds = {"read": read_s, "draw_and_write": time.perf_counter() - start - read_s}
        record = _record(photo_sha256, backend, reading, head, seconds)
        record_path.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    pose = reading.head.pose
    typer.echo(
        f"{out}: {', '.join(FILES)}; yaw {pose.yaw_deg:.1f}, pitch {pose.pitch_deg:.1f}, roll {pose.roll_deg:.1f} "
        f"degrees, fit {reading.head.error_cm:.2f} cm, {sum(seconds.values()):.1f} s"
    )


def _record(
    photo_sha256: str, backend: FaceBackend, reading: "FaceReading", head: "DrawableHead", seconds: dict[str, float]
) -> InspectionRecord:
    read = reading.head
    return InspectionRecord(
        photo_sha256=photo_sha256,
        backend=backend,
        faces=tuple(FoundFace(box=found.box, score=found.score) for found in reading.faces),
        face_index=reading.face_index,
        confidence=round(reading.confidence, 4),
        yaw_deg=round(read.pose.yaw_deg, 2),
        pitch_deg=round(read.pose.pitch_deg, 2),
        roll_deg=round(read.pose.roll_deg, 2),
        expression={name: round(value, 4) for name, value in head.expression.items()},
        error_cm=round(read.error_cm, 4),
        num_vertices=len(read.vertices),
        topology_hash=read.topology_hash,
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
    )
