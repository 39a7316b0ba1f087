"""Looking at every file of a dataset: is it there, unchanged, and do tables and shards agree?"""

from collections.abc import Iterator
from pathlib import Path

import torch

from fantasyid.core.errors import CorruptDatasetError, InvalidRequestError
from fantasyid.core.input_files import file_sha256
from fantasyid.data.dataset import encodings
from fantasyid.data.dataset.encodings import COLUMNS, NULL_TEXT, EncodingFolder
from fantasyid.data.dataset.layout import REMEDY, DatasetFolder
from fantasyid.data.dataset.rows import Candidate, Clip, Dropped, EncodedClip
from fantasyid.data.dataset.shards import Shard
from fantasyid.data.dataset.tables import read_table


def check_dataset(folder: DatasetFolder, videos: Path | None = None) -> Iterator[str]:
    """Look for what is wrong with a dataset and its encodings.

    Args:
        folder: A finished one.
        videos: Folder of its videos, to hash them too.

    Yields:
        Sentences; none of a dataset that is whole.

    Raises:
        InvalidRequestError: It is no finished dataset.
        CorruptDatasetError: Its manifest cannot be read.
    """
    manifest = folder.read_manifest()
    found = list(_files(folder.path, manifest.files, ("*.parquet", "measured/*.parquet", "measured/*.safetensors")))
    yield from found
    if not found:
        yield from _agreement(folder)
    if videos is not None:
        yield from _videos(folder, videos)
    for path in sorted(folder.encodings.glob("*/")):
        try:
            yield from _encoding(folder, EncodingFolder(path))
        except (CorruptDatasetError, InvalidRequestError) as error:
            yield str(error)


def _files(folder: Path, expected: dict[str, str], kinds: tuple[str, ...]) -> Iterator[str]:
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            yield f"{path} is missing."
        elif file_sha256(path) != digest:
            yield f"{path} is not what was written there."
    for path in sorted(path for kind in kinds for path in folder.glob(kind)):
        if path.relative_to(folder).as_posix() not in expected:
            yield f"{path} belongs to nothing; remove it."


def _agreement(folder: DatasetFolder) -> Iterator[str]:
    """Every candidate is kept or dropped, and what is kept has its pictures and its track."""
    clips = read_table(folder.clips, Clip, REMEDY)
    decided = sorted(
        [clip.clip_id for clip in clips] + [row.clip_id for row in read_table(folder.dropped, Dropped, REMEDY)]
    )
    parts = len(list(folder.measured.glob("*.parquet")))
    candidates = [row for part in range(parts) for row in read_table(folder.part(part)["rows"], Candidate, REMEDY)]
    if decided != sorted(row.clip_id for row in candidates):
        yield f"{folder.clips} and {folder.dropped} are not of the candidates in {folder.measured}."
    for part in sorted({clip.part for clip in clips}):
        pictures, tracks = (set(Shard(folder.part(part)[kind], REMEDY).names()) for kind in ("pictures", "tracks"))
        for clip in (clip for clip in clips if clip.part == part):
            wanted = {f"{view.key}/{kind}" for view in clip.views for kind in ("picture", "landmarks", "vertices")}
            if missing := sorted((wanted - pictures) | ({f"{clip.clip_id}/landmarks"} - tracks)):
                yield f"The clip {clip.clip_id} has no {missing[0]} in part {part}."


def _videos(folder: DatasetFolder, videos: Path) -> Iterator[str]:
    for path, digest in sorted({(clip.path, clip.sha256) for clip in read_table(folder.clips, Clip, REMEDY)}):
        if not (videos / path).is_file():
            yield f"The video {videos / path} is missing."
        elif file_sha256(videos / path) != digest:
            yield f"The video {videos / path} is not the one that was measured."


def _encoding(dataset: DatasetFolder, folder: EncodingFolder) -> Iterator[str]:
    manifest = folder.read_manifest()
    found = list(_files(folder.path, manifest.files, ("*.parquet", "*.safetensors")))
    yield from found
    if file_sha256(dataset.clips) != manifest.plan.clips:
        yield f"{folder.path} was made of other clips than {dataset.clips} names; encode them under another name."
    elif not found:
        yield from _encoded(dataset, folder)


def _encoded(dataset: DatasetFolder, folder: EncodingFolder) -> Iterator[str]:
    """Every clip is encoded, to finite numbers of one shape."""
    rows = read_table(folder.index, EncodedClip, encodings.REMEDY)
    if [row.clip_id for row in rows] != [clip.clip_id for clip in read_table(dataset.clips, Clip, REMEDY)]:
        yield f"{folder.index} names other clips than {dataset.clips}."
    shapes: dict[str, torch.Size] = {}
    for row in rows:
        for column in COLUMNS:
            shard = Shard(folder.shard(row.shard)[column], encodings.REMEDY)
            tensor = shard.tensor(row.clip_id)
            one = tensor[0] if column in ("references", "noised", "faces") else tensor
            if not torch.isfinite(tensor).all():
                yield f"The {column} of the clip {row.clip_id} in {folder.path} are not finite."
            if shapes.setdefault(column, one.shape) != one.shape:
                yield f"The {column} of the clip {row.clip_id} in {folder.path} have another shape than the others'."
            if column == "text" and NULL_TEXT not in shard.names():
                yield f"{folder.shard(row.shard)[column]} has no {NULL_TEXT}."
