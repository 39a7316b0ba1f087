"""Judge a folder of generated frames.

The second half of the evaluation; the first (`fantasyid.evaluation.generate`) left one `.npz` a video. Every video's
judgement is kept, so an interrupted run goes on where it stopped, and a video generated anew is judged anew.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.imaging import read_photo
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import write_file, write_together
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.motion import face_motion, measure_actions
from fantasyid.evaluation.protocol import (
    MODES,
    REPOSED,
    EvaluationRow,
    Person,
    evaluation_rows,
    load_frames,
    shuffled_reference,
)
from fantasyid.evaluation.report import MADE_BY, EvaluationReport, VideoJudgement, build_report, to_markdown
from fantasyid.face.landmarks import LandmarkReader

logger = logging.getLogger(__name__)


def judge_folder(
    people: tuple[Person, ...], photos: Path, frames: Path, out: Path, model: Path = MINI_FOLDER, num_workers: int = 1
) -> EvaluationReport:
    """Judge every mode whose folder exists, and write `report.json` and `report.md`.

    Args:
        people: From `read_people`; at least two.
        photos: Folder the people's photos are relative to.
        frames: Folder the rows' files are relative to.
        out: Folder for the report and the single judgements. Judgements of another
            version of the judge are refused.
        model: Packed model whose face reader measures the actions.
        num_workers: Processes.

    Returns:
        The report.

    Raises:
        InvalidRequestError: No mode has a folder, or a video of a mode is missing, or a kept judgement is of another
            version of the judge.
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
    """Judge some rows in this process, skipping those judged before; arguments as in `judge_folder`."""
    judge = Judge.builtin()
    reader = LandmarkReader(load_component(model, "face_reader_model"))
    references = {person.name: judge.embed_reference(read_photo(photos / person.photo)) for person in people}
    others = shuffled_reference(people)
    judgements = []
    for index, row in enumerate(rows):
        person, other = row.person.name, others[row.person.name].name
        path, kept = frames / row.file, out / "judged" / row.file.with_suffix(".json")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        judgement = _kept_judgement(kept, out / "judged") if kept.is_file() else None
        if judgement is None or (judgement.frames_sha256, judgement.shuffled_person) != (digest, other):
            images, _ = load_frames(path)
            track = judge.track(images)
            judgement = VideoJudgement(
                made_by=MADE_BY,
                person=person,
                shuffled_person=other,
                mode=row.mode,
                prompt_key=row.prompt_key,
                frames_sha256=digest,
                identity=judge.score(references[person], track),
                shuffled=judge.score(references[other], track),
                face_motion=face_motion(images, track.faces),
                actions=measure_actions(images, track.faces, reader),
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_file(kept, judgement.model_dump_json().encode())
        judgements.append(judgement)
        logger.info("%d of %d: %s, verified %.2f", index + 1, len(rows), row.file, judgement.identity.verification_rate)
    return judgements


def _kept_judgement(path: Path, folder: Path) -> VideoJudgement:
    """Read a judgement that was kept; one of another version of the judge is not mixed with ours."""
    remedy = f"remove {folder} to judge again, or give another folder for the report."
    try:
        content = json.loads(path.read_bytes())
        made_by = content.get("made_by", "an earlier version") if isinstance(content, dict) else "something else"
        if made_by != MADE_BY:
            raise InvalidRequestError(f"{path} was judged by {made_by}, not by {MADE_BY}; {remedy}")
        return VideoJudgement.model_validate(content)
    except ValueError as error:  # JSON's, Unicode's and pydantic's
        raise InvalidRequestError(f"{path} is damaged and holds no judgement; {remedy}") from error


if __name__ == "__main__":
    tell_new_command("fantasyid.evaluation.judge", "fantasyid evaluate judge")
