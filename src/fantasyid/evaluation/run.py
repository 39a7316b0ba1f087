"""Make and judge the videos of an evaluation; what is there of the same things is not made again."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.output_files import make_folder, write_file
from fantasyid.evaluation.clip import Clip
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.inception import Inception
from fantasyid.evaluation.kept import KeptMeasurement, Sha256, measure_all, read_kept
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.run_config import RunConfig, RunRow, VideoFolder
from fantasyid.evaluation.run_record import record_start
from fantasyid.evaluation.seen import Instruments, Reference, SeenVideo

logger = logging.getLogger(__name__)

DEFAULT_ARCFACE_FOLDER = Path("~/.insightface/models/antelopev2")


class Maker(Protocol):
    """Makes the videos of one system."""

    def made_of(self, row: RunRow) -> str:
        """Hash of all that decides how a video comes out."""
        ...

    def make(self, row: RunRow, path: Path) -> None:
        """Write a video.

        Args:
            row: Which.
            path: An .mp4 file, in a folder that exists; one that is there is replaced.

        Raises:
            FantasyIDError: It cannot be made.
        """
        ...


MakerFactory = Callable[[], Maker]
"""Loads the model of a system; it is sent to other processes."""


class RunItem(BaseModel):
    """What is kept of one video."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    person: str
    prompt_key: str
    seed: int
    recognizer: str
    """Who told people apart."""
    made_of: Sha256 | None
    """Hash of all that the video was made of; None of a video that was made elsewhere."""
    video_sha256: Sha256 | None
    """Of the file; None if there is none."""
    failure: str | None
    """Why there is no video or no judgement, in one sentence."""
    measured: dict[str, KeptMeasurement]
    """By the metrics' keys."""


def item_path(out: Path, row: RunRow) -> Path:
    """Where the item of a row is kept."""
    return out / "items" / row.system / f"{row.name}.json"


def video_path(row: RunRow, base: Path, out: Path, folder: VideoFolder | None) -> Path:
    """Where the video of a row lies.

    Args:
        row: Which.
        base: What the config's paths are relative to.
        out: Folder of the run.
        folder: Where its system's videos lie, if they were made elsewhere.
    """
    if folder is None:
        return out / "videos" / row.system / f"{row.name}.mp4"
    name = folder.pattern.format(person=row.person.name, prompt=row.prompt.key, seed=row.seed)
    return base / folder.folder / name


def run(
    config: RunConfig,
    rows: Sequence[RunRow],
    base: Path,
    out: Path,
    makers: Mapping[str, MakerFactory],
    num_workers: int = 1,
    command: Sequence[str] = (),
) -> list[RunItem]:
    """Make and judge videos; a video that fails is an item that says so, and is tried again the next time.

    Args:
        config: What is evaluated.
        rows: All of `run_rows`.
        base: What the config's paths are relative to.
        out: Folder of the videos and items.
        makers: Of the systems whose videos are made, by name.
        num_workers: Processes, each with models of its own.
        command: The arguments as typed, for the run's record.

    Returns:
        The items, in the order of the rows.
    """
    make_folder(out)
    record_start(out, config, base, command)
    if num_workers == 1:
        return _run_part(config, rows, base, out, makers)
    # By people, because looking at a photo is worth sharing.
    people = list(dict.fromkeys(row.person.name for row in rows))
    parts = [[row for row in rows if people.index(row.person.name) % num_workers == n] for n in range(num_workers)]
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_run_part, config, part, base, out, makers) for part in parts if part]
        items = [item for future in futures for item in future.result()]
    place = {(row.system, row.person.name, row.prompt.key, row.seed): index for index, row in enumerate(rows)}
    return sorted(items, key=lambda item: place[item.system, item.person, item.prompt_key, item.seed])


