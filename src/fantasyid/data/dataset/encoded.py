"""Reading an encoding: rows of clips on request, from shards that stay on the disk."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fantasyid.data.dataset.encodings import NULL_TEXT, REMEDY, EncodingFolder
from fantasyid.data.dataset.rows import EncodedClip
from fantasyid.data.dataset.shards import Shard
from fantasyid.data.dataset.tables import read_table
from fantasyid.data.precompute import LatentPool

_OPEN_SHARDS = 256
# Columns by what a pool calls them: of what each view has its own, and of the rest.
_PICTURES = {"reference": "references", "face_tokens": "faces"}
_OTHERS = {"clips": "latents", "identity": "heads", "text": "text"}


class EncodedClips:
    """The clips of one side of an encoding's split.

    A clip's row costs one read in each of its shard's files, in any order, of one view where one is shown.

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
        self._none: LatentPool | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def rows(self, index: Tensor) -> LatentPool:
        """Some clips with all views.

        Args:
            index: (B,) numbers of them.

        Returns:
            On the CPU: clips (B,T,C,h,w), text and null text as encoded; reference (B,V,C,h,w) and face tokens
            (B,V,g,g,D) of V views; as identity the vertices (B,N,3) in cm.
        """
        if not len(index):
            return self._nothing().rows(index)
        chosen = self._chosen(index)
        numbers = range(self.views)
        pictures = {
            name: torch.stack([torch.stack([self._view(clip, column, k) for k in numbers]) for clip in chosen])
            for name, column in _PICTURES.items()
        }
        return self._joined(chosen, pictures)

    def shown(self, index: Tensor, view: Tensor, noised: Tensor) -> LatentPool:
        """Some clips with one view each, which alone is read.

        Args:
            index: (B,) numbers of them.
            view: (B,) in [0, 1), which of the V views that `rows` gives is wanted.
            noised: (B,) in [0, 1), which of the view's noised references stands for the clean one; that stays where it
                is negative.

        Returns:
            As `rows`, with reference (B,1,C,h,w) and face tokens (B,g,g,D).
        """
        if not len(index):
            return self._nothing().shown(index, view, noised)
        chosen = self._chosen(index)
        views = (view * self.views).long().tolist()
        variants = (noised * self.manifest.plan.noised).floor().long().tolist()
        references = [self._reference(*seen) for seen in zip(chosen, views, variants, strict=True)]
        faces = [self._view(clip, "faces", number) for clip, number in zip(chosen, views, strict=True)]
        pictures = {"reference": torch.stack(references)[:, None], "face_tokens": torch.stack(faces)}
        return self._joined(chosen, pictures)

    def _nothing(self) -> LatentPool:
        """What tensors have when no row is asked for, in shape and type."""
        if self._none is None:
            self._none = self.rows(torch.zeros(1, dtype=torch.int64)).rows(torch.zeros(0, dtype=torch.int64))
        return self._none

    def _chosen(self, index: Tensor) -> list[EncodedClip]:
        return [self.clips[number] for number in index.tolist()]

    def _joined(self, chosen: Sequence[EncodedClip], pictures: Mapping[str, Tensor]) -> LatentPool:
        columns = {
            name: torch.stack([self._tensor(clip, column) for clip in chosen]) for name, column in _OTHERS.items()
        }
        null_text = self._shard("text", chosen[0].shard).tensor(NULL_TEXT)[None]
        return LatentPool(**columns, **pictures, null_text=null_text)

    def _reference(self, clip: EncodedClip, view: int, variant: int) -> Tensor:
        """Of a view, with noise unless the variant is negative."""
        if variant < 0:
            return self._view(clip, "references", view)
        return self._shard("noised", clip.shard).part(clip.clip_id, view % clip.views, variant)

    def _view(self, clip: EncodedClip, column: str, number: int) -> Tensor:
        """One of V views, of which a clip with fewer has some more than once."""
        return self._shard(column, clip.shard).part(clip.clip_id, number % clip.views)

    def _tensor(self, clip: EncodedClip, column: str) -> Tensor:
        return self._shard(column, clip.shard).tensor(clip.clip_id)

    def _open(self, column: str, shard: int) -> Shard:
        return Shard(self._folder.shard(shard)[column], REMEDY)
