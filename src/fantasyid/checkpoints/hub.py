"""What `from_pretrained` is asked for, and how a model gets from the Hugging Face Hub onto this machine."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of the client, which changed
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fantasyid.core.errors import InvalidRequestError, MissingWeightsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types that weights can be loaded in, by name."""
_HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only")


@dataclass(frozen=True)
class LoadingRequest:
    """What `from_pretrained` is asked for.

    Attributes:
        dtype: Type of the networks; None takes their own.
        device: Where the pipeline goes; None leaves it on the CPU.
        hub: Arguments of `huggingface_hub.snapshot_download`.
        given: Components and settings to use instead of the model's.
    """

    dtype: torch.dtype | None
    device: torch.device | None
    hub: Mapping[str, Any]
    given: Mapping[str, Any]

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], known: Collection[str]) -> "LoadingRequest":
        """Sort and check the arguments of `from_pretrained`.

        Args:
            arguments: All but the model's name.
            known: Names of the pipeline's components and settings.

        Raises:
            InvalidRequestError: An argument or its value is not known.
        """
        given = dict(arguments)
        hub = {name: given.pop(name) for name in _HUB_ARGUMENTS if name in given}
        if None not in (given.get("dtype"), given.get("torch_dtype")):
            raise InvalidRequestError("Pass dtype or torch_dtype, which are two names of one thing, not both.")
        dtype, torch_dtype = given.pop("dtype", None), given.pop("torch_dtype", None)
        device_map = given.pop("device_map", None)
        if unknown := sorted(set(given) - set(known)):
            raise InvalidRequestError(
                f"from_pretrained does not take {', '.join(unknown)}; it takes torch_dtype, device_map, "
                f"{', '.join(_HUB_ARGUMENTS)}, and {', '.join(sorted(known))}."
            )
        return cls(_read_dtype(torch_dtype if dtype is None else dtype), _read_device(device_map), hub, given)


def _read_dtype(value: Any) -> torch.dtype | None:
    if value is None:
        return None
    for name, dtype in DTYPES.items():
        if value in (dtype, name, f"torch.{name}"):
            return dtype
    raise InvalidRequestError(f"torch_dtype is {value!r}; it can be {', '.join(DTYPES)}, as a name or of torch.")


def _read_device(value: Any) -> torch.device | None:
    if value is None:
        return None
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise InvalidRequestError(
            f"device_map is {value!r}; it can be one device, such as 'cuda' or 'cpu'. For several devices see "
            "enable_parallelism, for little memory fantasyid.pipelines.memory.apply_plan."
        ) from error


def download_model(name: str, hub: Mapping[str, Any], remedy: str = "") -> Path:
    """Get a model from the Hugging Face Hub, or from its cache where the machine is offline.

    Args:
        name: Its repository, `"owner/name"`.
        hub: `revision`, `token`, `cache_dir` and `local_files_only` of `snapshot_download`.
        remedy: Sentence about another way to get this model, if there is one.

    Returns:
        The folder in the cache.

    Raises:
        MissingWeightsError: It cannot be had; the message says why and what helps.
    """
    # diffusers' own download refuses pipelines whose components are defined in another package.
    try:
        return Path(snapshot_download(name, **hub))
    except (HFValidationError, OSError, HTTPError) as error:
        raise MissingWeightsError(
            f"There is no model {name!r}: it is neither 'mini', nor a folder, nor to be had from the Hugging Face Hub: "
            f"{_reason(error, name, hub)}.{remedy and ' ' + remedy}"
        ) from error


def _reason(error: Exception, name: str, hub: Mapping[str, Any]) -> str:
    """Why a model cannot be had, and what helps; children of errors before their parents."""
    match error:
        case HFValidationError():
            return "it is no name of a model there"
        case GatedRepoError():
            return "accept its terms on its page there, then log in with `hf auth login` or pass token="
        case RevisionNotFoundError():
            return f"it has no revision {hub.get('revision')!r}"
        case RepositoryNotFoundError():
            return "there is none of that name; if it is private, log in with `hf auth login` or pass token="
        case LocalEntryNotFoundError():
            return _offline(name, hub)
    return f"the download broke off ({type(error).__name__}: {error}); try again, it goes on where it was"


def _offline(name: str, hub: Mapping[str, Any]) -> str:
    if hub.get("local_files_only"):
        return "local_files_only is set and it is not, or not wholly, in the cache; load it once without"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set and it is not, or not wholly, in the cache; unset it and load it once"
    return (
        "the Hub cannot be reached and it is not, or not wholly, in the cache; go online, or download it elsewhere "
        f"with `hf download {name} --local-dir FOLDER` and name that folder"
    )
