"""What a run goes on from: the trained weights, their average and the optimiser's states, in safetensors files.

A checkpoint is a folder `checkpoints/step-00012000` of the run's folder. It appears whole or not at all. Tensors are
kept whole, however many processes shared them, so any number of processes can go on; frozen weights are not kept, but
their hash is.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.output_files import make_folder, tidy_up, write_together
from fantasyid.training.parallel import any_says, rank, wait_for_all, whole

_FILE_BYTES = 2 * 10**9
_KEPT = 3
_STATE = "state.json"


class RunState(BaseModel):
    """Where a run stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    step: int
    """Steps taken."""
    seconds: float
    """Spent on them."""
    frozen: str
    """Hash of the weights that are not trained."""
    norms: list[float]
    """Of the gradients of the last steps."""
    skipped: list[int]
    """Steps whose update was left out."""
    tensors: int
    """How many are kept, to see that none is missing."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        folder: The run's.
    """

    folder: Path

    def all(self) -> list[Path]:
        """The folders, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def save(self, state: RunState, tensors: Mapping[str, Tensor]) -> None:
        """Write one, with all processes together; of the older ones the last few stay.

        Args:
            state: Where the run stands.
            tensors: By name; shared out ones are put together.

        Raises:
            UnwritableOutputError: The disk is full.
        """
        target = self.folder / "checkpoints" / _name(state.step)
        if not any_says(target.is_dir()):  # asked of all before one of them makes it
            self._write(target, state, tensors)
        if rank() == 0:
            for old in self.all()[:-_KEPT]:  # also those that a killed run meant to remove
                shutil.rmtree(old)
        wait_for_all()

    def _write(self, target: Path, state: RunState, tensors: Mapping[str, Tensor]) -> None:
        if rank() > 0:
            for _ in _files(tensors):
                pass
            return
        make_folder(target.parent)
        with write_together([target], overwrite=False) as (made,):
            made.mkdir()
            for number, content in enumerate(_files(tensors)):
                save_file(content, made / f"tensors-{number:05d}.safetensors")
            (made / _STATE).write_text(state.model_dump_json())

    def load(self, up_to: int | None = None) -> tuple[RunState, Iterator[tuple[str, Tensor]]] | None:
        """Read the last one; None where there is none.

        Args:
            up_to: The last of at most so many steps.

        Returns:
            Where the run stood; and names and whole tensors on the CPU, each read when it is asked for.

        Raises:
            InvalidRequestError: It is damaged; also when a tensor is asked for.
        """
        if (self.folder / "checkpoints").is_dir() and rank() == 0:
            tidy_up(self.folder / "checkpoints")
        wait_for_all()
        wanted = None if up_to is None else _name(up_to)
        if not (folders := [folder for folder in self.all() if wanted is None or folder.name <= wanted]):
            return None
        with _told_as_damaged(folders[-1]):
            state = RunState.model_validate_json((folders[-1] / _STATE).read_text(encoding="utf-8"))
        return state, _tensors_of(folders[-1], state.tensors)


def _name(step: int) -> str:
    return f"step-{step:08d}"


@contextmanager
def _told_as_damaged(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidRequestError(
            f"The checkpoint {folder} is damaged ({short_reason(error)}); remove it to go on from the one before."
        ) from error


def _tensors_of(folder: Path, count: int) -> Iterator[tuple[str, Tensor]]:
    found = 0
    for path in sorted(folder.glob("tensors-*.safetensors")):
        with _told_as_damaged(folder), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                found += 1
                yield name, file.get_tensor(name)
    with _told_as_damaged(folder):
        if found != count:
            raise ValueError(f"it has {found} tensors of {count}")


def _files(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Put tensors together and share them out to files, one file's worth in memory at a time."""
    content: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        put_together = whole(tensor.detach())
        if rank() > 0:
            continue
        if content and size + put_together.nbytes > _FILE_BYTES:
            yield content
            content, size = {}, 0
        content[name] = put_together.cpu().contiguous()
        size += put_together.nbytes
    yield content


def hash_of_frozen(model: nn.Module) -> str:
    """A hash of the weights that are not trained; of none, the hash of nothing."""
    digest = blake2b(digest_size=16)
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
