"""`fantasyid edit`: a head, read from a photo or a file, with a wider face or a sharper jaw."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fantasyid.cli.progress import ConsoleProgress
from fantasyid.core.choices import FaceBackend
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file
from fantasyid.core.output_files import check_outputs, write_together
from fantasyid.generation.progress import Progress
from fantasyid.generation.request import NO_EDITS_OF_FLAME
from fantasyid.geometry.edit_table import EDITS, check_strengths

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    from torch import Tensor

_MESH_SUFFIXES = (".ply", ".obj")


def edit(
    source: Annotated[Path, typer.Argument(help="Photo of the person, or a head.ply or head.obj of ours.")],
    out: Annotated[Path, typer.Option(help="Head to write, FILE.ply or FILE.obj, in centimetres.")],
    preview: Annotated[
        Path | None, typer.Option(help="Picture to write, FILE.png: the head before, above, and after, below.")
    ] = None,
    face: Annotated[
        int | None, typer.Option(min=0, help="Which face of the photo, 0 being the largest. Default: 0.")
    ] = None,
    backend: Annotated[FaceBackend, typer.Option(help="What reads the photo.")] = "builtin",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    **strengths: float,
) -> None:
    """Change the shape of a person's head, by named edits of a strength between -1 and +1.

    The head is neutral: without the photo's expression and pose. Edits can be combined; each leaves the rest of the
    head as it is. The file goes into a video with [bold]fantasyid generate --vertices FILE.ply[/bold].

    [bold]Examples[/bold]

      fantasyid edit photo.jpg --face-width +0.3 --jaw-sharpness -0.2 --out head.ply --preview head.png

      fantasyid edit head.ply --lip-fullness 0.5 --out fuller.ply
    """
    progress = ConsoleProgress()
    wanted = {name.replace("_", "-"): strength for name, strength in strengths.items()}
    check_strengths(wanted)
    check_input_file(source, "photo or head")
    targets = _targets(out, preview)
    check_outputs(targets, overwrite=overwrite, inputs=[source])
    with progress.stage("Starting"):
        import numpy as np
        from PIL import Image

        from fantasyid.core.mesh_files import write_mesh
        from fantasyid.geometry.edits import HeadEditor
        from fantasyid.geometry.head_model import HeadModel
        from fantasyid.geometry.pictures import part_colours, turntable

        model = HeadModel.load()
    vertices, topology_hash = _read_source(source, face, backend, progress)
    editor = HeadEditor(model)
    edited = editor.edit(vertices, topology_hash, wanted)
    with write_together(targets, overwrite=overwrite) as (head_path, *pictures):
        write_mesh(head_path, edited.numpy(), model.triangles.numpy())
        for path in pictures:
            rows = [turntable(head, model.triangles, part_colours(model)) for head in (vertices, edited)]
            Image.fromarray(np.concatenate(rows)).save(path)
    typer.echo(f"{out}: {len(edited)} vertices")
    for change in EDITS:
        if wanted[change.name]:
            before, after = editor.measure_cm(vertices, change), editor.measure_cm(edited, change)
            typer.echo(f"  {change.name} {wanted[change.name]:+g}: {change.measured} {before:.2f} -> {after:.2f} cm")


def _targets(out: Path, preview: Path | None) -> list[Path]:
    """The files to write, their names checked."""
    if out.suffix.lower() not in _MESH_SUFFIXES:
        raise InvalidRequestError(f"The head's name must end in {' or '.join(_MESH_SUFFIXES)}, not {out.name!r}.")
    if preview is None:
        return [out]
    if preview.suffix.lower() != ".png":
        raise InvalidRequestError(f"The preview's name must end in .png, not {preview.name!r}.")
    return [out, preview]


def _read_source(source: Path, face: int | None, backend: FaceBackend, progress: Progress) -> "tuple[Tensor, str]":
    """Neutral vertices and their topology, from a mesh file or a photo."""
    if source.suffix.lower() in _MESH_SUFFIXES:
        if face is not None or backend != "builtin":
            raise InvalidRequestError(f"{source} is a head; --face and --backend are for photos, leave them out.")
        from fantasyid.geometry.head_files import read_head

        return read_head(source)
    if backend == "deca":
        raise InvalidRequestError(NO_EDITS_OF_FLAME)

    with progress.stage("Reading the photo"):
        from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
        from fantasyid.face.reader import FaceReader
        from fantasyid.face.registry import reader_backends

        reader = FaceReader(load_component(MINI_FOLDER, "face_reader_model"), *reader_backends(backend))
        reading = reader.read(source, face)
    if reading.num_faces > 1:
        progress.several_faces(reading)
    return reading.head.vertices, reading.head.topology_hash


def _with_an_option_per_edit(signature: inspect.Signature) -> inspect.Signature:
    """The command's signature with its `**strengths` written out, so that the edits are named in one place."""
    options = [
        inspect.Parameter(
            change.name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=0.0,
            annotation=Annotated[
                float,
                typer.Option(
                    metavar="-1..1",
                    show_default=False,
                    rich_help_panel="Edits",
                    help=f"{change.effect[0].upper()}{change.effect[1:]}; 1 is {abs(change.change_cm):g} cm.",
                ),
            ],
        )
        for change in EDITS
    ]
    *named, _ = signature.parameters.values()
    return signature.replace(parameters=[*named, *options])


edit.__signature__ = _with_an_option_per_edit(inspect.signature(edit))  # type: ignore[attr-defined]
