"""FLAME, the head model of the paper (3.3): the user's own file, read without chumpy and without running code in it.

Conventions are FLAME's own: metres, x to the subject's left (right of the picture), y up, z to the viewer; rotations
are axis-angle in radians. The mesh has 5023 vertices; nothing here depends on their number.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.sparse import issparse
from torch import Tensor

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.core.npz_files import ArchiveError, read_npz
from fantasyid.geometry.array_pickle import load_array_pickle
from fantasyid.geometry.topology import MeshTopology

JOINT_NAMES = ("root", "neck", "jaw", "eye_left", "eye_right")
NUM_SHAPE = 300
NUM_EXPRESSION = 100
LICENCE = "FLAME 2020 and 2023: MPI's model licence, non-commercial research only; FLAME 2023 Open: CC-BY-4.0"
SIZE_MB = 53
"""Of FLAME 2020's generic_model.pkl, by the sizes of its arrays."""
DEFAULT_FOLDER = Path("~/.cache/fantasyid/deca")
"""Where the user's FLAME and DECA files are looked for when no path is given."""
REMEDY = (
    f"register at https://flame.is.tue.mpg.de, download FLAME 2020 (generic_model.pkl, about {SIZE_MB} MB, the one "
    "that DECA needs), FLAME 2023 (flame2023.pkl) or FLAME 2023 Open (flame2023_Open.pkl), and give its path or put it "
    f"into {DEFAULT_FOLDER} ({LICENCE}; read the terms that come with the file)"
)


@dataclass(frozen=True, eq=False)
class PosedHeads:
    """Heads with their joints turned.

    Attributes:
        vertices: (B, N, 3) metres.
        joints: (B, 5, 3) metres, where the joints of `JOINT_NAMES` are.
    """

    vertices: Tensor
    joints: Tensor


