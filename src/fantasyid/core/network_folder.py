"""Strict reading of what diffusers and transformers save in a folder: a network, a scheduler or a tokenizer."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from fantasyid.core.building import BUILDING
from fantasyid.core.component_files import check_files, first_line, weights_files
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError

Component = TypeVar("Component")


def load_network(folder: Path, cls: type[Component], dtype: torch.dtype | None, remedy: str) -> Component:
    """Read a network, in evaluation mode.

    Args:
        folder: As `save_pretrained` of diffusers or transformers writes it.
        cls: The network's class.
        dtype: Type of its floating-point numbers; None takes the class's own.
        remedy: How to get a whole folder, for the errors.

    Returns:
        The network, with every weight of its class and no other.

    Raises:
        MissingWeightsError: A file is not there, or a Git LFS pointer is in its place.
        CorruptWeightsError: A file is damaged or asks for code; or a weight is missing, unknown, of another shape, or
            not finite.
    """
    check_files(folder, remedy)
    if not weights_files(folder):
        raise MissingWeightsError(f"{folder} has no weights in *.safetensors, the only kind that is read; {remedy}.")
    arguments: dict[str, Any] = {"output_loading_info": True, "use_safetensors": True}
    if dtype is not None:
        arguments["dtype" if issubclass(cls, PreTrainedModel) else "torch_dtype"] = dtype
    network, info = read_component(folder, cls, remedy, **arguments)
    computed = {name for name, _ in network.named_buffers()} - set(network.state_dict())
    for kind in ("missing", "unexpected", "mismatched"):
        # Old checkpoints also hold tables that the network computes itself, such as the positions' numbers.
        if names := sorted(set(map(str, info[f"{kind}_keys"])) - computed):
            problem = f"{len(names)} {kind}, such as {names[0]}"
            raise CorruptWeightsError(f"The weights in {folder} do not fit a {cls.__name__}: {problem}; {remedy}.")
    check_finite(network, f"{folder}", remedy)
    return network.eval()  # type: ignore[no-any-return]


def read_component(folder: Path, cls: Any, remedy: str, **arguments: Any) -> Any:
    """Have a class read itself from a folder, offline, and turn whatever it raises into one error.

    Args:
        folder: A folder that `check_files` let pass.
        cls: A class with `from_pretrained`.
        remedy: How to get a whole folder, for the error.
        **arguments: Of `from_pretrained`.

    Returns:
        What `from_pretrained` returns.

    Raises:
        CorruptWeightsError: It cannot be read as this class.
    """
    try:
        with BUILDING:
            return cls.from_pretrained(folder, local_files_only=True, **arguments)
    # A damaged file can make the libraries' readers and the classes' constructors raise anything.
    except Exception as error:
        raise CorruptWeightsError(
            f"{folder} cannot be read as a {cls.__name__} ({type(error).__name__}: {first_line(error)}); {remedy}."
        ) from error


def check_finite(network: torch.nn.Module, source: str, remedy: str) -> None:
    """Refuse a network with weights that are NaN or infinite.

    Args:
        network: The network.
        source: Where its weights come from, for the error.
        remedy: How to get better ones.

    Raises:
        CorruptWeightsError: It has one; the message names it.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        if not torch.isfinite(torch.stack(torch.aminmax(tensor))).all():
            raise CorruptWeightsError(f"The weight {name} in {source} holds numbers that are not finite; {remedy}.")
