"""The measures of `fantasyid evaluate reader`: what the face reader says of photos and renders, as a report each."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.core.imaging import Photo, read_photo
from fantasyid.core.portraits import Portrait
from fantasyid.evaluation.reader.measures import (
    Pairs,
    ShapeSignature,
    area_under_curve,
    coefficients,
    cosine_distance,
    face_vertices,
    mean_of,
    median_distance,
    median_of,
    nearest_is_same,
    ratio_of,
    shape_distance,
    shape_line,
)
from fantasyid.evaluation.reader.renders import KnownRenders
from fantasyid.evaluation.statistics import ReportLine
from fantasyid.face.interface import FaceDetector
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import FaceReading
from fantasyid.geometry.head_model import HeadModel

MEASURES = ("pairs", "renders", "found", "false-faces")


class ShapeReport(BaseModel):
    """The result of one step.

    Attributes:
        step: One of `MEASURES`.
        sample: What was measured, in words.
        lines: The numbers.
        remarks: What went wrong, by picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    sample: str
    lines: tuple[ReportLine, ...]
    remarks: dict[str, str]


def calibrate(portraits: Sequence[Portrait], photos: Path, reader: FaceReader, head: HeadModel) -> ShapeSignature:
    """Learn the signature from photos that can be read, of people who are not held out."""
    return ShapeSignature.fit(*read_identities(portraits, photos, reader, head))


