"""What travels between the nodes, beside ComfyUI's own kinds."""

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy.model_management import soft_empty_cache, unload_all_models
from comfy_api.latest import io
from numpy.typing import NDArray

from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.progress import Progress
from fantasyid.generation.request import ModelRequest, PersonRequest

if TYPE_CHECKING:
    from fantasyid.face.types import FaceReading
    from fantasyid.generation.person import PersonFiles
    from fantasyid.generation.studio import Studio

ModelKind = io.Custom("FANTASYID_MODEL")
PersonKind = io.Custom("FANTASYID_PERSON")


class LoadedModel:
    """A model, loaded until it is given up, and again when it is wanted again.

    Args:
        request: Which model, and how it is made faster.
        guidance_interval: Share of the steps that are guided, from and to.
    """

    def __init__(self, request: ModelRequest, guidance_interval: tuple[float, float]) -> None:
        self.request, self.guidance_interval = request, guidance_interval
        self._studio: Studio | None = None

    def studio(self, progress: Progress) -> "Studio":
        """The model made ready; other models leave the GPU for it, and ComfyUI brings them back when it needs them.

        Args:
            progress: Told of loading.

        Raises:
            FantasyIDError: It cannot be had.
        """
        if self._studio is None:
            from fantasyid.generation.studio import Studio

            if self.request.device != "cpu":
                unload_all_models()
                soft_empty_cache()
            self._studio = Studio(self.request, progress)
        return self._studio

    def give_up(self) -> None:
        """Forget the networks, so that their memory is free."""
        self._studio = None


@dataclass(frozen=True, eq=False)
class PhotographedPerson:
    """A person as their photos show them, and what is to be changed.

    Attributes:
        request: Which face, what reads it, and edits; ComfyUI tells no files, so its photos are named by their content.
        files: What stands in for those files.
        reading: Of the first photo.
    """

    request: PersonRequest
    files: "PersonFiles"
    reading: "FaceReading"


def pixels_sha256(photo: NDArray[np.uint8]) -> str:
    """Hash of a photo's size and pixels.

    Args:
        photo: RGB (H,W,3).
    """
    return sha256(repr(photo.shape).encode() + photo.tobytes()).hexdigest()


def photos_of(image: torch.Tensor) -> tuple[NDArray[np.uint8], ...]:
    """The pictures of ComfyUI's IMAGE, as a file of 8 bits holds them.

    Args:
        image: (B,H,W,C) in [0, 1]; what lies outside is cut off, as where ComfyUI saves a picture.

    Returns:
        RGB (H,W,3) each.

    Raises:
        InvalidRequestError: It is not RGB.
    """
    if image.shape[-1] != 3:
        raise InvalidRequestError(
            f"The image has {image.shape[-1]} channels; give one of three, red, green and blue, without transparency."
        )
    return tuple((image.clamp(0, 1) * 255).round().byte().cpu().numpy())


def image_of(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """ComfyUI's IMAGE.

    Args:
        pictures: RGB (B,H,W,3).

    Returns:
        float32 (B,H,W,3) in [0, 1]; `photos_of` gives back the same bytes.
    """
    return torch.from_numpy(pictures).float() / 255
