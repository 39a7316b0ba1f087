"""`fantasyid evaluate`: how well a video shows the person in a photo, and whether it carries the provenance mark."""

from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fantasyid.cli.progress import ConsoleProgress
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file

# The libraries behind take seconds to import; the functions below import them, so that --help doesn't.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fantasyid.core.credentials import Credentials

IDENTITY_METRICS = (
    *("detection_rate", "verification_rate", "median_distance"),
    *("reference_similarity", "inter_frame_similarity", "face_motion"),
)
ARCFACE_FOLDER = Path("~/.insightface/models/antelopev2")


class Recognizer(StrEnum):
    """Who tells people apart."""

    dlib = "dlib"
    arcface = "arcface"


class Protocol(StrEnum):
    """Whose numbers are wanted."""

    own = "own"
    consisid = "consisid-compat"
    opens2v = "opens2v-compat"


evaluate_app = typer.Typer(help="Measure videos.", no_args_is_help=True, rich_markup_mode="rich")


@evaluate_app.command()
def identity(
    reference: Annotated[Path, typer.Option(help="Photo of the person.")],
    video: Annotated[Path, typer.Option(help="Video to judge, whoever made it; its largest face counts.")],
    face: Annotated[
        int | None, typer.Option(min=0, help="Which face of the photo, 0 being the largest. Default: 0.")
    ] = None,
    recognizer: Annotated[
        Recognizer, typer.Option(help="The judge: dlib's ResNet, or insightface's ArcFace (not for commercial use).")
    ] = Recognizer.dlib,
    arcface_folder: Annotated[
        Path | None, typer.Option(help=f"Folder of insightface's two models. Default: {ARCFACE_FOLDER}.")
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="Our numbers, or those of ConsisID's or OpenS2V's code with its defects, by ArcFace."),
    ] = Protocol.own,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure how well VIDEO shows the person in REFERENCE: RS, IFS, FM, faces found, frames verified.

    The judge is dlib's face recogniser (pip install 'fantasyid\\[eval]') or ArcFace (fantasyid\\[face] and a download).

    [bold]Example[/bold]

      fantasyid evaluate identity --reference photo.jpg --video smile.mp4
    """
    check_input_file(reference, "photo")
    check_input_file(video, "video")
    if arcface_folder is not None and recognizer is not Recognizer.arcface:
        raise InvalidRequestError("--arcface-folder is for --recognizer arcface; give that too, or leave it out.")
    progress = ConsoleProgress()
    if protocol is not Protocol.own:
        if recognizer is not Recognizer.arcface or face is not None:
            raise InvalidRequestError(
                f"--protocol {protocol.value} takes ArcFace and the largest face; give --recognizer arcface, and no "
                "--face."
            )
        _print_peers(reference, video, protocol, arcface_folder or ARCFACE_FOLDER, as_json)
        return
    with progress.stage("Starting"):
        from fantasyid.evaluation.identity import Judge
        from fantasyid.evaluation.metrics.interface import value_of_one
        from fantasyid.evaluation.metrics.median_distance import frame_distances
        from fantasyid.evaluation.metrics.registry import metric_of
        from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo

    with progress.stage("Looking for the person in every frame"):
        judge = Judge.builtin() if recognizer is Recognizer.dlib else Judge.arcface(arcface_folder or ARCFACE_FOLDER)
        instruments = Instruments.load(judge)
        person = Reference.read(reference, instruments, face)
        seen = SeenVideo.open(video, instruments)
        values = {key: value_of_one(metric_of(key), seen, person) for key in IDENTITY_METRICS}
    limit, missed = judge.recognizer.same_person_distance, sum(found is None for found in seen.faces)
    if as_json:
        _print_json(
            {
                "reference": str(reference),
                "video": str(video),
                "recognizer": recognizer.value,
                "fps": seen.fps,
                "num_frames": len(seen.faces),
                "frames_without_face": missed,
                **values,
                "distances": frame_distances(seen, person),
                "same_person_distance": limit,
            }
        )
    else:
        _print_table(values, len(seen.faces), missed, limit, recognizer)


@evaluate_app.command()
def provenance(
    video: Annotated[Path, typer.Option(help="Video or picture to look at.")],
    known: Annotated[
        Path | None,
        typer.Option(help="PEM file with certificates of signers you know, beside this computer's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell whether VIDEO, or a picture, carries FantasyID's invisible mark, and what its signed credentials say.

    Crops of up to 30 %, mirror images, quarter turns, and frames within a larger picture are searched for the mark too.
    Strong compression takes it away, and most sites drop credentials, so "none" proves nothing: see docs/security.md.
    """
    check_input_file(video, "video")

    from fantasyid.core.credentials import known_certificates, read_credentials
    from fantasyid.core.mark_search import search_mark
    from fantasyid.core.provenance import declares_ai

    credentials = None
    if known is not None or find_spec("c2pa") is not None:
        credentials = read_credentials(video, known_certificates(known))
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
                "credentials": None if credentials is None else asdict(credentials),
            }
        )
    else:
        verdict = "Made by FantasyID" if finding.found else "No mark found"
        says = "says" if declared else "does not say"
        typer.echo(
            f"{verdict} ({finding.place}: score {finding.score:.1f}, found from {finding.threshold:g}). "
            f"The file's metadata {says} that it is AI-generated."
        )
        typer.echo(f"Signed credentials: {_said_of(credentials)}")


