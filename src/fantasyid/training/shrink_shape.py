"""Shrink what the face reader says of a shape where two photos of one person disagree.

Renders teach a reader shapes, but not how photos mislead it: by lens and distance, by light, by a fuller face in a
later year. So what is read is taken for the person's shape plus an error, both Gaussian; how the two are spread is
learned from the people with two photos who are not held out, and the layer that gives the shape is moved towards the
expected shape. Only that layer changes, and reading costs nothing more.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.statistics import scatter_within
from fantasyid.face.reconstruct_builtin import Mirror
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """The map from what is read to the shape to be expected: `centre + matrix @ (read - centre)`.

    Attributes:
        matrix: (K, K) float64.
        centre: (K,) float64, the mean of what is read.
    """

    matrix: Tensor
    centre: Tensor

    @classmethod
    def fit(cls, identity: Tensor, person: NDArray[np.int64], mirror: Tensor) -> "Shrinkage":
        """Learn it; each person counts once more mirrored, so that a mirrored face stays the mirror image.

        Args:
            identity: (A, K) coefficients read from photos.
            person: (A,) person of each; only those with two photos or more teach the error.
            mirror: (K,) 1 or -1, see `face.reconstruct_builtin.Mirror`.

        Raises:
            InvalidRequestError: Fewer people have two photos than there are coefficients.
        """
        paired = int((np.bincount(person) > 1).sum())
        if paired < identity.shape[1]:
            raise InvalidRequestError(
                f"People with two photos that could be read: {paired}; {identity.shape[1]} coefficients need at least "
                "as many. Add photos."
            )
        values = torch.cat([identity, identity * mirror]).double()
        error = torch.from_numpy(scatter_within(values.numpy(), np.concatenate([person, person + person.max() + 1])))
        # Of the spread of what is read the error is a part; what is left may not be negative in any direction.
        spread, direction = torch.linalg.eigh(torch.cov(values.T) - error)
        people = direction * spread.clamp(min=0) @ direction.T
        return cls(torch.linalg.solve(people + error, people).T, values.mean(0))

    def part_way(self, share: float) -> "Shrinkage":
        """The map that goes so far from what is read to the shape to be expected; 0 changes nothing."""
        return Shrinkage(torch.lerp(torch.eye(len(self.matrix), dtype=torch.float64), self.matrix, share), self.centre)

    @torch.no_grad()
    def apply(self, model: FaceReaderModel) -> None:
        """Change the model's shape layer, so that it answers what this map makes of its answers."""
        layer = model.to_identity
        weight, bias = layer.weight.double(), layer.bias.double()
        layer.weight.copy_(self.matrix @ weight)
        layer.bias.copy_(self.centre + self.matrix @ (bias - self.centre))


def shrink(model: FaceReaderModel, identity: Tensor, person: NDArray[np.int64], part: float) -> None:
    """Shrink what a face reader says, by what it read.

    Args:
        model: The reader, whose shape layer is changed.
        identity: (A, K) coefficients it read from photos of people who are not held out.
        person: (A,) person of each, from 0.
        part: How far to go, 0 to 1.

    Raises:
        InvalidRequestError: Too few people have two photos.
    """
    Shrinkage.fit(identity, person, Mirror.of(HeadModel.load()).identity).part_way(part).apply(model)


if __name__ == "__main__":
    tell_new_command("fantasyid.training.shrink_shape", "fantasyid train shrink-shape")