@dataclass(frozen=True, eq=False)
class FlameModel:
    """Mean head, linear bases and skeleton of a FLAME file with N vertices."""

    template: Tensor
    """(N, 3) float32 metres, the mean head."""
    triangles: Tensor
    """(F, 3) int64, counter-clockwise seen from outside."""
    shape_basis: Tensor
    """(N, 3, 300) float32 metres per unit sigma."""
    expression_basis: Tensor
    """(N, 3, 100) float32 metres per unit sigma."""
    pose_basis: Tensor
    """(N, 3, 36) float32 metres per entry of the rotation matrices of all joints but the root, minus identity."""
    joint_regressor: Tensor
    """(5, N) float32: each joint of `JOINT_NAMES` as a mean of vertices."""
    skinning_weights: Tensor
    """(N, 5) float32: how far each vertex follows each joint, sum 1."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root; parents come first."""

    @property
    def topology(self) -> MeshTopology:
        """Connectivity, whose `.hash` names this mesh."""
        return MeshTopology(self.triangles.cpu().numpy(), len(self.template))

    def shaped(self, shape: Tensor, expression: Tensor | None = None) -> Tensor:
        """Heads that look straight ahead.

        Args:
            shape: (B, S) in sigmas, S <= 300: the first coefficients; the others are 0.
            expression: (B, E) in sigmas, E <= 100, likewise; None = neutral.

        Returns:
            (B, N, 3) metres.
        """
        code, basis = shape, self.shape_basis[..., : shape.shape[1]]
        if expression is not None:
            code = torch.cat([shape, expression], 1)
            basis = torch.cat([basis, self.expression_basis[..., : expression.shape[1]]], 2)
        offsets: Tensor = torch.einsum("bk,ndk->bnd", code, basis)
        return self.template + offsets

    def posed(self, shape: Tensor, expression: Tensor, rotations: Tensor) -> PosedHeads:
        """Turn the joints of heads: linear blend skinning with pose correctives.

        Args:
            shape: (B, S) in sigmas, S <= 300.
            expression: (B, E) in sigmas, E <= 100.
            rotations: (B, 5, 3) axis-angle of each joint relative to its parent, radians.

        Returns:
            The heads.
        """
        matrices = axis_angle_matrix(rotations)
        shaped = self.shaped(shape, expression)
        joints = self.joint_regressor @ shaped
        bent = (matrices[:, 1:] - torch.eye(3).to(matrices)).flatten(1)
        vertices = (bent @ self.pose_basis.flatten(0, 1).T).view_as(shaped) + shaped
        chain: list[Tensor] = []
        for joint, parent in enumerate(self.parents):
            origin = joints[:, joint] if parent < 0 else joints[:, joint] - joints[:, parent]
            local = _rigid(matrices[:, joint], origin)
            chain.append(local if parent < 0 else chain[parent] @ local)
        transforms = torch.stack(chain, 1)
        # From the resting mesh: a joint's own resting place is taken off before it turns.
        moved = transforms @ F.pad(joints, (0, 1))[..., None]
        blended = self.skinning_weights @ (transforms - F.pad(moved, (3, 0))).flatten(2)
        homogeneous = F.pad(vertices, (0, 1), value=1.0)[..., None]
        placed = rearrange(blended, "b n (row column) -> b n row column", row=4) @ homogeneous
        return PosedHeads(vertices=placed[..., :3, 0], joints=transforms[..., :3, 3])

    def to(self, device: torch.device | str) -> FlameModel:
        """The same model with all tensors on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "parents"}
        return replace(self, **moved)

    @classmethod
    def load(cls, path: Path) -> FlameModel:
        """Read the user's FLAME file.

        Args:
            path: A published pickle (FLAME 2020's has chumpy objects inside, which are read as arrays), or an npz with
                the same names: `v_template`, `f`, `shapedirs`, `posedirs`, `J_regressor`, `weights`, `kintree_table`.

        Returns:
            The model, on the CPU.

        Raises:
            MissingWeightsError: There is no such file.
            CorruptWeightsError: It is damaged, wants to run code, or is not FLAME; the error says where to get FLAME
                and on which terms.
        """
        path = Path(path)
        content = _read(path)
        arrays: dict[str, Any] = {name: content.get(name) for name in _SHAPES}
        problem = _problem(arrays)
        if problem:
            raise CorruptWeightsError(f"{path} ({path.stat().st_size} bytes) is not FLAME: {problem}; {REMEDY}")
        if issparse(arrays["J_regressor"]):
            arrays["J_regressor"] = arrays["J_regressor"].toarray()
        parents = (-1, *(int(parent) for parent in arrays["kintree_table"][0, 1:]))
        basis = _tensor(arrays["shapedirs"])
        return cls(
            template=_tensor(arrays["v_template"]),
            triangles=torch.from_numpy(arrays["f"].astype(np.int64)),
            shape_basis=basis[..., :NUM_SHAPE],
            expression_basis=basis[..., NUM_SHAPE:],
            pose_basis=_tensor(arrays["posedirs"]),
            joint_regressor=_tensor(arrays["J_regressor"]),
            skinning_weights=_tensor(arrays["weights"]),
            parents=parents,
        )


def axis_angle_matrix(rotations: Tensor) -> Tensor:
    """Rotation matrices of axis-angle vectors (Rodrigues).

    Args:
        rotations: (..., 3) radians. For their length alone 1e-8 is added to each entry, as FLAME's published layers
            do: the matrix of zero is the identity, and its gradient finite.

    Returns:
        (..., 3, 3).
    """
    angle = (rotations + 1e-8).norm(dim=-1, keepdim=True)
    x, y, z = (rotations / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = rearrange(cross, "... (row column) -> ... row column", row=3)
    angle = angle[..., None]
    matrices: Tensor = torch.eye(3).to(rotations) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    return matrices


_SHAPES: dict[str, tuple[int | str, ...]] = {
    "v_template": ("N", 3),
    "f": ("F", 3),
    "shapedirs": ("N", 3, NUM_SHAPE + NUM_EXPRESSION),
    "posedirs": ("N", 3, 9 * (len(JOINT_NAMES) - 1)),
    "J_regressor": (len(JOINT_NAMES), "N"),
    "weights": ("N", len(JOINT_NAMES)),
    "kintree_table": (2, len(JOINT_NAMES)),
}
_INTEGERS = ("f", "kintree_table")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() or not zipfile.is_zipfile(path):
        content = load_array_pickle(path, REMEDY)
        if not isinstance(content, dict):
            raise CorruptWeightsError(f"{path} is not FLAME: it holds no dictionary; {REMEDY}")
        return content
    try:
        return read_npz(path)
    except ArchiveError as error:
        raise CorruptWeightsError(f"{path} ({path.stat().st_size} bytes) cannot be read ({error}); {REMEDY}") from error


def _problem(arrays: dict[str, Any]) -> str | None:
    """What is wrong with the shapes and the numbers of a file, if anything."""
    template = arrays["v_template"]
    sizes = {"N": len(template) if isinstance(template, np.ndarray) and template.ndim else 0}
    for name, wanted in _SHAPES.items():
        array = arrays[name]
        shape = tuple(sizes.get(str(size), size) for size in wanted)
        if not isinstance(array, np.ndarray) and not (name == "J_regressor" and issparse(array)):
            return f"{name} is {'missing' if array is None else 'no array'}, not of shape {shape}"
        if len(array.shape) != len(shape) or any(
            size not in ("F", found) for size, found in zip(shape, array.shape, strict=True)
        ):
            return f"{name} is of shape {array.shape}, not {shape}"
        numbers = array.data if issparse(array) else array
        if array.dtype.kind not in ("iu" if name in _INTEGERS else "f") or not np.isfinite(numbers).all():
            return f"{name} holds no finite numbers of the kind that belongs there"
    try:
        MeshTopology(arrays["f"], sizes["N"])
    except ValueError as error:
        return f"f does not index the {sizes['N']} vertices ({error})"
    parents = [int(parent) for parent in arrays["kintree_table"][0, 1:]]
    if any(not 0 <= parent <= joint for joint, parent in enumerate(parents)):
        return f"its joints have the parents {(-1, *parents)}"
    return None


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """(B, 4, 4) of (B, 3, 3) and (B, 3)."""
    return torch.cat([F.pad(rotation, (0, 0, 0, 1)), F.pad(translation, (0, 1), value=1.0)[..., None]], 2)
