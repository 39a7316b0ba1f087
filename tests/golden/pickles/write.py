"""Writes the files beside it, with whatever Python from 2.7 on and numpy, scipy and chumpy are there.

`python write.py FOLDER NAME` makes FOLDER/NAME-p0.pkl and so on, one for each protocol. It imports nothing of ours, so
that it runs where the old versions do; chumpy's objects are in the file where chumpy can be imported.
"""

import pickle
import sys

import numpy as np
import scipy.sparse


def content():
    """What FLAME's and COMA's files are made of, small."""
    corners = np.arange(18, dtype=np.float64).reshape(6, 3) / 7
    made = {
        "v_template": corners,
        "f": np.array([[0, 1, 2], [3, 4, 5]], np.uint32),
        "shapedirs": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        "turned": np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1),
        "strided": np.arange(20, dtype=np.int64)[::2],
        "bytes": np.arange(120, 250, dtype=np.uint8),
        "visible": np.array([True, False, True]),
        "big_endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3), np.float16),
        "alone": np.array(2.5),
        "J_regressor": scipy.sparse.csc_matrix(np.array([[0, 1.5, 0], [2, 0, 0]])),
        "adj": [scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32)) for _ in range(2)],
        "bs_style": "lbs",
        "name": "K\xf6pfe",
        "joints": {"names": ["root", "neck"], "ids": {"x"}, "pair": (1, -2.5, None, True, 2**40)},
    }
    made["again"] = made["f"]
    return made


def chumpy_content():
    """Arrays and selections of chumpy's, as FLAME 2020 has them; nothing where chumpy is not installed."""
    try:
        import chumpy
    except ImportError:
        return {}
    array = chumpy.array(np.arange(12, dtype=np.float64).reshape(4, 3))
    used = chumpy.array(np.arange(3.0))
    _ = (used * 2).r  # Leaves its caches and parents in the object.
    return {"chumpy": {"array": array, "selected": array[1:3], "column": array[:, 1], "used": used}}


def main():
    """Command line."""
    folder, name = sys.argv[1:]
    made = dict(content(), **chumpy_content())
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with open("{}/{}-p{}.pkl".format(folder, name, protocol), "wb") as file:  # noqa: PTH123, UP032 (Python 2.7)
            pickle.dump(made, file, protocol)


if __name__ == "__main__":
    main()
