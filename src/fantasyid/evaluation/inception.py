"""Inception-v3 as the FID takes it: the weights of its authors, the sizes and the arithmetic of torchmetrics."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.optional import require

WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_SOURCE = "weights-inception-2015-12-05-6726825d.pth of the release v0.2.0 of github.com/toshas/torch-fidelity"


@dataclass(frozen=True, eq=False)
class Inception:
    """Sees pictures as the FID does.

    Attributes:
        network: RGB uint8 (B,3,H,W) to features (B,D); torchmetrics' own scales pictures to 299 pixels, and D is 2048.
        fingerprint: Hash of its weights.
    """

    network: torch.nn.Module
    fingerprint: str

    @classmethod
    def load(cls, path: Path, sha256: str = WEIGHTS_SHA256) -> "Inception":
        """Read the weights from a file; nothing is downloaded.

        Args:
            path: torch-fidelity's file.
            sha256: What the file's hash must be: it is a pickle, and with other weights the number is no FID.

        Raises:
            MissingWeightsError: It is not there.
            CorruptWeightsError: It is another file.
            MissingBackendError: torchmetrics or torch-fidelity is not installed.
        """
        if not path.is_file():
            raise MissingWeightsError(f"There is no file {path} with Inception's weights; download {_SOURCE} to it.")
        if file_sha256(path) != sha256:
            raise CorruptWeightsError(
                f"{path} is damaged or holds other weights than the FID is defined by; download {_SOURCE} to it."
            )
        purpose = "compute the FID"
        require("torch_fidelity", "fid", purpose)
        torchmetrics = require("torchmetrics.image.fid", "fid", purpose)
        return cls(torchmetrics.NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path)), sha256)

    @torch.no_grad()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See pictures.

        Args:
            images: RGB (B,H,W,3).

        Returns:
            (B,D).
        """
        seen = self.network(torch.from_numpy(images).permute(0, 3, 1, 2))
        return np.asarray(seen.float().numpy())