def _run_part(
    config: RunConfig, rows: Sequence[RunRow], base: Path, out: Path, makers: Mapping[str, MakerFactory]
) -> list[RunItem]:
    if config.recognizer == "dlib":
        judge = Judge.builtin()
    else:
        judge = Judge.arcface(config.arcface_folder or DEFAULT_ARCFACE_FOLDER)
    weights, folder = config.inception_weights, config.clip_folder
    instruments = Instruments.load(
        judge,
        inception=None if weights is None else Inception.load(base / weights),
        clip=None if folder is None else Clip.load(base / folder),
    )
    folders = {system.name: system.videos for system in config.systems}
    reference, items = cache(lambda photo: Reference.read(photo, instruments)), []
    for system, of_system in groupby(rows, key=lambda row: row.system):
        maker = makers[system]() if system in makers else None
        for row in of_system:
            kept, made_of, made_sha256 = read_kept(item_path(out, row), RunItem), None, None
            try:
                video, made_of = _video(row, base, out, maker, folders[system], kept)
                made_sha256 = None if made_of is None else file_sha256(video)
                item = _judge(row, video, made_of, instruments, reference, kept)
            except FantasyIDError as error:
                # A video that could not be judged is there all the same, and need not be made again.
                item = _item(row, judge.name, made_of, made_sha256, failure=f"{type(error).__name__}: {error}")
            if item != kept:
                make_folder(item_path(out, row).parent)
                write_file(item_path(out, row), item.model_dump_json().encode())
            items.append(item)
            logger.info("%s, %s: %s", system, row.name, "; ".join(_said(item)))
    return items


def _said(item: RunItem) -> Iterator[str]:
    yield item.failure or "judged"
    for key, kept in item.measured.items():
        if kept.failure is not None:
            yield f"{key} not measured: {kept.failure}"


def _video(
    row: RunRow, base: Path, out: Path, maker: Maker | None, folder: VideoFolder | None, kept: RunItem | None
) -> tuple[Path, str | None]:
    """The video of a row, and what it was made of if we made it; it is made unless it is there."""
    path = video_path(row, base, out, folder)
    if maker is None:
        return path, None
    made_of = maker.made_of(row)
    if kept is None or kept.made_of != made_of or not path.is_file() or kept.video_sha256 != file_sha256(path):
        make_folder(path.parent)
        maker.make(row, path)
        # Kept at once: if judging is interrupted, the video need not be made again.
        made = _item(
            row, "", made_of=made_of, video_sha256=file_sha256(path), failure="It was made and not judged yet."
        )
        make_folder(item_path(out, row).parent)
        write_file(item_path(out, row), made.model_dump_json().encode())
    return path, made_of


def _judge(
    row: RunRow,
    path: Path,
    made_of: str | None,
    instruments: Instruments,
    reference: Callable[[Path], Reference],
    kept: RunItem | None,
) -> RunItem:
    video = SeenVideo.open(path, instruments, row.prompt.asks, row.text)
    measured = measure_all(all_metrics(), video, reference(row.photo), kept.measured if kept else {})
    return _item(row, instruments.judge.name, made_of, video.sha256, None, measured)


def _item(
    row: RunRow,
    recognizer: str,
    made_of: str | None = None,
    video_sha256: str | None = None,
    failure: str | None = None,
    measured: dict[str, KeptMeasurement] | None = None,
) -> RunItem:
    return RunItem(
        system=row.system,
        person=row.person.name,
        prompt_key=row.prompt.key,
        seed=row.seed,
        recognizer=recognizer,
        made_of=made_of,
        video_sha256=video_sha256,
        failure=failure,
        measured=measured or {},
    )


def read_items(out: Path, rows: Sequence[RunRow]) -> list[RunItem]:
    """Read what a run kept.

    Args:
        out: Its folder.
        rows: All of it.

    Returns:
        The items in the order of the rows, failed ones too.

    Raises:
        InvalidRequestError: The run is not finished.
    """
    found = [read_kept(item_path(out, row), RunItem) for row in rows]
    keys = {metric.definition.key for metric in all_metrics()}
    items = [
        item
        for item in found
        if item is not None and (item.measured.keys() >= keys or (item.recognizer and item.failure))
    ]
    if len(items) < len(rows):
        missing = f"{len(rows) - len(items)} of {len(rows)} videos"
        raise InvalidRequestError(f"{missing} of {out} are not judged; run `fantasyid evaluate run` again.")
    return items
