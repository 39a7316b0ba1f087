"""Tables and shards: what is written is read back, and the same content has the same bytes in every process."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch

from fantasyid.core.errors import CorruptDatasetError
from fantasyid.data.dataset.shards import Shard, write_shard
from fantasyid.data.dataset.tables import Row, read_table, write_table


class Leaf(Row):
    name: str
    sizes: tuple[float, ...]


class Tree(Row):
    age: int
    kind: Literal["oak", "elm"]
    leaves: tuple[Leaf, ...] = ()
    box: tuple[int, ...] | None = None
    green: bool = True


TREES = [
    Tree(age=2**40, kind="oak", leaves=(Leaf(name="ä", sizes=(0.1, 1e-30)), Leaf(name="", sizes=()))),
    Tree(age=-1, kind="elm", box=(1, 2, 3, 4), green=False),
]
TENSORS = {"b/x": torch.arange(6.0).view(2, 3), "a": torch.arange(5, dtype=torch.uint8), "c": torch.ones(2).half()}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    for rows in (TREES, []):
        write_table(tmp_path / "trees.parquet", rows, Tree)
        assert read_table(tmp_path / "trees.parquet", Tree, "plant again") == rows


def test_tables_that_are_damaged_or_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trees.parquet"
    with pytest.raises(CorruptDatasetError, match=r"trees.parquet cannot be read .*; plant again\."):
        read_table(path, Tree, "plant again")
    write_table(path, [Leaf(name="a", sizes=())], Leaf)
    with pytest.raises(CorruptDatasetError, match="has another age than this version writes"):
        read_table(path, Tree, "plant again")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptDatasetError, match="cannot be read"):
        read_table(path, Leaf, "plant again")


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", TENSORS)
    shard = Shard(tmp_path / "shard", "pack again")
    assert shard.names() == ("a", "b/x", "c")
    for name, tensor in TENSORS.items():
        assert torch.equal(shard.tensor(name), tensor)
        assert shard.tensor(name).dtype == tensor.dtype
    with pytest.raises(CorruptDatasetError, match="has no d; pack again"):
        shard.tensor("d")
    (tmp_path / "shard").write_bytes((tmp_path / "shard").read_bytes()[:-1])
    with pytest.raises(CorruptDatasetError, match=r"shard cannot be read .*; pack again"):
        Shard(tmp_path / "shard", "pack again")


def test_the_same_content_has_the_same_bytes_in_another_process_and_order(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", TENSORS)
    write_table(tmp_path / "table", TREES, Tree)
    program = (
        "from pathlib import Path\nfrom tests.unit.data.dataset.test_files import *\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "write_shard(folder / 'shard2', dict(reversed(TENSORS.items())))\nwrite_table(folder / 'table2', TREES, Tree)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4])
    assert (tmp_path / "shard").read_bytes() == (tmp_path / "shard2").read_bytes()
    assert (tmp_path / "table").read_bytes() == (tmp_path / "table2").read_bytes()
