"""The steps of `fantasyid evaluate reader`: what the face reader is worth, each written to OUT/STEP.json.

`calibrate` writes OUT/signature.npz, a better distance of the reader's shapes, and `render` OUT/renders.npz, which does
not depend on the reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import write_file
from fantasyid.core.portraits import FACE_BOX, Portrait, held_out_and_others, read_portraits
from fantasyid.evaluation.reader.faceless import faceless_pictures
from fantasyid.evaluation.reader.measures import ShapeSignature
from fantasyid.evaluation.reader.renders import KnownRenders, make_renders
from fantasyid.evaluation.reader.steps import (
    MEASURES,
    ShapeReport,
    calibrate,
    measure_false_faces,
    measure_found,
    measure_pairs,
    measure_renders,
)
from fantasyid.evaluation.statistics import ReportLine
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.head_model import HeadModel


@dataclass(frozen=True)
class HeldOut:
    """Which people are measured, and which are not.

    Attributes:
        portraits: Folder with manifest.csv and the photos.
        leave_out: File of person ids, held out beside the split `val`.
        first: Only the first so many people; None is all.
    """

    portraits: Path
    leave_out: Path
    first: int | None = None

    def read(self) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
        """The photos of the held-out people, and those of the other people with two photos."""
        portraits = read_portraits(self.portraits / "manifest.csv", ("sex", *FACE_BOX))
        held_out, others = held_out_and_others(portraits, self.leave_out)
        return _of_first_people(held_out, self.first), _of_first_people(others, self.first)


def _of_first_people(portraits: tuple[Portrait, ...], count: int | None) -> tuple[Portrait, ...]:
    """The photos of the first `count` people by name; of all if that is None."""
    chosen = sorted({portrait.person for portrait in portraits})[:count]
    return tuple(portrait for portrait in portraits if portrait.person in chosen)


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


def run_step(
    step: str, out: Path, people: HeldOut | None = None, rigs: tuple[Path, ...] = (), model: Path = MINI_FOLDER
) -> bool:
    """Run one step.

    Args:
        step: `"calibrate"`, `"render"`, one of `MEASURES`, or `"report"`.
        out: Folder of the results.
        people: For calibrate, pairs, found and render.
        rigs: Files of `fantasyid data rigs`, for render.
        model: Packed model with the face reader.

    Returns:
        Whether a bar is missed, which `report` alone tells.

    Raises:
        FantasyIDError: A file is missing or damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    if step == "report":
        reports = _collect(out)
        print_report(reports, Console())
        return any(line.met is False for report in reports for line in report.lines)
    held_out, others = ((), ()) if people is None else people.read()
    if step == "render":
        make_renders(rigs, sorted({portrait.person for portrait in held_out})).save(out / "renders.npz")
        return False
    photos = Path() if people is None else people.portraits
    head = HeadModel.load()
    network = load_component(model, "face_reader_model")
    reader = FaceReader(network)
    signature = out / "signature.npz"
    if step == "calibrate":
        calibrate(others, photos, reader, head).save(signature, head, network)
        return False
    if step == "pairs":
        report = measure_pairs(held_out, photos, reader, head, ShapeSignature.load(signature, head, network))
    elif step == "renders":
        renders = KnownRenders.load(out / "renders.npz", head)
        report = measure_renders(renders, reader, head, ShapeSignature.load(signature, head, network))
    elif step == "found":
        report = measure_found(held_out, photos, reader)
    else:
        report = measure_false_faces(faceless_pictures(), DlibFaceDetector(), reader)
    write_file(out / f"{step}.json", (report.model_dump_json(indent=2) + "\n").encode())
    print_report([report], Console())
    return False


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


if __name__ == "__main__":
    tell_new_command("fantasyid.evaluation.reader.run", "fantasyid evaluate reader")
