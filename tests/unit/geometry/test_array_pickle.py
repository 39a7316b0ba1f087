import os
import pickle
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.geometry import pickled_arrays
from fantasyid.geometry.array_pickle import load_array_pickle

WRITTEN = Path(__file__).parents[2] / "golden" / "pickles"
writer = SourceFileLoader("writer", str(WRITTEN / "write.py")).load_module()
CHUMPY = np.arange(12.0).reshape(4, 3)
SPARSE = csc_matrix(np.array([[0, 1.5, 0], [2, 0, 0]], np.float32))


class Command:
    """Runs a program when it is unpickled in the usual way."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def written(path, content, protocol=2):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_come_back(tmp_path, protocol):
    arrays = {
        "c": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.uint32).reshape(2, 3)),
        "list": [np.array([True, False]), "lbs", 3, None, (1.5, b"raw")],
        "sparse": [SPARSE, csr_matrix(SPARSE)],
    }
    read = load_array_pickle(written(tmp_path / "a.pkl", arrays, protocol), "x")
    assert list(read) == list(arrays)
    for name in ("c", "fortran"):
        np.testing.assert_array_equal(read[name], arrays[name])
        assert read[name].dtype == arrays[name].dtype
    np.testing.assert_array_equal(read["list"][0], [True, False])
    assert read["list"][1:] == arrays["list"][1:]
    for matrix in read["sparse"]:
        assert isinstance(matrix, csr_matrix)
        np.testing.assert_array_equal(matrix.toarray(), SPARSE.toarray())


@pytest.mark.parametrize("path", sorted(WRITTEN.glob("*.pkl")), ids=lambda path: path.stem)
def test_files_that_old_and_new_versions_really_wrote_come_back(path):
    read = load_array_pickle(path, "x")
    expected = writer.content()
    chumpy = {"array": CHUMPY, "selected": CHUMPY[1:3], "column": CHUMPY[:, 1], "used": np.arange(3.0)}
    assert set(read) == set(expected) | ({"chumpy"} if "chumpy" in path.stem else set())
    for name, array in [*expected.items(), *(chumpy.items() if "chumpy" in path.stem else ())]:
        found = read[name] if name in read else read["chumpy"][name]
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(found, array)
            assert found.dtype == array.dtype.newbyteorder("=")
            assert found.flags.writeable
        elif name == "adj":
            assert [matrix.toarray().tolist() for matrix in found] == [matrix.toarray().tolist() for matrix in array]
        elif name == "J_regressor":
            np.testing.assert_array_equal(found.toarray(), array.toarray())
        else:
            assert found == array
    assert read["again"] is read["f"]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [lambda c: c, lambda c: {"f": [c]}, lambda c: np.array([c, None], object)])
def test_a_command_in_the_file_is_refused_and_not_run(tmp_path, protocol, nested):
    marker = tmp_path / "ran"
    path = written(tmp_path / "evil.pkl", nested(Command(os.system, f"touch {marker}")), protocol)
    with pytest.raises(
        CorruptWeightsError, match=r"evil\.pkl.*asks for posix\.system, which is refused\); get another"
    ):
        load_array_pickle(path, "get another")
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # the payload was a real one


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Command(eval, "1 + 1"), "__builtin__.eval"),
        (Command(getattr, 1, "real"), "getattr"),
        (Command(Path, "x"), "Path"),
        (np.float64(1.0), "scalar"),
    ],
)
def test_nothing_else_is_called(tmp_path, call, named):
    with pytest.raises(CorruptWeightsError, match=named):
        load_array_pickle(written(tmp_path / "a.pkl", call), "x")


@pytest.mark.parametrize(
    "content",
    [
        np.array(["text"]),
        np.array([{}, []], object),
        pickle.dumps({"a": np.arange(500)})[:-40],
        b"",
        b"not a pickle",
        b"\x80\x02cchumpy.ch\nCh\n.",
        b"\x80\x02cchumpy.ch\nCh\n)\x81.",
        b"\x80\x02ccopy_reg\n_reconstructor\ncnumpy\nndarray\nc__builtin__\nobject\nN\x87R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.",
    ],
)
def test_everything_but_arrays_is_refused(tmp_path, content):
    path = written(tmp_path / "a.pkl", content)
    with pytest.raises(CorruptWeightsError, match=rf"a\.pkl \({path.stat().st_size} bytes\)"):
        load_array_pickle(path, "x")


def test_a_file_cannot_change_the_stand_ins(tmp_path):
    before = dict(vars(pickled_arrays.ChumpyArray))
    # Gives the class itself, not an object of it, the state (None, {"poison": 1}), which sets attributes.
    path = written(tmp_path / "a.pkl", b"\x80\x02cchumpy.ch\nCh\nN}X\x06\x00\x00\x00poisonK\x01s\x86b.")
    with pytest.raises(CorruptWeightsError):
        load_array_pickle(path, "x")
    assert dict(vars(pickled_arrays.ChumpyArray)) == before


@pytest.mark.parametrize(
    ("name", "value"), [("indices", [0, 9]), ("indptr", [0, 1, 1, 5]), ("data", [1.0]), ("indptr", [0, 1, 99, 0])]
)
def test_a_sparse_matrix_that_points_outside_is_refused(tmp_path, name, value):
    matrix = SPARSE.copy()
    setattr(matrix, name, np.array(value, getattr(matrix, name).dtype))
    with pytest.raises(CorruptWeightsError):
        load_array_pickle(written(tmp_path / "a.pkl", [matrix]), "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"none\.pkl; get one there"):
        load_array_pickle(tmp_path / "none.pkl", "get one there")
