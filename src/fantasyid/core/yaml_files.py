"""Reading presets: YAML files that hold the fields of a pydantic model."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.input_files import check_input_file

ModelType = TypeVar("ModelType", bound=BaseModel)


def read_preset(path: Path, kind: type[ModelType], examples: str) -> ModelType:
    """Read a preset.

    Args:
        path: The file.
        kind: What it holds.
        examples: Where good ones lie, for the errors.

    Raises:
        InvalidRequestError: There is no such file, or a field is wrong; the message names it.
    """
    content = read_fields(path, examples)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(
            f"The field {field} of the preset {path} cannot be {first['input']!r} ({first['msg']}); see {examples}."
        ) from error


def read_fields(path: Path, examples: str) -> dict[Any, Any]:
    """Read a preset's fields as they stand there.

    Args:
        path: The file.
        examples: Where good ones lie, for the errors.

    Raises:
        InvalidRequestError: There is no such file, it is not YAML, or it holds no fields.
    """
    check_input_file(path, "preset")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidRequestError(f"The preset {path} is not YAML ({reason}); see {examples}.") from error
    if not isinstance(content, dict):
        raise InvalidRequestError(f"The preset {path} holds no fields; see {examples}.")
    return content
