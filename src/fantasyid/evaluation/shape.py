"""What the face reader is worth, measured on people that nothing was trained on; each step writes OUT/STEP.json.

Commands, each begun with `python -m fantasyid.evaluation.shape`:
    calibrate --out OUT --manifest manifest.csv --photos DIR --also FILE
    pairs --out OUT --manifest manifest.csv --photos DIR --also FILE
    found --out OUT --manifest manifest.csv --photos DIR --also FILE
    render --out OUT --manifest manifest.csv --also FILE --rigs RIGS [RIGS ...]
    renders --out OUT
    false-faces --out OUT
    report --out OUT

The people are those of the split `val` and those of FILE (`configs/eval/shape-people.txt`: one id a line). RIGS come
from `python -m fantasyid.data.repose.prepare`, for both. `calibrate` learns OUT/signature.npz, a better distance of the
reader's shapes, from the other people with two photos; `render` writes OUT/renders.npz, which does not depend on the
reader. Make both again after changing the head model, and the first after changing the reader. `report` exits with 1
if a bar is missed or a step was not run.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.core.imaging import Photo, read_photo
from fantasyid.evaluation.faceless import faceless_pictures
from fantasyid.evaluation.report import ReportLine
from fantasyid.evaluation.shape_measures import (
    Pairs,
    ShapeSignature,
    area_under_curve,
    coefficients,
    face_vertices,
    mean_of,
    median_distance,
    median_of,
    nearest_is_same,
    ratio_of,
    report_line,
    shape_distance,
)
from fantasyid.evaluation.shape_renders import KnownRenders, make_renders
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.interface import FaceDetector
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import FaceReading
from fantasyid.geometry.head_model import HeadModel
from fantasyid.pipelines.builtin import MINI_FOLDER, load_component

MEASURES = ("pairs", "renders", "found", "false-faces")


@dataclass(frozen=True)
class Portrait:
    """A photo of a held-out person.

    Attributes:
        name: Such as `p0001_a`.
        person: Such as `p0001`.
        file: Relative to the photo folder.
        sex: As the manifest has it.
        face_box: xyxy pixels, of the landmarks.
    """

    name: str
    person: str
    file: str
    sex: str
    face_box: tuple[float, float, float, float]


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


def read_portraits(manifest: Path, also: Path) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
    """All photos of the held-out people, and those of the other people with two photos.

    Args:
        manifest: CSV with the columns id, person, file, sex, split and face_x0, face_y0, face_x1, face_y1.
        also: File of person ids, one a line, `#` before comments: held out beside the split `val`.

    Returns:
        Held-out photos and the others', in the manifest's order.

    Raises:
        InvalidRequestError: A file or a column is missing, or a person of `also` is not in the manifest.
    """
    for path in (manifest, also):
        if not path.is_file():
            raise InvalidRequestError(f"There is no file {path}; check the path.")
    lines = (line.strip() for line in also.read_text(encoding="utf-8").splitlines())
    listed = {line for line in lines if line and not line.startswith("#")}
    with manifest.open(newline="", encoding="utf-8") as file:
        try:
            rows = [(_portrait(row), row["split"]) for row in csv.DictReader(file)]
        except KeyError as error:
            raise InvalidRequestError(f"The manifest {manifest} has no column {error}.") from error
    held_out = tuple(portrait for portrait, split in rows if split == "val" or portrait.person in listed)
    people = {portrait.person for portrait in held_out}
    if missing := listed - people:
        raise InvalidRequestError(f"{manifest} lacks {len(missing)} people of {also}, such as {min(missing)}.")
    count = Counter(portrait.person for portrait, _ in rows)
    others = (portrait for portrait, _ in rows if portrait.person not in people and count[portrait.person] == 2)
    return held_out, tuple(others)


def calibrate(portraits: Sequence[Portrait], photos: Path, reader: FaceReader, head: HeadModel) -> ShapeSignature:
    """Learn the signature from photos that can be read, of people who are not held out."""
    read, kept = _read_all(portraits, photos, reader)
    _, person = np.unique([portrait.person for portrait in kept], return_inverse=True)
    return ShapeSignature.fit(coefficients(head, _vertices(read)), person.astype(np.int64))


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
        report_line("renders read", mean_of(kept.astype(np.float64), renders.person), count),
        *_separation(head, signature, vertices[~plain], tested, None, count, bar=0.95),
        report_line(
            "vertex error / mean head's", ratio_of(error_line, mean_of(mean_error, tested)), count, 0.6, "at most"
        ),
        report_line("vertex error, cm", error_line, count),
        *(
            report_line(f"{name} error, degrees, median", median_of(wrong_deg[:, axis], tested), count, 4.0, "at most")
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
            misses[portrait.name] = reading
        elif not _centre_inside(reading.face.box, portrait.face_box):
            misses[portrait.name] = "What was read is not the person's face."
    names, person = np.unique([portrait.person for portrait in portraits], return_inverse=True)
    hit = np.array([portrait.name not in misses for portrait in portraits], np.float64)
    line = report_line("found and read", mean_of(hit, person), len(names), 0.98, "at least")
    return ShapeReport(
        step="found", sample=f"{len(portraits)} photos of {len(names)} people", lines=(line,), remarks=misses
    )


def measure_false_faces(
    pictures: Iterable[tuple[str, NDArray[np.uint8]]], detector: FaceDetector, reader: FaceReader
) -> ShapeReport:
    """Faces found in pictures (name and RGB) without people; and pictures from which one is even read."""
    found: dict[str, int] = {}
    remarks: dict[str, str] = {}
    num_read = num_pictures = 0
    for name, picture in tqdm(pictures, desc="searching"):
        num_pictures += 1
        faces = detector.detect(picture)
        if faces:
            reading = _try_to_read(reader, picture)
            num_read += isinstance(reading, FaceReading)
            outcome = reading if isinstance(reading, str) else "and read"
            found[name] = len(faces)
            remarks[name] = f"{len(faces)} found, best score {max(face.score for face in faces):.2f}: {outcome}"
    lines = (
        ReportLine(name="false faces", value=sum(found.values()), low=None, high=None, bar=2, direction="at most"),
        ReportLine(name="pictures read as a face", value=num_read, low=None, high=None),
    )
    return ShapeReport(
        step="false-faces", sample=f"{num_pictures} pictures without people", lines=lines, remarks=remarks
    )


def print_report(reports: Sequence[ShapeReport], console: Console) -> None:
    """Print the tables, what went wrong under them."""
    for report in reports:
        table = Table("measure", "value", "95 % over people", "bar", "met", title=f"{report.step}: {report.sample}")
        for line in report.lines:
            interval = "" if line.low is None or line.high is None else f"{line.low:.3f} to {line.high:.3f}"
            bar = "" if line.bar is None else f"{line.direction} {line.bar:g}"
            met = {True: "yes", False: "[bold red]no[/]", None: ""}[line.met]
            table.add_row(line.name, "none" if line.value is None else f"{line.value:.3f}", interval, bar, met)
        console.print(table)
        for name, remark in report.remarks.items():
            console.print(f"  {name}: {remark}", markup=False, highlight=False)


def _separation(
    head: HeadModel,
    signature: ShapeSignature,
    vertices: torch.Tensor,
    person: NDArray[np.int64],
    sex: NDArray[np.str_] | None,
    count: int,
    bar: float,
) -> tuple[ReportLine, ...]:
    """How well heads (M,N,3) of people (M,) are told apart, by plain distance and by signature."""
    distance = shape_distance(vertices[:, face_vertices(head)], vertices[:, face_vertices(head)])
    by_signature = signature.distance(coefficients(head, vertices))
    learned = Pairs.of(by_signature, person)
    pairs = Pairs.of(distance, person)
    own, other = pairs.where(pairs.same), pairs.where(~pairs.same)
    lines = [
        report_line("AUC, plain distance", area_under_curve(pairs), count, bar, "at least"),
        report_line("AUC, signature", area_under_curve(learned), count),
    ]
    if sex is not None:
        row, column = np.triu_indices(len(person), 1)
        alike = sex[row] == sex[column]
        lines += [
            report_line("AUC, plain distance, one sex", area_under_curve(pairs.where(alike)), count),
            report_line("AUC, signature, one sex", area_under_curve(learned.where(alike)), count),
        ]
    return (
        *lines,
        report_line("rank 1, plain distance", nearest_is_same(distance, person), count),
        report_line("rank 1, signature", nearest_is_same(by_signature, person), count),
        report_line("distance of one person, cm, median", median_of(own.distance, own.first), count),
        report_line("distance of two people, cm, median", median_distance(other), count),
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
        lines.append(report_line(name, ratio_of(moved, between), count, bar, "at most" if bar else None))
    return lines


def _portrait(row: dict[str, str]) -> Portrait:
    x0, y0, x1, y1 = (float(row[f"face_{edge}"]) for edge in ("x0", "y0", "x1", "y1"))
    return Portrait(row["id"], row["person"], row["file"], row["sex"], (x0, y0, x1, y1))


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


def _collect(out: Path) -> list[ShapeReport]:
    """All reports in a folder; a step that was not run is a report whose bar is missed."""
    reports = []
    for step in MEASURES:
        path = out / f"{step}.json"
        if path.is_file():
            reports.append(ShapeReport.model_validate_json(path.read_bytes()))
        else:
            line = ReportLine(name="not run", value=None, low=None, high=None, bar=0, direction="at least")
            reports.append(ShapeReport(step=step, sample="nothing", lines=(line,), remarks={}))
    return reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step from the command line.

    Returns:
        The exit code: 0 done, 1 `report` has a bar that is missed, 2 bad input.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    parsers = {name: steps.add_parser(name) for name in ("calibrate", *MEASURES, "render", "report")}
    for step in parsers.values():
        step.add_argument("--out", type=Path, required=True, help="folder of the results")
    for name in ("calibrate", *MEASURES):
        parsers[name].add_argument("--model", type=Path, default=MINI_FOLDER, help="packed model with the face reader")
    for name in ("calibrate", "pairs", "found", "render"):
        parsers[name].add_argument("--manifest", type=Path, required=True, help="CSV of the portraits")
        parsers[name].add_argument("--also", type=Path, required=True, help="people held out beside the split val")
        parsers[name].add_argument("--people", type=int, help="only the first so many people, for a quick look")
    for name in ("calibrate", "pairs", "found"):
        parsers[name].add_argument("--photos", type=Path, required=True, help="folder the manifest's files are in")
    parsers["render"].add_argument("--rigs", type=Path, nargs="+", required=True, help="files of repose.prepare")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except FantasyIDError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _of_first_people(portraits: tuple[Portrait, ...], count: int | None) -> tuple[Portrait, ...]:
    chosen = sorted({portrait.person for portrait in portraits})[:count]
    return tuple(portrait for portrait in portraits if portrait.person in chosen)


def _run(options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    if options.step == "report":
        reports = _collect(options.out)
        print_report(reports, Console())
        return int(any(line.met is False for report in reports for line in report.lines))
    held_out: tuple[Portrait, ...] = ()
    others: tuple[Portrait, ...] = ()
    if hasattr(options, "manifest"):
        held_out, others = (
            _of_first_people(portraits, options.people) for portraits in read_portraits(options.manifest, options.also)
        )
    if options.step == "render":
        people = sorted({portrait.person for portrait in held_out})
        make_renders(options.rigs, people).save(options.out / "renders.npz")
        return 0
    head = HeadModel.load()
    reader = FaceReader(load_component(options.model, "face_reader_model"))
    signature = options.out / "signature.npz"
    if options.step == "calibrate":
        calibrate(others, options.photos, reader, head).save(signature, head)
        return 0
    if options.step == "pairs":
        report = measure_pairs(held_out, options.photos, reader, head, ShapeSignature.load(signature, head))
    elif options.step == "renders":
        renders = KnownRenders.load(options.out / "renders.npz", head)
        report = measure_renders(renders, reader, head, ShapeSignature.load(signature, head))
    elif options.step == "found":
        report = measure_found(held_out, options.photos, reader)
    else:
        report = measure_false_faces(faceless_pictures(), DlibFaceDetector(), reader)
    (options.out / f"{options.step}.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    print_report([report], Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
