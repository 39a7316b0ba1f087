"""What the face reader is worth, measured on people that nothing was trained on; each step writes OUT/STEP.json.

Commands, each begun with `python -m fantasyid.evaluation.reader.run`:
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
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import FantasyIDError
from fantasyid.core.output_files import write_file
from fantasyid.data.portraits import Portrait
from fantasyid.evaluation.reader.faceless import faceless_pictures
from fantasyid.evaluation.reader.measures import ShapeSignature
from fantasyid.evaluation.reader.portraits import of_first_people, read_portraits
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
            of_first_people(portraits, options.people) for portraits in read_portraits(options.manifest, options.also)
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
    write_file(options.out / f"{options.step}.json", (report.model_dump_json(indent=2) + "\n").encode())
    print_report([report], Console())
    return 0


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
    sys.exit(main())
