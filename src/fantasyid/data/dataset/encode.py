"""A dataset of clips to an encoding for one model: what `fantasyid data encode` does.

Every clip is encoded by itself, because a batch would change its last bits with its neighbours.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.output_files import make_folder, tidy_up, write_file, write_together
from fantasyid.data.clips.source_video import SourceVideo
from fantasyid.data.dataset import encodings
from fantasyid.data.dataset.encoders import Encoders, SeenView, person_vertices
from fantasyid.data.dataset.encodings import (
    COLUMNS,
    NULL_TEXT,
    SHARD_SIZE,
    EncodingFolder,
    EncodingManifest,
    EncodingPlan,
)
from fantasyid.data.dataset.layout import REMEDY, DatasetFolder, Manifest, differences, document_bytes, read_document
from fantasyid.data.dataset.rows import Clip, EncodedClip
from fantasyid.data.dataset.shards import Shard, write_shard
from fantasyid.data.dataset.tables import read_table, write_table
from fantasyid.data.engines.job import Engine


@dataclass(frozen=True)
class ModelEncoders:
    """A model's encoders, and how to load them in another process.

    Attributes:
        open: Loads them; a function of a module, or a `partial` of one.
        networks: Hash of each.
        text_length: As in `Encoders`, as the next two.
        size: Height and width of the model's videos.
        dtype: Such as `"bfloat16"`.
    """

    open: Callable[[], Encoders]
    networks: dict[str, str]
    text_length: int
    size: tuple[int, int]
    dtype: str


@dataclass(frozen=True)
class EncodeJob:
    """Encodes shards of clips; see `engines.job.Job`.

    Attributes:
        dataset: Its folder.
        videos: Folder of the videos.
        name: Of the encoding.
        topology_hash: Of the mesh of the heads.
        model: What encodes.
        noised: References of each view that are noised before they are encoded.
    """

    dataset: Path
    videos: Path
    name: str
    topology_hash: str
    model: ModelEncoders
    noised: int

    def open(self) -> Callable[[int], None]:
        """See `Job.open`."""
        dataset = DatasetFolder(self.dataset)
        folder = EncodingFolder(dataset.encodings / self.name)
        clips = read_table(dataset.clips, Clip, REMEDY)
        encoders = self.model.open()

        def encode(shard: int) -> None:
            rows: list[EncodedClip] = []
            columns: dict[str, dict[str, Tensor]] = {name: {} for name in COLUMNS}
            columns["text"][NULL_TEXT] = encoders.text("")
            for clip in clips[shard * SHARD_SIZE : (shard + 1) * SHARD_SIZE]:
                caption = encoders.fitting_caption(clip.caption)
                views = _views(dataset, clip)
                references, noised, faces = encoders.views(views, self.topology_hash, clip.clip_id, self.noised)
                values = {
                    "latents": encoders.latents(_frames(self.videos, clip)),
                    "text": encoders.text(caption),
                    "references": references,
                    "noised": noised,
                    "faces": faces,
                    "heads": person_vertices(views),
                }
                for name, value in values.items():
                    columns[name][clip.clip_id] = value
                rows.append(
                    EncodedClip(
                        clip_id=clip.clip_id,
                        shard=shard,
                        split=clip.split,
                        views=len(views),
                        caption=caption,
                        caption_cut=caption != clip.caption,
                    )
                )
            _write_shard(folder, shard, rows, columns)

        return encode


def encode(
    dataset: DatasetFolder,
    videos: Path,
    name: str,
    model: ModelEncoders,
    engine: Engine,
    done: Callable[[int], None],
    noised: int = 1,
) -> EncodingManifest:
    """Encode what is not encoded yet.

    Args:
        dataset: A finished one.
        videos: Folder of its videos.
        name: Of the encoding; one that was begun goes on.
        model: What encodes.
        engine: What runs it.
        done: Is told how many shards are done, those of earlier runs among them.
        noised: References of each view that are noised before they are encoded; at least one.

    Returns:
        The encoding's manifest.

    Raises:
        InvalidRequestError: There are no clips, they have another shape than the model's videos, or the encoding was
            begun with other clips or networks.
        FantasyIDError: Something is missing, or cannot be read or written.
    """
    if Path(name).name != name:
        raise InvalidRequestError(f"The encoding's name is {name!r}; it must be that of a folder, without slashes.")
    manifest = dataset.read_manifest()
    if manifest.kept == 0:
        raise InvalidRequestError(f"{dataset.path} holds no clips; its report says why.")
    plan = _plan(dataset, manifest, model, noised)
    folder = EncodingFolder(dataset.encodings / name)
    make_folder(folder.path)
    tidy_up(folder.path)
    if not folder.plan.is_file():
        write_file(folder.plan, document_bytes(plan))
    kept = read_document(folder.plan, EncodingPlan, encodings.AGAIN)
    for field, before, now in differences(kept.model_dump(), plan.model_dump()):
        raise InvalidRequestError(
            f"{folder.path} is made with {field} {before!r} and not {now!r}; choose another --name."
        )
    shards = range(-(-manifest.kept // SHARD_SIZE))
    missing = [shard for shard in shards if not folder.shard(shard)["files"].is_file()]
    job = EncodeJob(dataset.path, videos, name, plan.topology_hash, model, noised)
    engine.run(job, missing, lambda count: done(len(shards) - len(missing) + count))
    return _finish(folder, plan, len(shards), manifest)


def _plan(dataset: DatasetFolder, manifest: Manifest, model: ModelEncoders, noised: int) -> EncodingPlan:
    measure = manifest.plan.measure
    height, width = model.size
    if abs(measure.width / measure.height - width / height) > 0.01:
        raise InvalidRequestError(
            f"The clips are cut for videos of {measure.width}x{measure.height} pixels, and the model's have "
            f"{width}x{height}; prepare a dataset with `measure.width` and `measure.height` of that shape."
        )
    return EncodingPlan(
        clips=file_sha256(dataset.clips),
        networks=model.networks,
        topology_hash=manifest.plan.software["head"],
        num_frames=measure.num_frames,
        fps=measure.fps,
        height=height,
        width=width,
        text_length=model.text_length,
        noised=noised,
        dtype=model.dtype,
    )


def _views(dataset: DatasetFolder, clip: Clip) -> list[SeenView]:
    shard = Shard(dataset.part(clip.part)["pictures"], REMEDY)
    parts = ("picture", "landmarks", "vertices")
    return [SeenView(*(shard.tensor(f"{view.key}/{part}") for part in parts)) for view in clip.views]


def _frames(videos: Path, clip: Clip) -> list[NDArray[np.uint8]]:
    """The clip's frames as they are cut, RGB (H,W,3) uint8."""
    left, top, right, bottom = clip.crop
    path = videos / clip.path
    video = SourceVideo.open(path, clip.picture)
    if file_sha256(path) != clip.sha256:
        raise InvalidRequestError(f"The video {path} is not the one that was measured; put that back.")
    return [frame[top:bottom, left:right] for frame in video.chosen(clip.frames)]


