"""Files in the forms of FLAME's and DECA's, with numbers of our own that anyone can make again from the seeds."""

import pickle
import struct
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csc_matrix

from fantasyid.models.deca_encoder import DecaEncoder, key_table

NUM_VERTICES = 120


def flame_arrays() -> dict[str, Any]:
    """The content of a FLAME file for a bordered mesh of 120 vertices, about as large as a head."""
    rng = np.random.RandomState(0)
    column, row = np.meshgrid(np.arange(12), np.arange(10))
    corners = [12 * y + x for y in range(9) for x in range(11)]
    joints = np.zeros((5, NUM_VERTICES))
    for joint in joints:
        joint[rng.choice(NUM_VERTICES, 8, replace=False)] = 1 / 8
    follows = rng.uniform(size=(NUM_VERTICES, 5))
    return {
        "v_template": np.stack([column / 60 - 0.09, row / 50 - 0.1, np.cos(column / 4 - 1.4) / 10], 2).reshape(-1, 3),
        "f": np.array([t for v in corners for t in ([v, v + 1, v + 13], [v, v + 13, v + 12])], np.uint32),
        "shapedirs": rng.uniform(-0.003, 0.003, (NUM_VERTICES, 3, 400)),
        "posedirs": rng.uniform(-0.003, 0.003, (NUM_VERTICES, 3, 36)),
        "J_regressor": csc_matrix(joints),
        "J": joints @ rng.uniform(size=(NUM_VERTICES, 3)),
        "weights": follows / follows.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_flame_2020(path: Path) -> None:
    """As Python 2 with chumpy wrote it: byte strings, old module names, arrays inside `Ch` and `Select` objects."""
    arrays = flame_arrays()
    with _fake_chumpy() as (ch, select):
        chumpy_arrays = {
            "v_template": ch(x=arrays["v_template"], _dirty_vars=set(), _itr=None),
            "shapedirs": ch(x=arrays["shapedirs"], _dirty_vars={"x"}, _depends_on_deps={}),
            "weights": select(
                a=ch(x=np.concatenate([np.zeros(7), arrays["weights"].ravel()])),
                idxs=np.arange(7, 7 + arrays["weights"].size),
                preferred_shape=arrays["weights"].shape,
            ),
        }
        with path.open("wb") as file:
            _Python2Pickler(file, protocol=2).dump({**arrays, **chumpy_arrays})
    content = path.read_bytes()
    for new, old in ((b"scipy.sparse._csc\n", b"scipy.sparse.csc\n"), (b"numpy._core.", b"numpy.core.")):
        content = content.replace(new, old)
    path.write_bytes(content)


def write_flame_2023(path: Path) -> None:
    """As Python 3 writes plain arrays."""
    path.write_bytes(pickle.dumps(flame_arrays()))


def write_flame_npz(path: Path) -> None:
    """The same without pickle; the joints' matrix is dense."""
    arrays = flame_arrays()
    np.savez(path, **{**arrays, "J_regressor": arrays["J_regressor"].toarray()})


def deca_state() -> dict[str, torch.Tensor]:
    """The 25.8 million numbers of an encoder under DECA's names, from seed 0 in the order of the sorted names."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in DecaEncoder().state_dict().items()}
    table = key_table()
    state = {}
    for key in sorted(table):
        number = torch.rand(shapes[table[key]], generator=generator) * 2 - 1
        if number.ndim > 1:
            number *= (6 / number[0].numel()) ** 0.5
        elif key.endswith(("bias", "running_mean")):
            number *= 0.1
        else:
            number = 0.6 + 0.3 * number
        state[key] = number
    norms = [key.removesuffix("running_var") for key in table if key.endswith("running_var")]
    return state | {f"{norm}num_batches_tracked": torch.tensor(1000) for norm in norms}


def write_deca(path: Path, state: dict[str, torch.Tensor], **parts: Any) -> None:
    """As DECA's trainer wrote it."""
    torch.save({"E_flame": state, "E_detail": {}, "D_detail": {}, "opt": {}, "global_step": 1, **parts}, path)


class _Python2Pickler(pickle._Pickler):
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, content: bytes | str) -> None:
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(content)

    dispatch[bytes] = dispatch[str] = save_string


@contextmanager
def _fake_chumpy():
    """Classes under chumpy's names, there while a file is written."""

    class Ch:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state)

    class Select(Ch):
        pass

    modules = {name: ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    for module, made in (("chumpy.ch", Ch), ("chumpy.reordering", Select)):
        made.__module__, made.__qualname__ = module, made.__name__
        setattr(modules[module], made.__name__, made)
    sys.modules.update(modules)
    try:
        yield Ch, Select
    finally:
        for name in modules:
            del sys.modules[name]
