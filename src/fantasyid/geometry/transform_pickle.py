"""COMA-style mesh hierarchies, such as the one of FLAME that the released checkpoint was trained on.

As a command, it turns one into a mesh hierarchy of ours, without pickle and with the topologies' hashes:
`python -m fantasyid.geometry.transform_pickle transform.pkl --levels 3 --spiral-length 9 --out hierarchy.npz`.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError
from fantasyid.geometry.array_pickle import load_array_pickle
from fantasyid.geometry.decimate import MeshHierarchy, WeightArray, closest_points
from fantasyid.geometry.spirals import spiral_indices
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


def import_hierarchy(transform: TransformPickle, num_levels: int, spiral_length: int) -> MeshHierarchy:
    """Make a mesh hierarchy of ours from one that was read.

    Triangles and the steps down are kept. Spirals are ours, and so are the steps up, because ours are means of three
    vertices of the same connected component, which COMA's are not.

    Args:
        transform: The levels.
        num_levels: How many to take, finest first, 1 or more.
        spiral_length: Vertices per spiral on every level.

    Returns:
        The hierarchy.

    Raises:
        InvalidRequestError: There are fewer levels.
        CorruptWeightsError: A step down is no mean of at most three vertices, or loses a connected component, or the
            triangles around a vertex have no order.
    """
    if not 1 <= num_levels <= len(transform.vertices):
        raise InvalidRequestError(
            f"{num_levels} levels were asked for and the file has {len(transform.vertices)}; choose 1 to that"
        )
    topologies = tuple(
        MeshTopology(triangles, len(vertices))
        for vertices, triangles in zip(transform.vertices[:num_levels], transform.triangles, strict=False)
    )
    down = [_three_per_row(matrix, step) for step, matrix in enumerate(transform.down[: num_levels - 1])]
    up = []
    for step, (index, _) in enumerate(down):
        fine, coarse = topologies[step], topologies[step + 1]
        # Which component of the coarse mesh each of the fine one became: their numbers need not agree.
        successor = np.full(fine.components.max() + 1, -1)
        successor[fine.components[index[:, 0]]] = coarse.components
        if (successor < 0).any():
            raise CorruptWeightsError(
                f"down_transform {step} drops a connected component of the mesh; take at most {step + 1} levels"
            )
        up.append(
            closest_points(transform.vertices[step], successor[fine.components], transform.vertices[step + 1], coarse)
        )
    try:
        spirals = tuple(spiral_indices(topology, spiral_length) for topology in topologies)
    except ValueError as error:
        raise CorruptWeightsError(f"face is no surface: {error}; {_REMEDY}") from error
    return MeshHierarchy(
        topologies=topologies,
        spirals=spirals,
        down_index=tuple(index for index, _ in down),
        down_weight=tuple(weight for _, weight in down),
        up_index=tuple(index for index, _ in up),
        up_weight=tuple(weight.astype(np.float32) for _, weight in up),
    )


def _three_per_row(matrix: csr_matrix, step: int) -> tuple[IntArray, WeightArray]:
    """Columns and weights of a sparse matrix of means, the largest weight first."""
    counts = np.diff(matrix.indptr)
    weight = np.zeros((len(counts), 3), np.float32)
    if counts.min() < 1 or counts.max() > 3:
        raise CorruptWeightsError(f"down_transform {step} has rows of {counts.min()} to {counts.max()}; {_REMEDY}")
    index = np.repeat(matrix.indices[matrix.indptr[:-1]][:, None].astype(np.int64), 3, axis=1)
    for row, (start, stop) in enumerate(pairwise(matrix.indptr.tolist())):
        order = start + np.argsort(-matrix.data[start:stop], kind="stable")
        index[row, : stop - start], weight[row, : stop - start] = matrix.indices[order], matrix.data[order]
    if (weight < 0).any() or not np.allclose(weight.sum(1), 1, atol=1e-4):
        raise CorruptWeightsError(f"down_transform {step} has rows that are no means; {_REMEDY}")
    return index, weight


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


def main() -> None:
    """Command line of the importer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pickle", type=Path, help="the transform.pkl")
    parser.add_argument("--levels", type=int, required=True, help="how many levels to take, finest first")
    parser.add_argument("--spiral-length", type=int, required=True, help="vertices per spiral")
    parser.add_argument("--out", type=Path, required=True, help="the npz to write")
    arguments = parser.parse_args()
    transform = load_transform_pickle(arguments.pickle)
    import_hierarchy(transform, arguments.levels, arguments.spiral_length).save(arguments.out)


if __name__ == "__main__":
    main()
