"""A folder of videos to a dataset of clips: what `fantasyid data prepare` does.

Units of videos are measured, each into files of its own that appear together. A run that was killed does what is
missing and ends with the same bytes: nothing but the videos and the plan decides them.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fantasyid.core.choices import SourceFormat
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.output_files import make_folder, tidy_up, write_file, write_together
from fantasyid.data.clips.config import PrepareConfig
from fantasyid.data.clips.decide import decide
from fantasyid.data.clips.measure import Measured, Measurer
from fantasyid.data.clips.report import report_page
from fantasyid.data.dataset.layout import (
    REMEDY,
    DatasetFolder,
    Manifest,
    Plan,
    differences,
    document_bytes,
    read_document,
)
from fantasyid.data.dataset.rows import Candidate, Clip, Dropped, Source
from fantasyid.data.dataset.shards import write_shard
from fantasyid.data.dataset.tables import read_table, write_table
from fantasyid.data.engines.job import Engine
from fantasyid.data.sources.listing import Listing


@dataclass(frozen=True)
class Instruments:
    """What measures, and how to make it in another process.

    Attributes:
        open: Makes the measurer; a function of a module, or a `partial` of one.
        software: Versions and hashes of what it uses.
        licences: Terms of what it uses.
    """

    open: Callable[[], Measurer]
    software: dict[str, str]
    licences: dict[str, str]


@dataclass(frozen=True)
class MeasureJob:
    """Measures units of videos; see `engines.job.Job`.

    Attributes:
        videos: Their folder.
        out: The dataset.
        unit_size: Videos of a unit.
        instruments: What measures.
    """

    videos: Path
    out: Path
    unit_size: int
    instruments: Instruments

    def open(self) -> Callable[[int], None]:
        """See `Job.open`."""
        folder = DatasetFolder(self.out)
        sources = read_table(folder.sources, Source, REMEDY)
        measurer = self.instruments.open()

        def measure(unit: int) -> None:
            result = Measured()
            for source in sources[unit * self.unit_size : (unit + 1) * self.unit_size]:
                of_video = measurer.measure(source, self.videos / source.path)
                result.candidates.extend(of_video.candidates)
                result.pictures.update(of_video.pictures)
                result.tracks.update(of_video.tracks)
            _write_part(folder, unit, result)

        return measure


def prepare(
    listing: Listing,
    layout: SourceFormat,
    videos: Path,
    out: Path,
    config: PrepareConfig,
    instruments: Instruments,
    engine: Engine,
    done: Callable[[int], None],
) -> Manifest:
    """Measure what is not measured yet, and decide what is kept.

    Args:
        listing: The videos.
        layout: How they were listed.
        videos: Their folder.
        out: The dataset's folder; one that was begun goes on.
        config: How to measure, and what to keep.
        instruments: What measures.
        engine: What runs it.
        done: Is told how many units are done, those of earlier runs among them.

    Returns:
        The dataset's manifest.

    Raises:
        InvalidRequestError: The dataset was begun with other videos, or is measured in another way.
        FantasyIDError: Something is missing or cannot be written.
    """
    folder = DatasetFolder(out)
    make_folder(folder.measured)
    for place in (folder.path, folder.measured):
        tidy_up(place)
    _begin(folder, listing, layout, config, instruments)
    units = range(-(-len(listing.sources) // config.measure.unit_size))
    missing = [unit for unit in units if not folder.part(unit)["files"].is_file()]
    job = MeasureJob(videos, out, config.measure.unit_size, instruments)
    finished = len(units) - len(missing)
    engine.run(job, missing, lambda count: done(finished + count))
    return _finish(folder, len(units), listing.absent, config, instruments)


def _begin(
    folder: DatasetFolder, listing: Listing, layout: SourceFormat, config: PrepareConfig, instruments: Instruments
) -> None:
    """Write the plan and the table of videos, or see that they are the same."""
    buffer = io.BytesIO()
    write_table(buffer, listing.sources, Source)
    table = buffer.getvalue()
    plan = Plan(
        layout=layout,
        measure=config.measure,
        software=instruments.software,
        sources=hashlib.sha256(table).hexdigest(),
    )
    if not folder.plan.is_file():
        write_file(folder.sources, table)
        write_file(folder.plan, document_bytes(plan))
        return
    kept: Plan = read_document(folder.plan, Plan)
    if kept.sources != plan.sources:
        raise InvalidRequestError(
            f"{folder.path} was begun with other videos than are there now ({len(listing.sources)}); put back what "
            "changed, or make another dataset."
        )
    for name, before, now in differences(kept.model_dump(), plan.model_dump()):
        raise InvalidRequestError(
            f"{folder.path} is measured with {name} {before!r} and not {now!r}; keep to it, or make another dataset."
        )


def _write_part(folder: DatasetFolder, unit: int, result: Measured) -> None:
    files = folder.part(unit)
    with write_together(list(files.values()), overwrite=True) as made:
        rows, pictures, tracks, hashes = made
        write_table(rows, result.candidates, Candidate)
        write_shard(pictures, result.pictures)
        write_shard(tracks, result.tracks)
        digests = {path.name: file_sha256(path) for path in (rows, pictures, tracks)}
        hashes.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


def _finish(
    folder: DatasetFolder, units: int, absent: int, config: PrepareConfig, instruments: Instruments
) -> Manifest:
    """Decide, and write what was decided together with the manifest and the report."""
    candidates = [
        (unit, row) for unit in range(units) for row in read_table(folder.part(unit)["rows"], Candidate, REMEDY)
    ]
    decision = decide(candidates, config.keep)
    outputs = [folder.clips, folder.dropped, folder.manifest, folder.report]
    with write_together(outputs, overwrite=True) as (clips, dropped, manifest, report):
        write_table(clips, decision.clips, Clip)
        write_table(dropped, decision.dropped, Dropped)
        document = Manifest(
            plan=read_document(folder.plan, Plan),
            keep=config.keep,
            videos=len({row.path for _, row in candidates}),
            absent=absent,
            candidates=len(candidates),
            kept=len(decision.clips),
            people=len({clip.person for clip in decision.clips}),
            dropped=dict(sorted(Counter(row.reason for row in decision.dropped).items())),
            licences=dict(sorted(Counter(clip.licence for clip in decision.clips).items())),
            backends=instruments.licences,
            files=_hashes(folder, units, {folder.clips.name: clips, folder.dropped.name: dropped}),
        )
        manifest.write_bytes(document_bytes(document))
        by_id = {row.clip_id: (unit, row) for unit, row in candidates}
        report.write_text(report_page(folder, document, decision, by_id), encoding="utf-8")
    return document


def _hashes(folder: DatasetFolder, units: int, made: dict[str, Path]) -> dict[str, str]:
    """Of every file; those of the parts were kept when they were written."""
    found = {name: file_sha256(path) for name, path in made.items()}
    found |= {path.name: file_sha256(path) for path in (folder.plan, folder.sources)}
    for unit in range(units):
        kept: dict[str, str] = json.loads(folder.part(unit)["files"].read_bytes())
        found |= {f"{folder.measured.name}/{name}": digest for name, digest in kept.items()}
    return dict(sorted(found.items()))
