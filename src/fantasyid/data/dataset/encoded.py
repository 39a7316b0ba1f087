"""Reading an encoding: rows of clips on request, from shards that stay on the disk."""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fantasyid.data.dataset.encodings import COLUMNS, NULL_TEXT, REMEDY, EncodingFolder
from fantasyid.data.dataset.rows import EncodedClip
from fantasyid.data.dataset.shards import Shard
from fantasyid.data.dataset.tables import read_table
from fantasyid.data.precompute import LatentPool

_OPEN_SHARDS = 256


class EncodedClips:
    """The clips of one side of an encoding's split.

    A clip's row costs one read in each of its shard's files, in any order.

    Args:
        folder: The encoding.
        split: `"train"` or `"val"`.
        views: References and faces of each row. Of a person with fewer views they come round again, so that each is
            as likely as the others to be drawn; of one with more the first are taken, which differ most.

    Raises:
        InvalidRequestError: It is no finished encoding.
        CorruptDatasetError: A file is missing or damaged.
    """

    def __init__(self, folder: Path, split: str = "train", views: int = 6) -> None:
        self._folder = EncodingFolder(folder)
        self.manifest = self._folder.read_manifest()
        index = read_table(self._folder.index, EncodedClip, REMEDY)
        self.clips = tuple(clip for clip in index if clip.split == split)
        self.views = views
        self.device = torch.device("cpu")
        self._shard = lru_cache(_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return len(self.clips)

    def rows(self, index: Tensor) -> LatentPool:
        """Some clips.

        Args:
            index: (B,) numbers of them.

        Returns:
            On the CPU: clips (B,T,C,h,w), text and null text as encoded; reference (B,V,C,h,w) and face tokens
            (B,V,g,g,D) of V views; as identity the vertices (B,N,3) in cm.
        """
        if not len(index):  # what tensors have when no row is asked for, in shape and type
            return self.rows(torch.zeros(1, dtype=torch.int64)).rows(index)
        chosen = [self.clips[number] for number in index.tolist()]
        columns = {name: [self._tensor(clip, name) for clip in chosen] for name in COLUMNS}
        return LatentPool(
            clips=torch.stack(columns["latents"]),
            reference=torch.stack([self._seen(views) for views in columns["references"]]),
            face_tokens=torch.stack([self._seen(views) for views in columns["faces"]]),
            identity=torch.stack(columns["heads"]),
            text=torch.stack(columns["text"]),
            null_text=self._shard("text", chosen[0].shard).tensor(NULL_TEXT)[None],
        )

    def _tensor(self, clip: EncodedClip, column: str) -> Tensor:
        return self._shard(column, clip.shard).tensor(clip.clip_id)

    def _open(self, column: str, shard: int) -> Shard:
        return Shard(self._folder.shard(shard)[column], REMEDY)

    def _seen(self, views: Tensor) -> Tensor:
        """V of a clip's views (n, ...)."""
        return views[torch.arange(self.views) % len(views)]
