"""Tables of a dataset: rows are pydantic models, files are Parquet, and the same rows give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from fantasyid.core.errors import CorruptDatasetError, short_reason
from fantasyid.core.faults import first_fault
from fantasyid.core.optional import require

PURPOSE = "read and write tables of clips"


class Row(BaseModel):
    """A row of a table; fields are numbers, texts, other rows, or tuples of one kind of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


RowType = TypeVar("RowType", bound=Row)


def write_table(path: Path | IO[bytes], rows: Sequence[RowType], kind: type[RowType]) -> None:
    """Write a table.

    Args:
        path: The file to make, in a folder that exists, or an open one. It is written plainly: see `core.output_files`.
        rows: In the order in which they are read again.
        kind: Class of the rows, of which there may be none.

    Raises:
        MissingBackendError: pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "data", PURPOSE), require("pyarrow.parquet", "data", PURPOSE)
    schema = arrow.schema([(name, _arrow_type(field.annotation)) for name, field in kind.model_fields.items()])
    table = arrow.Table.from_pylist([row.model_dump() for row in rows], schema)
    # Every setting that reaches the bytes is said, so that a new default of pyarrow changes no dataset.
    settings = {"version": "2.6", "data_page_version": "1.0", "compression": "zstd", "compression_level": 3}
    parquet.write_table(table, path, **settings, store_schema=False, use_dictionary=True, row_group_size=4096)


def read_table(path: Path, kind: type[RowType], remedy: str) -> list[RowType]:
    """Read a table.

    Args:
        path: The file.
        kind: Class of its rows.
        remedy: How to get a whole one, for the error.

    Raises:
        CorruptDatasetError: It is missing, damaged, or has other columns.
        MissingBackendError: pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "data", PURPOSE), require("pyarrow.parquet", "data", PURPOSE)
    try:
        rows = parquet.read_table(path, partitioning=None).to_pylist()
        return [kind.model_validate(row) for row in rows]
    except (OSError, arrow.ArrowException) as error:
        raise CorruptDatasetError(f"The table {path} cannot be read ({short_reason(error)}); {remedy}.") from error
    except ValidationError as error:
        place, said = first_fault(error)
        raise CorruptDatasetError(
            f"The table {path} has another {place} than this version writes ({said}); {remedy}."
        ) from error


def _arrow_type(annotation: Any) -> Any:
    """Arrow's type for a field's."""
    arrow = require("pyarrow", "data", PURPOSE)
    simple = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    if annotation in simple:
        return simple[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arrow.string()
    if origin is UnionType:
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return _arrow_type(kind)
    if origin is tuple:
        return arrow.list_(_arrow_type(arguments[0]))
    assert issubclass(annotation, Row), f"rows hold no {annotation}"
    return arrow.struct([(name, _arrow_type(field.annotation)) for name, field in annotation.model_fields.items()])