def _said_of(credentials: "Credentials | None") -> str:
    """One sentence on what was read of a file's credentials; None is not read."""
    if credentials is None:
        return "not looked for; install what reads them with: pip install 'fantasyid[c2pa]'"
    if credentials.state == "tampered":
        return "tampered: the file was changed after it was signed, or they are from another one."
    if credentials.state == "absent":
        return "none."
    # Their words may come from anyone; a terminal obeys some characters.
    signer, program = ascii(credentials.signer), ascii(credentials.made_by)
    party = "a known party" if credentials.state == "valid" else "an unknown party, who may be anybody"
    says = "says" if credentials.ai_generated else "does not say"
    return (
        f"valid, signed by {party} ({signer}): unchanged since. It {says} that a trained model made it; its program is "
        f"{program}."
    )


def _print_peers(reference: Path, video: Path, protocol: Protocol, arcface_folder: Path, as_json: bool) -> None:
    from fantasyid.core.imaging import read_photo
    from fantasyid.core.video import read_video
    from fantasyid.evaluation.identity import Judge
    from fantasyid.evaluation.peers import PROTOCOLS

    judge = Judge.arcface(arcface_folder)
    numbers = PROTOCOLS[protocol.value](judge, read_photo(reference), list(read_video(video)[0]))
    if as_json:
        _print_json({"reference": str(reference), "video": str(video), "protocol": protocol.value, **numbers})
        return
    shown = ", ".join(f"{name} {'none' if value is None else f'{value:.4f}'}" for name, value in numbers.items())
    typer.echo(f"{protocol.value} ({judge.name}): {shown}. These are the peers' numbers with their defects, not ours.")


def _frames(path: Path) -> "Iterable[NDArray[np.uint8]]":
    """Frames of a video, or a picture as one frame."""
    from fantasyid.core.errors import UnreadablePhotoError, UnreadableVideoError
    from fantasyid.core.imaging import read_photo
    from fantasyid.core.video import open_video

    try:
        return open_video(path).frames()
    except UnreadableVideoError as no_video:
        try:
            return [read_photo(path)]
        except UnreadablePhotoError as no_picture:
            raise UnreadableVideoError(f"As a video: {no_video} As a picture: {no_picture}") from no_picture


def _print_json(content: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(content, indent=2, allow_nan=False))


def _print_table(
    values: dict[str, float | None], num_frames: int, missed: int, same_person_distance: float, recognizer: Recognizer
) -> None:
    from rich.table import Table

    distance, similarity = {
        Recognizer.dlib: ("same person about 0.4, others about 0.85", "same person about 0.8, others 0"),
        Recognizer.arcface: ("1 minus the cosine; others about 1", "mean cosine; others about 0"),
    }[recognizer]
    near = f"share of all frames within {same_person_distance:g} of the photo; frames without a face count as not"
    meanings = {
        "detection_rate": ("face found", f"{num_frames - missed} of {num_frames} frames"),
        "verification_rate": ("verified", near),
        "median_distance": ("median distance", distance),
        "reference_similarity": ("RS", f"photo and frames: {similarity}"),
        "inter_frame_similarity": ("IFS", "consecutive frames; 1 = nothing changes"),
        "face_motion": ("FM", "mean optical flow over the face, in face widths per frame"),
    }
    table = Table("measure", "value", "meaning", title=f"{num_frames} frames")
    for key, (name, meaning) in meanings.items():
        value = values[key]
        table.add_row(name, "none" if value is None else f"{value:.3f}", meaning)
    Console().print(table)
