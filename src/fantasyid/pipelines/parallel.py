"""One video on several devices: guidance's two branches side by side, and the tokens of each branch split.

Every process holds one device and a whole copy of the networks, and makes the whole call; all return the same video.
Guidance parallelism needs one exchange per step, so it is used first; more devices split the tokens of a branch by
diffusers' context parallelism, within every block. The VAE is not split: its group norms see the whole picture, so
parts would not give the same frames, and decoding on every device takes as long as on one.
"""

import json
import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from diffusers import FirstBlockCacheConfig
from diffusers.models import ContextParallelConfig
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fantasyid.core import errors
from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.core.upstream import ATTENTION_BACKENDS, cache_config, parallel_config
from fantasyid.models.injection import IdentityKeyValues
from fantasyid.models.transformer import FantasyIDTransformer3DModel

_BATCHED = ("hidden_states", "encoder_hidden_states", "timestep", "identity_key_values", "identity_scale")
"""Arguments of the transformer that hold both branches of guidance."""
_RING_KERNELS = tuple(ATTENTION_BACKENDS[kernel] for kernel in ("flash3", "cudnn", "flash2"))
"""Those that give the softmax's normaliser, by which the parts of a ring are joined."""
_TOKEN_KERNELS = (None, ATTENTION_BACKENDS["native"], *_RING_KERNELS)


