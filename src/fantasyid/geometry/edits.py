"""Named edits of the neutral head: wider, sharper, longer, by a stated number of centimetres (paper Figure 4).

An edit is a fixed displacement of every vertex of the built-in mesh, times its strength in -1..1. So edits add up,
their order does not matter, and the opposite strength takes one back, whosever head it is. The displacement takes the
stated values at landmarks of the mean head, is held at zero at others, and between them follows a smooth kernel of
compact support in space: nearby surfaces move together, and nothing moves beyond the edit's reach. Both halves of the
head move as mirror images. Each row of teeth and the tongue move as rigid bodies, and so does each eye, with its lids.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fantasyid.core.errors import TopologyMismatchError
from fantasyid.geometry.edit_table import EDITS, EYE, HeadEdit, check_strengths
from fantasyid.geometry.head_model import PART_NAMES, HeadModel

_MOUTH_PARTS = ("teeth_upper", "teeth_lower", "tongue")
_AXES = ("x", "y", "z")


class HeadEditor:
    """Applies edits to heads of the built-in mesh.

    Args:
        head: The head model, on the CPU.
    """

    def __init__(self, head: HeadModel) -> None:
        self._topology_hash = head.topology.hash
        self._landmarks = head.landmarks478
        self._displacements = {edit.name: _displacement(head, edit) for edit in EDITS}

    def edit(self, vertices: Tensor, topology_hash: str, strengths: Mapping[str, float]) -> Tensor:
        """Change a head.

        Args:
            vertices: (..., N, 3) cm, neutral.
            topology_hash: Hash of the vertices' mesh.
            strengths: -1..1 by the name of the edit; those left out are 0.

        Returns:
            (..., N, 3) in the vertices' dtype and on their device; bitwise the vertices where all strengths are 0.

        Raises:
            TopologyMismatchError: The vertices are of another mesh than the built-in head.
            InvalidRequestError: There is no edit of that name, or a strength is outside -1..1.
        """
        if topology_hash != self._topology_hash:
            raise TopologyMismatchError(
                f"The vertices are of mesh {topology_hash}; edits are made on the built-in head, {self._topology_hash}."
            )
        check_strengths(strengths)
        for name, displacement in self._displacements.items():
            if strengths.get(name, 0):
                vertices = vertices + strengths[name] * displacement.to(vertices)
        return vertices

    def displacement(self, name: str) -> Tensor:
        """(N, 3) cm by which the edit of this name moves each vertex at strength 1."""
        return self._displacements[name]

    def measure_cm(self, vertices: Tensor, edit: HeadEdit) -> float:
        """Length that the edit changes, on one head (N, 3)."""
        first, second, axis = edit.measure
        along = vertices[:, _AXES.index(axis)]
        return float(along[self._landmarks[first]] - along[self._landmarks[second]])


def _displacement(head: HeadModel, edit: HeadEdit) -> Tensor:
    """(N, 3) cm at strength 1: interpolation of moves and pins with Wendland's C2 kernel, mirrored and made rigid."""
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    # Keyed by vertex: several landmarks may share one, and those on the midline are their own mirror images.
    wanted = {int(head.landmarks478[pin]): torch.zeros(3, dtype=torch.float64) for pin in edit.pins}
    wanted |= {int(head.landmarks478[mark]): torch.tensor(move).double() for mark, move in edit.moves.items()}
    wanted |= {int(head.mirror[vertex]): flip * move for vertex, move in wanted.items()}
    mean = head.mean.double()
    centres, values = mean[list(wanted)], torch.stack(list(wanted.values()))

    def kernel(points: Tensor) -> Tensor:
        distance = torch.cdist(points, centres) / edit.reach_cm
        return (1 - distance).clamp(min=0) ** 4 * (4 * distance + 1)

    field = kernel(mean) @ torch.linalg.solve(kernel(centres), values)
    for name in _MOUTH_PARTS:
        part = head.parts == PART_NAMES.index(name)
        field[part] = field[part].mean(dim=0)
    lids = field[head.landmarks478[list(EYE)]].mean(dim=0)
    field[head.parts == PART_NAMES.index("eye_left")] = lids
    field[head.parts == PART_NAMES.index("eye_right")] = flip * lids
    symmetric: Tensor = (field + flip * field[head.mirror]) / 2
    return symmetric.float()
