"""Reading presets, and keeping the config in the run's folder, so that a resumed run is the one that was begun."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fantasyid.core.errors import InvalidRequestError, short_reason
from fantasyid.core.output_files import write_file
from fantasyid.core.yaml_files import read_fields
from fantasyid.training.config import STAGES, AnyStage

CONFIG_FILE = "config.yaml"
_CHANGE_NO_NUMBER = {
    "shard_among",
    "pools_on",
    "recompute",
    "tensorboard",
    "optimiser.accumulation",
    "optimiser.save_every",
}
"""How the work is shared out and kept; a run may go on with another value."""


def load_stage(path: Path, *stages: str) -> AnyStage:
    """Read a preset file, or the config that a run kept.

    Args:
        path: The file.
        stages: Of `STAGES`; a file that names another is refused, and one that names none is of the first.

    Raises:
        InvalidRequestError: The file is missing, or a field of it is wrong; the message names file, field and remedy.
    """
    content = read_fields(path, "configs/train")
    stage = content.get("stage", stages[0])
    if stage not in stages:
        raise InvalidRequestError(f"{path} is a config of the stage {stage}; give one of {' or '.join(stages)}.")
    try:
        return STAGES[stage].model_validate({"stage": stage} | content)
    except ValidationError as error:
        raise InvalidRequestError(f"The preset {path} of the stage {stage} is not valid: {_fault(error)}.") from error


def keep_config(config: AnyStage, folder: Path, writes: bool = True) -> None:
    """Write the config into the run's folder; where a run was begun, refuse another one than that run's.

    Steps may be more than they were, and how the work is shared out may change.

    Args:
        config: What is asked for now.
        folder: The run's, existing.
        writes: Whether this process writes; the others only compare.

    Raises:
        InvalidRequestError: The run that is to be resumed was begun with other values, or kept none.
    """
    path = folder / CONFIG_FILE
    if (folder / "checkpoint.pt").exists():
        raise InvalidRequestError(
            f"{folder} holds a run of an earlier version (checkpoint.pt); continue it with that version, or start anew "
            "in another folder with --out."
        )
    if path.exists():
        kept = load_stage(path, config.stage)
        _refuse_other(config, kept, folder)
        if config == kept:
            return
    elif (folder / "checkpoints").exists():
        raise InvalidRequestError(
            f"{folder} holds checkpoints and no {CONFIG_FILE}, so it cannot be told with which config it was begun; "
            "start anew in another folder with --out."
        )
    if writes:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_file(
            path, f"# The config as used; steps may be raised, and how work is shared out may change.\n{text}".encode()
        )


def differences(asked: Mapping[str, Any], got: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields that are asked for with another value, also within fields.

    Args:
        asked: The fields that count.
        got: What there is; may have more.
        place: What stands before the names, such as `"model."`.

    Yields:
        Name, the value asked for, and the value there; None where there is no such field.
    """
    for name, value in asked.items():
        other = got.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from differences(value, other, f"{place}{name}.")
        elif _plain(value) != _plain(other):
            yield f"{place}{name}", _plain(value), _plain(other)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _refuse_other(config: AnyStage, kept: AnyStage, folder: Path) -> None:
    for name, asked, before in differences(config.model_dump(), kept.model_dump()):
        if (name == "optimiser.steps" and asked > before) or name in _CHANGE_NO_NUMBER:
            continue
        raise InvalidRequestError(
            f"The run in {folder} was begun with {name}: {before}, and the preset says {asked}; go on with the same "
            f"config ({folder / CONFIG_FILE}), or begin another run elsewhere with --out."
        )


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {short_reason(ValueError(repr(first['input'])))}"
    if first["type"] == "missing":
        message = "is required and missing"
    return f"{place}: {message}" if place else message
