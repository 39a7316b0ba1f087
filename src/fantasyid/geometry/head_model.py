"""The project's own head: a linear model of identity and expression on the MakeHuman hm08 head.

Head space: cm, x right of the picture, y up, z to the viewer, origin midway between the mean head's eyes.
Left and right are the SUBJECT's: `eye_left` and `mouthSmileLeft` lie at x > 0, on the right of the picture.
Built by `fantasyid.geometry.build.head` from CC0 data; its parts: skin of head and neck down to the collar, both
eyes, both rows of teeth, tongue.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.npz_files import ArchiveError, read_npz
from fantasyid.core.output_files import write_together
from fantasyid.geometry.topology import MeshTopology

PART_NAMES = (
    "face",
    "scalp",
    "ears",
    "neck",
    "mouth_interior",
    "eye_left",
    "eye_right",
    "teeth_upper",
    "teeth_lower",
    "tongue",
)
FORMAT_VERSION = 2

# MediaPipe landmark of each of the 68 points (Multi-PIE order; "right" is the subject's): jaw from the right ear to the
# left, right brow, left brow, nose bridge downwards, nostrils, right eye, left eye, outer lips, inner lips.
LANDMARKS_478_TO_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107),
    *(336, 296, 334, 293, 301),
    *(168, 197, 5, 4),
    *(75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144),
    *(362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)

# Of MediaPipe's 478 landmarks the first lie on skin; the ten after them are the irises', which follow the gaze.
NUM_SKIN_LANDMARKS = 468
# MediaPipe's face oval as a closed loop, from the top of the forehead over the subject's left.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# MediaPipe's inner lip line as a closed loop: upper lip from the subject's right, lower lip back.
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)

_Arrays = dict[str, Any]  # of numpy arrays; a narrower type does not pass through savez_compressed


@dataclass(frozen=True, eq=False)
class HeadModel:
    """Mean head, linear bases and the tables that name its vertices."""

    mean: Tensor
    """(N, 3) float32 cm, the average adult."""
    triangles: Tensor
    """(F, 3) int64, counter-clockwise seen from outside."""
    parts: Tensor
    """(N,) uint8 index into `PART_NAMES`. `face` is the front skin inside hairline and jaw, for a photo's texture."""
    identity_basis: Tensor
    """(K, N, 3) float32 cm per unit sigma; rigid motion and overall size of the face are not in it."""
    expression_basis: Tensor
    """(E, N, 3) float32 cm at full activation; activations lie in 0..1."""
    expression_names: tuple[str, ...]
    """The E = 52 ARKit names, sorted."""
    landmarks478: Tensor
    """(478,) int64 vertex of each MediaPipe landmark, -1 where there is none."""
    landmark_spread: Tensor
    """(478,) float32 cm, median distance of the detections on renders from that vertex; inf where there is none."""
    landmark_offset: Tensor
    """(478, 3) float32 cm from that vertex to where detectors put the landmark on people; 0 where there is none."""
    landmarks68: Tensor
    """(68,) int64 vertex of each of the 68 classic points."""
    mirror: Tensor
    """(N,) int64 vertex at the mirrored place, x -> -x."""
    uv: Tensor
    """(N, 2) float32 in 0..1, cylindrical: u from the subject's right over the front to its left, v up."""

    @property
    def topology(self) -> MeshTopology:
        """Connectivity, whose `.hash` names this mesh."""
        return MeshTopology(self.triangles.cpu().numpy(), len(self.mean))

    @property
    def coefficients_hash(self) -> str:
        """Names mean and identity basis, which identity coefficients and known heads depend on beside the topology."""
        arrays = (self.mean.cpu().numpy(), self.identity_basis.cpu().numpy())
        return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Vertices of heads.

        Args:
            identity: (B, K) in sigmas.
            expression: (B, E), 0..1 each.

        Returns:
            (B, N, 3) cm in head space.
        """
        offsets = identity @ self.identity_basis.flatten(1) + expression @ self.expression_basis.flatten(1)
        vertices: Tensor = self.mean + offsets.view(-1, *self.mean.shape)
        return vertices

    def neutral(self, identity: Tensor) -> Tensor:
        """Vertices of heads without expression: identities (B, K) in sigmas -> (B, N, 3) cm in head space."""
        return self.shape(identity, identity.new_zeros(len(identity), len(self.expression_names)))

    def landmarks(self, vertices: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Where MediaPipe's landmarks lie on heads.

        Args:
            vertices: (..., N, 3) cm, turned or not.
            rotation: (..., 3, 3) by which they are turned; None if they are not.

        Returns:
            (..., 478, 3) cm.
        """
        offset = self.landmark_offset if rotation is None else self.landmark_offset @ rotation.mT
        places: Tensor = vertices[..., self.landmarks478, :] + offset
        return places

    def to(self, device: torch.device | str) -> HeadModel:
        """The same model with all tensors on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "expression_names"}
        return replace(self, **moved)

    def save(self, path: Path) -> None:
        """Write an npz without pickle; the bases are stored as int16 with one scale per mode."""
        arrays: _Arrays = {
            "version": np.array(FORMAT_VERSION, np.int32),
            "topology_hash": np.array(self.topology.hash),
            "mean": self.mean.numpy(),
            "triangles": self.triangles.numpy().astype(np.int32),
            "parts": self.parts.numpy(),
            "expression_names": np.array(self.expression_names),
            "landmarks478": self.landmarks478.numpy().astype(np.int32),
            "landmark_spread": self.landmark_spread.numpy(),
            "landmark_offset": self.landmark_offset.numpy(),
            "landmarks68": self.landmarks68.numpy().astype(np.int32),
            "mirror": self.mirror.numpy().astype(np.int32),
            "uv": self.uv.numpy(),
        }
        for name, basis in (("identity", self.identity_basis), ("expression", self.expression_basis)):
            scale = basis.flatten(1).abs().amax(1) / 32767
            arrays[f"{name}_scale"] = scale.numpy()
            arrays[f"{name}_steps"] = (basis / scale[:, None, None]).round().numpy().astype(np.int16)
        with write_together([path], overwrite=True) as (made,):
            np.savez_compressed(made, content_hash=np.array(_content_hash(arrays)), **arrays)

    @classmethod
    def load(cls, path: Path | None = None) -> HeadModel:
        """Read and check a head model.

        Args:
            path: The npz; None = the one that comes with the package.

        Returns:
            The model on the CPU.

        Raises:
            MissingWeightsError: There is no such file.
            CorruptWeightsError: The file is damaged or altered, of another version, or its arrays do not fit together.
        """
        path = Path(str(files("fantasyid") / "weights" / "head_model.npz")) if path is None else Path(path)
        arrays = _read(path)
        if int(arrays["version"]) != FORMAT_VERSION:
            raise CorruptWeightsError(f"{path} has format {arrays['version']}; this release reads {FORMAT_VERSION}")
        bases = {
            name: torch.from_numpy(arrays[f"{name}_steps"].astype(np.float32))
            * torch.from_numpy(arrays[f"{name}_scale"])[:, None, None]
            for name in ("identity", "expression")
        }
        head = cls(
            mean=torch.from_numpy(arrays["mean"]),
            triangles=torch.from_numpy(arrays["triangles"].astype(np.int64)),
            parts=torch.from_numpy(arrays["parts"]),
            identity_basis=bases["identity"],
            expression_basis=bases["expression"],
            expression_names=tuple(str(name) for name in arrays["expression_names"]),
            landmarks478=torch.from_numpy(arrays["landmarks478"].astype(np.int64)),
            landmark_spread=torch.from_numpy(arrays["landmark_spread"]),
            landmark_offset=torch.from_numpy(arrays["landmark_offset"]),
            landmarks68=torch.from_numpy(arrays["landmarks68"].astype(np.int64)),
            mirror=torch.from_numpy(arrays["mirror"].astype(np.int64)),
            uv=torch.from_numpy(arrays["uv"]),
        )
        _check(head, str(arrays["topology_hash"]), path)
        return head


def _read(path: Path) -> _Arrays:
    """All arrays of the file, once its content hash is right."""
    if not path.is_file():
        raise MissingWeightsError(
            f"The head model {path} is missing; reinstall fantasyid or build it with: "
            f"python -m fantasyid.geometry.build.head --out {path}"
        )
    try:
        arrays: _Arrays = read_npz(path)
        stored = str(arrays.pop("content_hash"))
    except (ArchiveError, KeyError) as error:
        raise CorruptWeightsError(f"{path} is not a head model ({error}); reinstall fantasyid") from error
    if stored != _content_hash(arrays):
        raise CorruptWeightsError(f"{path} was altered after it was written; reinstall fantasyid")
    return arrays


def _content_hash(arrays: _Arrays) -> str:
    digest = sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check(head: HeadModel, topology_hash: str, path: Path) -> None:
    """Refuse arrays that do not fit together."""
    num_vertices, modes, units = len(head.mean), len(head.identity_basis), len(head.expression_basis)
    shapes = {
        "mean": (num_vertices, 3),
        "triangles": (len(head.triangles), 3),
        "parts": (num_vertices,),
        "identity_basis": (modes, num_vertices, 3),
        "expression_basis": (units, num_vertices, 3),
        "landmarks478": (478,),
        "landmark_spread": (478,),
        "landmark_offset": (478, 3),
        "landmarks68": (68,),
        "mirror": (num_vertices,),
        "uv": (num_vertices, 2),
    }
    for name, shape in shapes.items():
        if tuple(getattr(head, name).shape) != shape:
            raise CorruptWeightsError(f"{path}: {name} has shape {tuple(getattr(head, name).shape)}, not {shape}")
    for name in ("mean", "identity_basis", "expression_basis", "landmark_offset", "uv"):
        if not getattr(head, name).isfinite().all():
            raise CorruptWeightsError(f"{path}: {name} has values that are not finite")
    ranges = {"triangles": 0, "landmarks68": 0, "mirror": 0, "landmarks478": -1}
    for name, lowest in ranges.items():
        index = getattr(head, name)
        if index.min() < lowest or index.max() >= num_vertices:
            raise CorruptWeightsError(f"{path}: {name} points outside the {num_vertices} vertices")
    if head.parts.max() >= len(PART_NAMES):
        raise CorruptWeightsError(f"{path}: parts has a label outside 0..{len(PART_NAMES) - 1}")
    if len(head.expression_names) != units:
        raise CorruptWeightsError(f"{path}: {len(head.expression_names)} expression names for {units} expressions")
    if head.topology.hash != topology_hash:
        raise CorruptWeightsError(f"{path}: its triangles do not have the topology hash it states; reinstall fantasyid")
