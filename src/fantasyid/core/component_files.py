"""Checks of a component's files before a library reads them: nothing that asks for code, nothing that asks for all
memory, all weights there.
"""

import re
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.json_files import read_json, refuse_lfs_pointer

CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "generation_config.json")
_OTHER_JSON = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
WEIGHTS_INDEX = "*.safetensors.index.json"
LARGEST_NUMBER = 2**20
"""Of the whole numbers in a network's config; the largest that a model has is T5's vocabulary of 32,128."""
_LARGEST_BUFFER = 2**26
"""Numbers in a table that is computed and not stored, where the weights have fewer bytes."""
_BUFFERS = (
    ("sample_width", "sample_height", "sample_frames", "num_attention_heads", "attention_head_dim"),
    ("levels", "spiral_length"),
    ("image_size", "image_size", "width"),
)
"""Fields of configs whose product is at least the size of such a table."""
_ASKS_FOR_CODE = re.compile(r"auto_map|quantization_config|custom_pipelines?|transformers_weights|.*implementation.*")
_ELSEWHERE = re.compile(r"(vocab|tokenizer|merges)_file")
_FORBIDDEN_FILES = ("adapter_config.json",)
"""transformers would read the network from where this file says."""


def check_files(folder: Path, remedy: str) -> None:
    """Refuse a component's folder that no library should read.

    Args:
        folder: One folder of a pipeline's.
        remedy: How to get a whole one, for the errors.

    Raises:
        MissingWeightsError: The folder or a weights file is not there, or a Git LFS pointer is in its place.
        CorruptWeightsError: A JSON file is none; a config asks for code, for files elsewhere or for a network too large
            for its weights; or a weights file is no safetensors file.
    """
    if not folder.is_dir():
        raise MissingWeightsError(f"There is no folder {folder}; {remedy}.")
    for path in sorted(folder.iterdir()):
        if path.name in _FORBIDDEN_FILES:
            raise CorruptWeightsError(f"{path} asks for weights from elsewhere, which is not done; remove it.")
        if path.is_file():
            refuse_lfs_pointer(path)
        if path.name in (*CONFIGS, *_OTHER_JSON):
            _refuse_code(path, read_json(path, remedy))
    files = weights_files(folder)
    if missing := [file.name for file in files if not file.is_file()]:
        raise MissingWeightsError(f"{folder} lacks {', '.join(missing)}; {remedy}.")
    if files:
        _check_sizes(folder, files, remedy)


def weights_files(folder: Path) -> tuple[Path, ...]:
    """Name the weight files that a component's folder should have.

    Args:
        folder: As diffusers and transformers write it: one file, or an index and its shards; or without weights.

    Returns:
        The files, there or not; empty where the folder has no weights.

    Raises:
        CorruptWeightsError: The index is none, or names files outside of the folder.
    """
    indices = sorted(folder.glob(WEIGHTS_INDEX))
    if not indices:
        return tuple(sorted(folder.glob("*.safetensors")))
    shards = read_json(indices[0]).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CorruptWeightsError(f"{indices[0]} does not say in which files the weights are; get it again.")
    names = sorted(set(shards.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise CorruptWeightsError(f"{indices[0]} names the file {outside[0]!r}, which is not beside it; get it again.")
    return tuple(folder / name for name in names)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def _refuse_code(path: Path, config: dict[str, Any]) -> None:
    for key, value in config.items():
        if value is not None and _ASKS_FOR_CODE.fullmatch(key):
            raise CorruptWeightsError(f"{path} asks for other code with {key}, which is not run; remove the field.")
        if value is not None and _ELSEWHERE.fullmatch(key):
            raise CorruptWeightsError(f"{path} names a file elsewhere with {key}, which is not read; remove the field.")


def _check_sizes(folder: Path, files: tuple[Path, ...], remedy: str) -> None:
    """Refuse a config that asks for more memory than weights of its kind need, before the network is built."""
    path = folder / "config.json"
    tensors = sum(_count_tensors(file, remedy) for file in files)
    numbers = {key: number for key, value in read_json(path, remedy).items() if (number := _number(value)) is not None}
    for key, number in numbers.items():
        largest = min(tensors, LARGEST_NUMBER) if "layers" in key else LARGEST_NUMBER
        if number > largest:
            raise CorruptWeightsError(
                f"{path} says {key}: {number}, and with these weights it can be {largest} at most; {remedy}."
            )
    largest = max(_LARGEST_BUFFER, sum(file.stat().st_size for file in files))
    for keys in _BUFFERS:
        if prod(numbers.get(key, 1) for key in keys) > largest:
            raise CorruptWeightsError(
                f"{path} asks for a table of {' x '.join(keys)} numbers, more than these weights need; {remedy}."
            )


def _number(value: Any) -> int | None:
    """A whole number, or the sum of a list of them, without sign."""
    values = value if isinstance(value, list) else [value]
    return sum(map(abs, values)) if all(isinstance(number, int) for number in values) else None


def _count_tensors(file: Path, remedy: str) -> int:
    try:
        with safe_open(file, framework="pt") as tensors:
            return len(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptWeightsError(f"{file} is no readable safetensors file ({first_line(error)}); {remedy}.") from error