def read_identities(
    portraits: Sequence[Portrait], photos: Path, reader: FaceReader, head: HeadModel
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Read the shapes in photos, leaving out those that cannot be read.

    Args:
        portraits: Which photos.
        photos: Folder they are in.
        reader: The face reader.
        head: The head model.

    Returns:
        Identity coefficients (A,K), and the person of each (A,), numbered from 0.

    Raises:
        InvalidRequestError: None can be read.
    """
    read, kept = _read_all(portraits, photos, reader)
    _, person = np.unique([portrait.person for portrait in kept], return_inverse=True)
    return coefficients(head, _vertices(read)), person.astype(np.int64)


def measure_pairs(
    portraits: Sequence[Portrait], photos: Path, reader: FaceReader, head: HeadModel, signature: ShapeSignature
) -> ShapeReport:
    """Whether neutral heads alone tell people apart: all pairs of two photos, of one person and of two.

    Photos that cannot be read are left out; `measure_found` counts and names them.
    """
    read, kept = _read_all(portraits, photos, reader)
    names, person = np.unique([portrait.person for portrait in kept], return_inverse=True)
    sex = np.array([portrait.sex for portrait in kept])
    lines = _separation(head, signature, _vertices(read), person.astype(np.int64), sex, len(names), bar=0.94)
    paired = int((np.bincount(person) > 1).sum())
    return ShapeReport(
        step="pairs",
        sample=f"{len(kept)} of {len(portraits)} photos, {len(names)} people, {paired} of them with two photos",
        lines=lines,
        remarks={},
    )


def measure_renders(
    renders: KnownRenders, reader: FaceReader, head: HeadModel, signature: ShapeSignature
) -> ShapeReport:
    """Shape, pose and neutrality against known answers.

    Errors and distances are of the skin of the face. Neutrality is the median distance between the heads read from one
    person's four plain renders, as a share of the median distance between two people's heads READ from such renders: a
    reader that always answers the mean head gains nothing by it.
    """
    read = [_try_to_read(reader, frame) for frame in tqdm(renders.frames, desc="reading")]
    kept = np.array([isinstance(reading, FaceReading) for reading in read])
    readings = [reading for reading in read if isinstance(reading, FaceReading)]
    if not readings:
        raise InvalidRequestError("No face was read in any render; look at them, and check the face reader.")
    vertices = _vertices(readings)
    person, plain, count = renders.person[kept], renders.plain[kept], len(renders.names)
    poses = [reading.head.pose for reading in readings]
    angles = np.array([(pose.yaw_deg, pose.pitch_deg, pose.roll_deg) for pose in poses])
    wrong_deg = np.abs(angles - renders.angles_deg[kept])[~plain]
    region = face_vertices(head)
    truth = torch.from_numpy(renders.vertices)[person]
    error = (vertices - truth)[:, region].norm(dim=-1).mean(1).double().numpy()[~plain]
    mean_error = (head.mean - truth)[:, region].norm(dim=-1).mean(1).double().numpy()[~plain]
    tested = person[~plain]
    error_line = mean_of(error, tested)
    lines = [
        shape_line("renders read", mean_of(kept.astype(np.float64), renders.person), count),
        *_separation(head, signature, vertices[~plain], tested, None, count, bar=0.95),
        shape_line(
            "vertex error / mean head's", ratio_of(error_line, mean_of(mean_error, tested)), count, 0.6, "at most"
        ),
        shape_line("vertex error, cm", error_line, count),
        *(
            shape_line(f"{name} error, degrees, median", median_of(wrong_deg[:, axis], tested), count, 4.0, "at most")
            for axis, name in enumerate(("yaw", "pitch", "roll"))
        ),
        *_neutrality(vertices[plain][:, region], person[plain], renders.expression[kept][plain], angles[plain], count),
    ]
    failed = {
        f"{renders.names[owner]}, {expression}, yaw {yaw_deg:.0f}": reading
        for owner, expression, yaw_deg, reading in zip(
            renders.person, renders.expression, renders.angles_deg[:, 0], read, strict=True
        )
        if isinstance(reading, str)
    }
    return ShapeReport(
        step="renders", sample=f"{len(read)} renders of {count} people", lines=tuple(lines), remarks=failed
    )


def measure_found(portraits: Sequence[Portrait], photos: Path, reader: FaceReader) -> ShapeReport:
    """In which share of portraits the right face is found and read; a face beside the person's own is a miss."""
    misses: dict[str, str] = {}
    for portrait in tqdm(portraits, desc="reading"):
        reading = _try_to_read(reader, photos / portrait.file)
        if isinstance(reading, str):
            misses[portrait.id] = reading
        elif not _centre_inside(reading.face.box, portrait.face_box):
            misses[portrait.id] = "What was read is not the person's face."
    names, person = np.unique([portrait.person for portrait in portraits], return_inverse=True)
    hit = np.array([portrait.id not in misses for portrait in portraits], np.float64)
    line = shape_line("found and read", mean_of(hit, person), len(names), 0.98, "at least")
    return ShapeReport(
        step="found", sample=f"{len(portraits)} photos of {len(names)} people", lines=(line,), remarks=misses
    )


def measure_false_faces(
    pictures: Iterable[tuple[str, NDArray[np.uint8]]], detector: FaceDetector, reader: FaceReader
) -> ShapeReport:
    """Faces found in pictures (name and RGB) without people; and pictures from which one is even read."""
    remarks: dict[str, str] = {}
    num_found = num_read = num_pictures = 0
    for name, picture in tqdm(pictures, desc="searching"):
        num_pictures += 1
        faces = detector.detect(picture)
        if faces:
            reading = _try_to_read(reader, picture)
            num_read += isinstance(reading, FaceReading)
            outcome = reading if isinstance(reading, str) else "and read"
            num_found += len(faces)
            remarks[name] = f"{len(faces)} found, best score {max(face.score for face in faces):.2f}: {outcome}"
    lines = (
        ReportLine(name="false faces", value=num_found, low=None, high=None, bar=2, direction="at most"),
        ReportLine(name="pictures read as a face", value=num_read, low=None, high=None),
    )
    return ShapeReport(
        step="false-faces", sample=f"{num_pictures} pictures without people", lines=lines, remarks=remarks
    )


def _separation(
    head: HeadModel,
    signature: ShapeSignature,
    vertices: torch.Tensor,
    person: NDArray[np.int64],
    sex: NDArray[np.str_] | None,
    count: int,
    bar: float,
) -> tuple[ReportLine, ...]:
    """How well heads (M,N,3) of people (M,) are told apart: by coefficients, by signature, and by distance in cm.

    The bar is held by the coefficients, as what it was set by: landmark fits reached 0.894 with theirs.
    """
    identity, face = coefficients(head, vertices), vertices[:, face_vertices(head)]
    distances = {
        "coefficients": cosine_distance(identity),
        "signature": signature.distance(identity),
        "distance in cm": shape_distance(face, face),
    }
    row, column = np.triu_indices(len(person), 1)
    lines = []
    for name, distance in distances.items():
        pairs = Pairs.of(distance, person)
        target = (bar, "at least") if name == "coefficients" else (None, None)
        lines.append(shape_line(f"AUC, {name}", area_under_curve(pairs), count, *target))
        if sex is not None:
            alike = pairs.where(sex[row] == sex[column])
            lines.append(shape_line(f"AUC, {name}, one sex", area_under_curve(alike), count))
        lines.append(shape_line(f"rank 1, {name}", nearest_is_same(distance, person), count))
    in_cm = Pairs.of(distances["distance in cm"], person)
    own, other = in_cm.where(in_cm.same), in_cm.where(~in_cm.same)
    return (
        *lines,
        shape_line("distance of one person, cm, median", median_of(own.distance, own.first), count),
        shape_line("distance of two people, cm, median", median_distance(other), count),
    )


def _neutrality(
    vertices: torch.Tensor,
    person: NDArray[np.int64],
    expression: NDArray[np.str_],
    angles: NDArray[np.float64],
    count: int,
) -> list[ReportLine]:
    """Movement of the neutral vertices as a share of the distance between people: altogether, by mouth, by yaw."""
    pairs = Pairs.of(shape_distance(vertices, vertices), person)
    between = median_distance(pairs)
    row, column = np.triu_indices(len(person), 1)
    same_mouth = expression[row] == expression[column]
    same_side = (angles[row, 0] > 0) == (angles[column, 0] > 0)
    everything = np.ones(len(row), bool)
    kinds = (
        ("movement / distance of people", everything, 0.25),
        ("the same, by the mouth alone", same_side & ~same_mouth, None),
        ("the same, by yaw alone", same_mouth & ~same_side, None),
    )
    lines = []
    for name, chosen, bar in kinds:
        own = pairs.where(chosen & pairs.same)
        moved = median_of(own.distance, own.first)
        lines.append(shape_line(name, ratio_of(moved, between), count, bar, "at most" if bar else None))
    return lines


def _read_all(
    portraits: Sequence[Portrait], photos: Path, reader: FaceReader
) -> tuple[list[FaceReading], list[Portrait]]:
    """The readings of the portraits that can be read, and those portraits."""
    read = [_try_to_read(reader, photos / portrait.file) for portrait in tqdm(portraits, desc="reading")]
    both = [(r, p) for p, r in zip(portraits, read, strict=True) if isinstance(r, FaceReading)]
    if not both:
        raise InvalidRequestError(f"No face was read in {len(portraits)} photos in {photos}; check the face reader.")
    return [reading for reading, _ in both], [portrait for _, portrait in both]


def _vertices(readings: Sequence[FaceReading]) -> torch.Tensor:
    return torch.stack([reading.head.vertices for reading in readings]).float().cpu()


def _try_to_read(reader: FaceReader, photo: Photo) -> FaceReading | str:
    """The reading, or in one sentence why there is none."""
    try:
        return reader.read(read_photo(photo) if isinstance(photo, Path) else photo)
    except FantasyIDError as error:
        return f"{type(error).__name__}: {error}"


def _centre_inside(box: tuple[float, float, float, float], area: tuple[float, float, float, float]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return area[0] <= x <= area[2] and area[1] <= y <= area[3]
