"""Shrink what the face reader says of a shape where two photos of one person disagree.

Command: `python -m fantasyid.training.shrink_shape --reader DIR --manifest manifest.csv --photos DIR
--also configs/eval/shape-people.txt --out DIR`

Renders teach a reader shapes, but not how photos mislead it: by lens and distance, by light, by a fuller face in a
later year. So what is read is taken for the person's shape plus an error, both Gaussian; how the two are spread is
learned from the people with two photos who are not held out, and the layer that gives the shape is moved towards the
expected shape. Only that layer changes, and reading costs nothing more.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import FantasyIDError, InvalidRequestError
from fantasyid.evaluation.reader.measures import scatter_within
from fantasyid.evaluation.reader.portraits import read_portraits
from fantasyid.evaluation.reader.steps import read_identities
from fantasyid.face.reader import FaceReader
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line.

    Returns:
        The exit code: 0 done, 2 bad input.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path, required=True, help="result of the stage reader")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV of the portraits")
    parser.add_argument("--photos", type=Path, required=True, help="folder the manifest's files are in")
    parser.add_argument("--also", type=Path, required=True, help="people held out beside the split val")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--share", type=float, default=0.5, help="how far to go, 0 to 1 (default 0.5); 1 costs accuracy on renders"
    )
    options = parser.parse_args(arguments)
    try:
        if not 0 <= options.share <= 1:
            raise InvalidRequestError(f"--share {options.share} is not between 0 and 1.")
        _, others = read_portraits(options.manifest, options.also)
        head, model = HeadModel.load(), FaceReaderModel.from_pretrained(options.reader).eval()
        identity, person = read_identities(others, options.photos, FaceReader(model), head)
        shrinkage = Shrinkage.fit(identity, person, Mirror.of(head).identity)
        shrinkage.part_way(options.share).apply(model)
        model.save_pretrained(options.out)
    except FantasyIDError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"Learned from {len(person)} of {len(others)} photos; written to {options.out}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
