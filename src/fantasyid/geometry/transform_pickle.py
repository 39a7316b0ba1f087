"""COMA-style mesh hierarchies, such as the one of FLAME that the released checkpoint was trained on."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.geometry.array_pickle import load_array_pickle
from fantasyid.geometry.topology import IntArray, MeshTopology

_FARTHEST = 1e9  # In no unit is a head larger, and squares of distances stay numbers.
_REMEDY = "take assets/transform.pkl of a release that has one, such as FantasyID's, or make one with COMA's tools"


@dataclass(frozen=True, eq=False)
class TransformPickle:
    """Levels of one mesh, finest first, exactly as they stand in the file; level l has N_l vertices."""

    vertices: tuple[NDArray[np.float64], ...]
    """(N_l, 3) positions of the template, in the units and the place that its maker chose."""
    triangles: tuple[IntArray, ...]
    """(F_l, 3) vertex indices."""
    down: tuple[csr_matrix, ...]
    """(N_{l+1}, N_l) one for each step: a vertex of level l+1 out of those of level l."""
    up: tuple[csr_matrix, ...]
    """(N_l, N_{l+1}) one for each step back. COMA's rows are barycentric in the plane of the nearest triangle: outside
    of it they have negative weights, and their sums differ from 1 by some percent."""


def load_transform_pickle(path: Path) -> TransformPickle:
    """Read a COMA-style hierarchy without running anything that is in it.

    Args:
        path: A pickle of a dict with the lists `vertices`, `face`, `down_transform` and `up_transform`.

    Returns:
        Its levels.

    Raises:
        MissingWeightsError: There is no such file.
        CorruptWeightsError: It is damaged, holds something else than arrays, or its levels do not fit together.
    """
    path = Path(path)
    content = load_array_pickle(path, _REMEDY)
    names = ("vertices", "face", "down_transform", "up_transform")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in names):
        raise CorruptWeightsError(f"{path} is no mesh hierarchy: it needs the lists {', '.join(names)}; {_REMEDY}")
    vertices, triangles, down, up = (tuple(content[name]) for name in names)
    problem = _problem(vertices, triangles, down, up)
    if problem:
        raise CorruptWeightsError(f"{path}: {problem}; {_REMEDY}")
    return TransformPickle(
        vertices=tuple(level.astype(np.float64) for level in vertices),
        triangles=tuple(level.astype(np.int64) for level in triangles),
        down=down,
        up=up,
    )


def _problem(
    vertices: tuple[Any, ...], triangles: tuple[Any, ...], down: tuple[Any, ...], up: tuple[Any, ...]
) -> str | None:
    if not vertices or len(triangles) != len(vertices) or not len(down) == len(up) == len(vertices) - 1:
        levels = f"{len(vertices)} levels of vertices and {len(triangles)} of triangles"
        return f"it has {levels}, {len(down)} steps down and {len(up)} up, which do not fit together"
    for number, level in enumerate((*vertices, *triangles)):
        if not isinstance(level, np.ndarray) or level.ndim != 2 or level.shape[1] != 3:
            return f"{'vertices' if number < len(vertices) else 'face'} of a level are no array of shape (N, 3)"
    counts = [len(level) for level in vertices]
    if any(level.dtype.kind != "f" or not (np.abs(level) <= _FARTHEST).all() for level in vertices):
        return f"vertices of a level are no numbers up to {_FARTHEST:g}"
    for level, count in zip(triangles, counts, strict=True):
        if level.dtype.kind not in "iu" or not level.size or level.min() < 0 or level.max() >= count:
            return f"face does not index the {count} vertices of its level"
        try:
            MeshTopology(level, count)
        except ValueError as error:
            return f"face is no mesh ({error})"
    for step, (fine, coarse) in enumerate(pairwise(counts)):
        for name, matrix, shape in (("down", down[step], (coarse, fine)), ("up", up[step], (fine, coarse))):
            if not isinstance(matrix, csr_matrix) or matrix.shape != shape:
                return f"{name}_transform {step} is no sparse matrix of shape {shape}"
            if not np.isfinite(matrix.data).all():
                return f"{name}_transform {step} has weights that are not finite"
    return None