@dataclass(frozen=True)
class ParallelLayout:
    """How many devices share what; their product is the number of devices.

    Attributes:
        guidance: 2 puts guidance's branches on two groups of devices; 1 keeps them in one batch.
        ulysses: Devices among which a branch's tokens are split and exchanged against heads for attention.
        ring: Devices among which they are split and keys and values passed around.
    """

    guidance: int = 1
    ulysses: int = 1
    ring: int = 1

    def __post_init__(self) -> None:
        if self.guidance not in (1, 2) or self.ulysses < 1 or self.ring < 1:
            raise InvalidRequestError(f"{self}: guidance must be 1 or 2, and ulysses and ring at least 1.")

    @classmethod
    def for_devices(cls, devices: int, has_guidance: bool) -> "ParallelLayout":
        """Share the work of any number of devices: guidance first, then Ulysses.

        Args:
            devices: How many there are.
            has_guidance: Whether there are two branches.
        """
        guidance = 2 if has_guidance and devices % 2 == 0 else 1
        return cls(guidance=guidance, ulysses=devices // guidance)

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.guidance * self.ulysses * self.ring

    def shares_evenly(self, heads: int, lengths: tuple[int, ...]) -> bool:
        """Whether every device gets as many tokens and heads; if not, attention has to exchange their numbers first.

        Args:
            heads: Attention heads.
            lengths: Numbers of tokens in each sequence that is split.

        Raises:
            InvalidRequestError: They cannot be shared unevenly either.
        """
        parts = self.ulysses * self.ring
        if heads % self.ulysses == 0 and all(length % parts == 0 for length in lengths):
            return True
        if self.ulysses > 1 and self.ring > 1:
            raise InvalidRequestError(
                f"{heads} heads and sequences of {' and '.join(map(str, lengths))} tokens cannot be shared by "
                f"{self.ulysses} (Ulysses) x {self.ring} (ring) devices evenly; use Ulysses alone, which need not."
            )
        # The last device's share of the heads is filled up; it must keep at least one of its own.
        share = -(-heads // self.ulysses)
        if (self.ulysses - 1) * share >= heads:
            allowed = [n for n in range(1, heads + 1) if (n - 1) * -(-heads // n) < heads]
            raise InvalidRequestError(
                f"{heads} heads cannot be shared by {self.ulysses} devices; allowed are {', '.join(map(str, allowed))}."
            )
        return False


class DeviceGroup:
    """The devices that make one video, seen from the process that holds one of them.

    Collective: every process must make it, and call its methods, in the same order.

    Args:
        layout: What each device does; for as many devices as there are processes.
        device: The one that this process holds.

    Raises:
        InvalidRequestError: The layout is for another number of devices.
    """

    def __init__(self, layout: ParallelLayout, device: torch.device) -> None:
        if layout.devices != dist.get_world_size():
            raise InvalidRequestError(
                f"{layout} is for {layout.devices} devices, but there are {dist.get_world_size()} processes."
            )
        self.layout = layout
        self._mesh = init_device_mesh(
            device.type, (layout.guidance, layout.ring, layout.ulysses), mesh_dim_names=("guidance", "ring", "ulysses")
        )

    def split_tokens(self, transformer: FantasyIDTransformer3DModel, lengths: tuple[int, ...]) -> None:
        """Make a transformer compute on its device's part of the tokens; compile it before, not after.

        May be called again for other lengths.

        Args:
            transformer: The network, on this process's device.
            lengths: Numbers of tokens that are split: of the video, and of the text.

        Raises:
            InvalidRequestError: The lengths or the heads cannot be shared so, or the attention kernel, the step cache
                or the compilation does not allow it.
        """
        ulysses, ring = self.layout.ulysses, self.layout.ring
        if ulysses * ring == 1:
            return
        processors: Iterable[Any] = transformer.attn_processors.values()
        kernels = _TOKEN_KERNELS if ring == 1 else _RING_KERNELS
        if any(processor.attention_backend not in kernels for processor in processors):
            raise InvalidRequestError(
                f"This attention kernel cannot attend to tokens on {ulysses} (Ulysses) x {ring} (ring) devices; "
                f"choose flash3, cudnn or flash2{'' if ring > 1 else ', or native'}."
            )
        if isinstance(cache_config(transformer), FirstBlockCacheConfig):
            raise InvalidRequestError(
                "First-block caching decides from a device's own tokens, so devices that share tokens would disagree; "
                "use the cache 'taylor', or two devices (one for each branch of guidance)."
            )
        even = self.layout.shares_evenly(transformer.config.num_attention_heads, lengths)
        if parallel_config(transformer) is None:
            gathers = any(injection.context_parallel_plan for injection in transformer.injections)
            # A compiled block's `forward` is a method of its own; hooks put other functions there.
            if gathers and isinstance(vars(transformer.transformer_blocks[0]).get("forward"), MethodType):
                raise InvalidRequestError(
                    "Compiled blocks cannot gather whole frames, which their injection needs; leave compilation off, "
                    "or use two devices (one for each branch of guidance)."
                )
            config = ContextParallelConfig(ulysses_degree=ulysses, ring_degree=ring, mesh=self._mesh)
            transformer.enable_parallelism(config=config)
        context = parallel_config(transformer).context_parallel_config
        context.ulysses_anything = not even and ulysses > 1
        context.ring_anything = not even and ring > 1

    def predict_branches(self, transformer: FantasyIDTransformer3DModel, arguments: Mapping[str, Any]) -> torch.Tensor:
        """Predict both branches of guidance, this device its own where they are parallel.

        Args:
            transformer: The network.
            arguments: Of its call, for a batch of 2B: the negative branch, then the positive.

        Returns:
            The prediction (2B, T, C, h, w), on every device.
        """
        if self.layout.guidance == 1:
            return transformer(**arguments)[0]  # type: ignore[no-any-return]
        branch = self._mesh.get_local_rank("guidance")

        def own(value: Any) -> Any:
            return value.chunk(2)[branch] if isinstance(value, torch.Tensor | IdentityKeyValues) else value

        batched = {name: own(arguments[name]) for name in _BATCHED if name in arguments}
        prediction = transformer(**{**arguments, **batched})[0].contiguous()
        predictions = [torch.empty_like(prediction) for _ in range(2)]
        dist.all_gather(predictions, prediction, group=self._mesh.get_group("guidance"))
        return torch.cat(predictions)

    def share(self, tensor: torch.Tensor) -> torch.Tensor:
        """Give every process what the first one has."""
        shared = tensor.contiguous()
        dist.broadcast(shared, src=0)
        return shared


def process_count() -> int:
    """How many processes torchrun or `launch` started; 1 if neither did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Which of the processes this is; 0 writes the files."""
    return int(os.environ.get("RANK", "0"))


def connect(device_type: str) -> torch.device:
    """Connect the processes that torchrun or `launch` started; `dist.destroy_process_group` ends it.

    Args:
        device_type: `"cuda"` or `"cpu"`.

    Returns:
        The device that this process holds.
    """
    device = torch.device(device_type)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return device


def launch(devices: int, run: Callable[..., None], *arguments: Any) -> None:
    """Run a function in one process per device of this machine, as torchrun does; an error in one ends all.

    What is raised here is what failed first: the others then miss their partner and fail too, and which of them
    PyTorch's launcher meets first is chance.

    Args:
        devices: How many processes.
        run: A function that can be pickled; it calls `connect`.
        *arguments: Its arguments.

    Raises:
        FantasyIDError: What the first process that failed raised.
        RuntimeError: It raised something else; the traceback there is a note of this error.
        ChildFailedError: A process ended without an error of Python's.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # the store takes a free port and keeps it
        local_addr="localhost",
        run_id="fantasyid",
        max_restarts=0,
        start_method="spawn",
    )
    with TemporaryDirectory() as folder:
        first = Path(folder) / "first.json"
        logging.disable()  # it logs what is raised below
        try:
            with _signals_are_handled_as_before():
                elastic_launch(config, _run_and_tell)(first, run, *arguments)
        except ChildFailedError as error:
            if first.exists():
                raise _first_error(first) from error
            raise
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def _signals_are_handled_as_before() -> Iterator[None]:
    """PyTorch's launcher handles them from then on, and would raise its own error at the next Ctrl-C."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:  # only in the main thread
                signal.signal(number, handler)


def _run_and_tell(first: Path, run: Callable[..., None], *arguments: Any) -> None:
    """Run a function; if it fails, and nobody has before, write down how."""
    try:
        run(*arguments)
    except Exception as error:
        told = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        with suppress(FileExistsError), first.open("x", encoding="utf-8") as file:
            file.write(json.dumps(told))
        raise


def _first_error(first: Path) -> Exception:
    """What `_run_and_tell` wrote down, as an error."""
    told = json.loads(first.read_text(encoding="utf-8"))
    kind = getattr(errors, told["kind"], None)
    if isinstance(kind, type) and issubclass(kind, FantasyIDError):
        return kind(told["message"])
    error = RuntimeError(f"{told['kind']}: {told['message']}")
    error.add_note(told["traceback"])
    return error
