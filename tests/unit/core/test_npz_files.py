"""Archives of arrays: what was saved comes back, and nothing that unfolds beyond the file."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.npz_files import ArchiveError, read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numbers_and_strings_come_back(tmp_path: Path, save) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "names": np.array(["x", "yz"]), "one": np.array(True)}
    save(tmp_path / "a.npz", **arrays)
    read = read_npz(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_objects_structures_and_what_is_no_array_are_refused(tmp_path: Path) -> None:
    for name, array in (("objects", np.array([{}], object)), ("structures", np.zeros(2, "f8,i4"))):
        np.savez(tmp_path / f"{name}.npz", array)
        with pytest.raises(ArchiveError, match=r"allow_pickle=False|is an array of"):
            read_npz(tmp_path / f"{name}.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("a.npy", "hello")
    with pytest.raises(ArchiveError, match="magic string"):
        read_npz(tmp_path / "text.npz")


def test_an_archive_that_unfolds_beyond_its_size_is_refused_before_it_is_unfolded(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", np.zeros(2**24, np.uint8))
    with pytest.raises(ArchiveError, match="its arrays would take 16777344 bytes, and"):
        read_npz(tmp_path / "zeros.npz")


def test_no_cut_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.arange(50))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArchiveError):
            read_npz(path)
