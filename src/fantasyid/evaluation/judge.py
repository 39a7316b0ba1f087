"""Judge a folder of generated frames.

The second half of the evaluation; the first (`fantasyid.evaluation.generate`) left one `.npz` a video. Every video's
judgement is kept, so an interrupted run goes on where it stopped, and what was made of something else is judged anew.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from fantasyid.checkpoints.builtin import MINI_FOLDER
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import write_file, write_together
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.kept import measure_all, read_kept
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.protocol import (
    MODES,
    REPOSED,
    EvaluationRow,
    Person,
    evaluation_rows,
    load_frames,
    shuffled_reference,
)
from fantasyid.evaluation.report import SHUFFLED, EvaluationReport, VideoJudgement, build_report, to_markdown
from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo

logger = logging.getLogger(__name__)


def judge_folder(
    people: tuple[Person, ...], photos: Path, frames: Path, out: Path, model: Path = MINI_FOLDER, num_workers: int = 1
) -> EvaluationReport:
    """Judge every mode whose folder exists, and write `report.json` and `report.md`.

    Args:
        people: From `read_people`; at least two.
        photos: Folder the people's photos are relative to.
        frames: Folder the rows' files are relative to.
        out: Folder for the report and the single judgements. What was judged before counts where it is of the same
            video and photo, by the same judge, networks and code; anything else is judged anew.
        model: Packed model whose face reader measures the actions.
        num_workers: Processes.

    Returns:
        The report.

    Raises:
        InvalidRequestError: No mode has a folder, or a video of a mode is missing.
    """
    modes = tuple(mode for mode in (*MODES, REPOSED) if (frames / mode.name).is_dir())
    if not modes:
        raise InvalidRequestError(f"{frames} has none of the folders {', '.join(mode.name for mode in MODES)}.")
    rows = list(evaluation_rows(people, modes))
    missing = [row.file for row in rows if not (frames / row.file).is_file()]
    if missing:
        raise InvalidRequestError(f"{len(missing)} of {len(rows)} videos are missing in {frames}, first {missing[0]}.")
    if num_workers == 1:
        judgements = judge_rows(rows, people, photos, frames, out, model)
    else:
        batches = [rows[start::num_workers] for start in range(num_workers)]
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(judge_rows, batch, people, photos, frames, out, model) for batch in batches]
            judgements = [judgement for future in futures for judgement in future.result()]
    report = build_report(sorted(judgements, key=lambda judgement: (judgement.person, judgement.mode)))
    with write_together([out / "report.json", out / "report.md"], overwrite=True) as (numbers, table):
        numbers.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        table.write_text(to_markdown(report), encoding="utf-8")
    return report


def judge_rows(
    rows: Sequence[EvaluationRow], people: tuple[Person, ...], photos: Path, frames: Path, out: Path, model: Path
) -> list[VideoJudgement]:
    """Judge some rows in this process, but for what was judged before; arguments as in `judge_folder`."""
    instruments = Instruments.load(Judge.builtin(), model)
    references = {person.name: Reference.read(photos / person.photo, instruments) for person in people}
    others = shuffled_reference(people)
    judgements = []
    for index, row in enumerate(rows):
        path, place = frames / row.file, out / "judged" / row.file.with_suffix(".json")
        kept = read_kept(place, VideoJudgement)
        judgement = _judge(row, path, instruments, references, others[row.person.name].name, kept)
        if judgement != kept:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_file(place, judgement.model_dump_json().encode())
        judgements.append(judgement)
        logger.info("%d of %d: %s", index + 1, len(rows), row.file)
    return judgements


def _judge(
    row: EvaluationRow,
    path: Path,
    instruments: Instruments,
    references: Mapping[str, Reference],
    other: str,
    kept: VideoJudgement | None,
) -> VideoJudgement:
    """Measure one row's video against the person's photo and against somebody else's."""
    images, fps = load_frames(path)
    video = SeenVideo(lambda: images, fps, instruments, file_sha256(path), row.asks)
    own, shuffled = references[row.person.name], references[other]
    return VideoJudgement(
        recognizer=instruments.judge.name,
        person=row.person.name,
        shuffled_person=other,
        mode=row.mode,
        prompt_key=row.prompt_key,
        measured=measure_all(all_metrics(), video, own, kept.measured if kept else {}),
        shuffled=measure_all(SHUFFLED, video, shuffled, kept.shuffled if kept else {}),
    )


if __name__ == "__main__":
    tell_new_command("fantasyid.evaluation.judge", "fantasyid evaluate judge")