def _write_shard(
    folder: EncodingFolder, shard: int, rows: list[EncodedClip], columns: dict[str, dict[str, Tensor]]
) -> None:
    files = folder.shard(shard)
    with write_together(list(files.values()), overwrite=True) as made:
        paths = dict(zip(files, made, strict=True))
        for name, tensors in columns.items():
            write_shard(paths[name], tensors)
        write_table(paths["rows"], rows, EncodedClip)
        digests = {path.name: file_sha256(path) for name, path in paths.items() if name != "files"}
        paths["files"].write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")


def _finish(folder: EncodingFolder, plan: EncodingPlan, shards: int, dataset: Manifest) -> EncodingManifest:
    tables = (folder.shard(shard)["rows"] for shard in range(shards))
    rows = [row for table in tables for row in read_table(table, EncodedClip, encodings.REMEDY)]
    files = {folder.plan.name: file_sha256(folder.plan)}
    for shard in range(shards):
        files |= json.loads(folder.shard(shard)["files"].read_bytes())
    with write_together([folder.index, folder.manifest], overwrite=True) as (index, manifest):
        write_table(index, rows, EncodedClip)
        document = EncodingManifest(
            plan=plan,
            clips=len(rows),
            captions_cut=sum(row.caption_cut for row in rows),
            licences=dataset.licences,
            files=dict(sorted({**files, folder.index.name: file_sha256(index)}.items())),
        )
        manifest.write_bytes(document_bytes(document))
    return document
