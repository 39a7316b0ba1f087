"""`fantasyid evaluate`: how well a video shows the person in a photo, and whether it carries the provenance mark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fantasyid.cli.progress import stage
from fantasyid.core.input_files import check_input_file

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fantasyid.evaluation.identity import IdentityScores

evaluate_app = typer.Typer(help="Measure videos.", no_args_is_help=True, rich_markup_mode="rich")


@evaluate_app.command()
def identity(
    reference: Annotated[Path, typer.Option(help="Photo of the person; its largest face counts.")],
    video: Annotated[Path, typer.Option(help="Video to judge, whoever made it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure how well VIDEO shows the person in REFERENCE: RS, IFS, FM, faces found, frames verified.

    The judge is dlib's face recogniser (pip install 'fantasyid\\[eval]').

    [bold]Example[/bold]

      fantasyid evaluate identity --reference photo.jpg --video smile.mp4
    """
    check_input_file(reference, "photo")
    check_input_file(video, "video")
    console = Console(stderr=True)
    with stage(console, "Starting"):
        from fantasyid.core.imaging import read_photo
        from fantasyid.core.video import read_video
        from fantasyid.evaluation.identity import Judge
        from fantasyid.evaluation.motion import face_motion

    photo = read_photo(reference)
    frames, fps = read_video(video)
    with stage(console, "Looking for the person in every frame"):
        judge = Judge.builtin()
        embedding = judge.embed_reference(photo)
        track = judge.track(frames)
        scores = judge.score(embedding, track)
        motion = face_motion(frames, track.faces)
    if as_json:
        _print_json(
            {
                "reference": str(reference),
                "video": str(video),
                "fps": fps,
                **scores.model_dump(),
                "face_motion": motion,
                "same_person_distance": judge.recognizer.same_person_distance,
            }
        )
    else:
        _print_table(scores, motion, judge.recognizer.same_person_distance)


@evaluate_app.command()
def provenance(
    video: Annotated[Path, typer.Option(help="Video or picture to look at.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell whether VIDEO, or a picture, carries the invisible mark of videos made by FantasyID.

    Crops of up to 30 %, mirror images, quarter turns, and frames within a larger picture are searched too. Strong
    compression takes the mark away, so "not found" proves nothing: see docs/security.md.
    """
    check_input_file(video, "video")

    from fantasyid.core.mark_search import search_mark
    from fantasyid.core.provenance import declares_ai

    finding, declared = search_mark(_frames(video)), declares_ai(video)
    if as_json:
        _print_json(
            {
                "file": str(video),
                "marked": finding.found,
                "score": finding.score,
                "threshold": finding.threshold,
                "place": finding.place,
                "declared": declared,
            }
        )
    else:
        verdict = "Made by FantasyID" if finding.found else "No mark found"
        says = "says" if declared else "does not say"
        typer.echo(
            f"{verdict} ({finding.place}: score {finding.score:.1f}, found from {finding.threshold:g}). "
            f"The file's metadata {says} that it is AI-generated."
        )


def _frames(path: Path) -> "NDArray[np.uint8]":
    """Frames of a video, or a picture as one frame."""
    from fantasyid.core.errors import UnreadablePhotoError, UnreadableVideoError
    from fantasyid.core.imaging import read_photo
    from fantasyid.core.video import read_video

    try:
        return read_video(path)[0]
    except UnreadableVideoError as no_video:
        try:
            return read_photo(path)[None]
        except UnreadablePhotoError as no_picture:
            raise UnreadableVideoError(f"As a video: {no_video} As a picture: {no_picture}") from no_picture


def _print_json(content: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(content, indent=2, allow_nan=False))


def _print_table(scores: "IdentityScores", motion: float | None, same_person_distance: float) -> None:
    from rich.table import Table

    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.3f}"

    table = Table("measure", "value", "meaning", title=f"{scores.num_frames} frames")
    found = scores.num_frames - scores.frames_without_face
    table.add_row("face found", number(scores.detection_rate), f"{found} of {scores.num_frames} frames")
    table.add_row(
        "verified",
        number(scores.verification_rate),
        f"share of all frames within {same_person_distance:g} of the photo; frames without a face count as not",
    )
    table.add_row("median distance", number(scores.median_distance), "same person about 0.4, others about 0.85")
    table.add_row("RS", number(scores.reference_similarity), "photo and frames: same person about 0.8, others 0")
    table.add_row("IFS", number(scores.inter_frame_similarity), "consecutive frames; 1 = nothing changes")
    table.add_row("FM", number(motion), "mean optical flow over the face, in face widths per frame")
    Console().print(table)
