"""The clips that the video model is trained on: pools or encodings, under one numbering, on the device or the disk."""

import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.array_files import open_array
from fantasyid.data.precompute import LatentPool
from fantasyid.training.config import VideoStage


class Clips(Protocol):
    """Encoded clips by their numbers."""

    @property
    def device(self) -> torch.device:
        """Where numbers are looked up, and rows come from."""

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> LatentPool:
        """Some of them, by their numbers (B,)."""


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
        """Some of them, by their numbers (B,)."""
        parts, places, start = [], [], 0
        for pool in self._pools:
            place = ((index >= start) & (index < start + len(pool))).nonzero()[:, 0]
            parts.append(pool.rows(index[place] - start))
            places.append(place)
            start += len(pool)
        return LatentPool.joined(parts).rows(torch.cat(places).argsort())


def open_clips(folders: Sequence[Path], config: VideoStage, device: str) -> Clips:
    """The encoded pools, which must have the widths of the transformer, one number of frames, and known heads.

    Args:
        folders: Of the pools.
        config: The preset; says where they are kept.
        device: The model's.

    Raises:
        InvalidRequestError: A pool is missing, damaged, or does not fit.
    """
    on_disk = config.pools_on == "disk"
    pools = [_mapped_pool(folder) if on_disk else LatentPool.open(folder, "cpu") for folder in folders]
    for folder, pool in zip(folders, pools, strict=True):
        _check(pool, pools[0], folder, config)
    return SeveralPools(pools) if on_disk else LatentPool.joined(pools).to(device)


def _check(pool: LatentPool, first: LatentPool, folder: Path, config: VideoStage) -> None:
    _, frames, channels, _, _ = pool.clips.shape
    found = {"frames": frames, "out_channels": channels, "text_embed_dim": pool.text.shape[-1]}
    wanted = {"frames": first.clips.shape[1], **config.model.model_dump(include=set(found))}
    for name, count in found.items():
        if count != wanted[name]:
            raise InvalidRequestError(
                f"The pool {folder} has {count} {name}, and {wanted[name]} are needed by the preset and the first "
                "pool; encode it again with `fantasyid data encode-pool`, or choose another."
            )
    if pool.identity.ndim == 3 and config.objective.shape_noise > 0:
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
