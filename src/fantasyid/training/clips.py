"""The clips that the video model is trained on: pools or encodings, under one numbering, on the device or the disk."""

import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.array_files import open_array
from fantasyid.data.dataset.encoded import EncodedClips
from fantasyid.data.dataset.encodings import EncodingFolder
from fantasyid.data.precompute import LatentPool
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.training.config import VideoStage

_VIEWS = 6
_NO_ROW = torch.zeros(0, dtype=torch.int64)


class Clips(Protocol):
    """Encoded clips by their numbers."""

    @property
    def device(self) -> torch.device:
        """Where numbers are looked up, and rows come from."""

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> LatentPool:
        """Some of them, by their numbers (B,), with all views."""

    def shown(self, index: Tensor, view: Tensor, noised: Tensor) -> LatentPool:
        """Some of them with one view each: see `EncodedClips.shown`."""


class SeveralPools:
    """Clips of several pools that stay on the disk.

    Args:
        pools: Numbered one after the other.
    """

    device = torch.device("cpu")

    def __init__(self, pools: Sequence[Clips]) -> None:
        self._pools = pools

    def __len__(self) -> int:
        return sum(len(pool) for pool in self._pools)

    def rows(self, index: Tensor) -> LatentPool:
        """See `Clips.rows`."""
        places = self._places(index)
        return self._in_order([pool.rows(index[place] - start) for pool, place, start in places], places)

    def shown(self, index: Tensor, view: Tensor, noised: Tensor) -> LatentPool:
        """See `Clips.shown`."""
        places = self._places(index)
        parts = [pool.shown(index[at] - start, view[at], noised[at]) for pool, at, start in places]
        return self._in_order(parts, places)

    def _places(self, index: Tensor) -> list[tuple[Clips, Tensor, int]]:
        """Each pool, where in the batch its clips stand, and the number of its first."""
        places, start = [], 0
        for pool in self._pools:
            places.append((pool, ((index >= start) & (index < start + len(pool))).nonzero()[:, 0], start))
            start += len(pool)
        return places

    @staticmethod
    def _in_order(parts: Sequence[LatentPool], places: Sequence[tuple[Clips, Tensor, int]]) -> LatentPool:
        return LatentPool.joined(parts).rows(torch.cat([place for _, place, _ in places]).argsort())


def open_clips(
    folders: Sequence[Path],
    config: VideoStage,
    encoder: IdentityEncoder | None,
    device: str,
    split: Literal["train", "val"] = "train",
) -> Clips:
    """Pools, and encodings of datasets, which must fit the networks and each other.

    Args:
        folders: What `fantasyid data encode-pool` or `fantasyid data encode` left.
        config: The preset; says where they are kept.
        encoder: Whose mesh the heads must have, if there is one.
        device: The model's.
        split: Which clips; of a pool all are trained on.

    Raises:
        FantasyIDError: One is missing, damaged, or does not fit.
    """
    on_disk = config.pools_on == "disk"
    clips: list[Clips] = []
    for folder in folders:
        one = _open(folder, config, encoder, split)
        clips.append(one)
        # Of no row: what is looked at is what all have, sizes.
        _check(one.rows(_NO_ROW), clips[0].rows(_NO_ROW), folder, config, encoder)
    if on_disk:
        return SeveralPools(clips)
    return LatentPool.joined([one.rows(torch.arange(len(one))) for one in clips]).to(device)


def _open(folder: Path, config: VideoStage, encoder: IdentityEncoder | None, split: str) -> Clips:
    """A pool or an encoding, of which nothing is read before a batch asks for it."""
    if not EncodingFolder(folder).plan.is_file():
        if split == "val":
            raise InvalidRequestError(f"The pool {folder} holds no clip out; give an encoding instead.")
        if config.objective.noised_reference > 0:
            raise InvalidRequestError(
                f"The pool {folder} holds no noised references; set objective.noised_reference to 0, or give an "
                "encoding of `fantasyid data encode`."
            )
        return _mapped_pool(folder)
    encoded = EncodedClips(folder, split, views=_VIEWS if config.objective.views == "any" else 1)
    if not len(encoded):
        raise InvalidRequestError(f"The encoding {folder} has no clip of the side {split!r}; prepare more videos.")
    mesh = encoded.manifest.plan.topology_hash
    if encoder is not None and encoder.config.use_vertices and encoder.config.topology_hash != mesh:
        raise InvalidRequestError(
            f"The heads of {folder} have another mesh than the identity encoder; name the FLAME that they were read "
            "with by --flame, or with --encoder or --init an encoder of their mesh."
        )
    return encoded


def _check(
    rows: LatentPool, first: LatentPool, folder: Path, config: VideoStage, encoder: IdentityEncoder | None
) -> None:
    _, frames, channels, _, _ = rows.clips.shape
    _, tokens, width = rows.text.shape
    found = {"frames": frames, "out_channels": channels, "text_embed_dim": width, "max_text_seq_length": tokens}
    wanted = {"frames": first.clips.shape[1], **config.model.model_dump(include=set(found))}
    if encoder is not None:
        found |= {"grid_size": rows.face_tokens.shape[-2], "face_dim": rows.face_tokens.shape[-1]}
        wanted |= {name: encoder.config[name] for name in ("grid_size", "face_dim")}
    for name, count in found.items():
        if count != wanted[name]:
            raise InvalidRequestError(
                f"The pool {folder} has {count} {name}, and {wanted[name]} are needed by the preset and the first "
                "pool; encode it again, or choose another."
            )
    if encoder is None or rows.identity.ndim != 3:
        return
    if encoder.config.use_vertices and rows.identity.shape[1] != encoder.config.levels[0]:
        raise InvalidRequestError(
            f"The heads of {folder} have {rows.identity.shape[1]} vertices, and the identity encoder's mesh has "
            f"{encoder.config.levels[0]}; name the FLAME they were read with by --flame, or choose another pool."
        )
    if config.objective.shape_noise > 0:
        raise InvalidRequestError(
            f"The pool {folder} holds vertices, and shape_noise {config.objective.shape_noise} is one of "
            "coefficients; set objective.shape_noise to 0."
        )


def _mapped_pool(folder: Path) -> LatentPool:
    """A pool of which nothing is read before a batch asks for it."""
    names = [field.name for field in fields(LatentPool)]
    arrays = {
        name: open_array(folder / f"latent_{name}.npy", "fantasyid data encode-pool", mapped=True) for name in names
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # rows are copies
        return LatentPool(**{name: torch.from_numpy(array) for name, array in arrays.items()})
