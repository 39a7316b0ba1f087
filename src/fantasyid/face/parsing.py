"""Taking everything but the face out of a face crop, for models that were trained on such crops.

ConsisID's data was made like this. The authors' script for the released checkpoint loads the parser too, but the lines
that would use it are commented out, so that checkpoint gets the whole crop, and this is off unless a parser is given.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fantasyid.core.errors import MissingWeightsError
from fantasyid.core.torch_files import load_torch_file
from fantasyid.models.face_parsing import PART_NAMES, FaceParsingModel

PARSING_SIZE = 512
PARSING_LICENCE = "MIT; trained on CelebAMask-HQ, whose pictures are for non-commercial research only"
PARSING_FILE = Path("~/.cache/fantasyid/parsing_bisenet.pth")
PARSING_SIZE_MB = 53
# Hair and glasses stay.
NOT_FACE = ("background", "left_ear", "right_ear", "earring", "neck", "necklace", "cloth", "hat")

_ADDRESS = "https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth"


class FaceParser(Protocol):
    """Knows which pixels of a crop show a face."""

    def is_face(self, crops: Tensor) -> Tensor:
        """Find the face.

        Args:
            crops: Upright faces (B,3,512,512), RGB, in [-1, 1].

        Returns:
            (B,1,512,512) bool.
        """
        ...


class BiSeNetParser:
    """Finds skin, features, hair and glasses with BiSeNet.

    Args:
        model: The network; it is used on its own device and in its own dtype.
    """

    def __init__(self, model: FaceParsingModel) -> None:
        self._model = model

    @classmethod
    def load(cls, path: Path = PARSING_FILE) -> "BiSeNetParser":
        """Read the file that facexlib publishes.

        Args:
            path: `parsing_bisenet.pth`.

        Returns:
            The parser, on the CPU.

        Raises:
            MissingWeightsError: There is no such file.
            CorruptWeightsError: It is damaged or another network's.
        """
        return cls(FaceParsingModel.from_published(load_torch_file(parsing_file(path))))

    @torch.no_grad()
    def is_face(self, crops: Tensor) -> Tensor:
        """Find the face; see `FaceParser`."""
        logits = self._model(crops.to(self._model.device, self._model.dtype))
        parts = logits.argmax(dim=1, keepdim=True)
        others = torch.tensor([PART_NAMES.index(name) for name in NOT_FACE], device=parts.device)
        return ~torch.isin(parts, others).to(crops.device)


def parsing_file(path: Path = PARSING_FILE) -> Path:
    """Find the weights of the face parser.

    Args:
        path: Where they should be.

    Returns:
        The path, `~` resolved.

    Raises:
        MissingWeightsError: There is no such file.
    """
    path = path.expanduser()
    if not path.is_file():
        raise MissingWeightsError(
            f"{path} is missing; download it ({PARSING_SIZE_MB} MB) from {_ADDRESS} ({PARSING_LICENCE})."
        )
    return path


def whiten(crops: Tensor, parser: FaceParser) -> Tensor:
    """Make white what is not the face.

    Args:
        crops: Upright faces (B,3,512,512), RGB, in [-1, 1].
        parser: Finds the face.

    Returns:
        Crops of the same shape, in the same dtype.
    """
    return torch.where(parser.is_face(crops), crops, torch.ones_like(crops))
