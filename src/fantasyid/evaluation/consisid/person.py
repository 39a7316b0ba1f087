"""What ConsisID is told of a person, read from the photo by diffusers' own code for it.

That code and the packages that it stands on download what they do not find, so that everything is looked for before.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fantasyid.core.component_files import first_line
from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError, NoFaceError
from fantasyid.core.imaging import read_photo
from fantasyid.core.input_files import file_sha256
from fantasyid.core.optional import require

_FILES = (
    "EVA02_CLIP_L_336_psz14_s6B.pt",
    "detection_Resnet50_Final.pth",
    "models/antelopev2/glintr100.onnx",
    "models/antelopev2/scrfd_10g_bnkps.onnx",
    "parsing_bisenet.pth",
    "parsing_parsenet.pth",  # facexlib loads it, although nothing asks it anything
)
_REMEDY = "download all of ConsisID's weights"
_NOT_ALIGNED = "facexlib align face fail"
"""What diffusers' code says where it found no face to align."""


@dataclass(frozen=True, eq=False)
class ConsisIDPerson:
    """A person, as ConsisID's pipeline takes one.

    Attributes:
        id_cond: (1,1280), ArcFace's embedding beside EVA-CLIP's.
        id_vit_hidden: Five of (1,577,1024), from EVA-CLIP's layers.
        face: The face cut out, upright, on white: the picture that the video is conditioned on.
        keypoints: (5,2), the face's points in pixels of the photo.
    """

    id_cond: Tensor
    id_vit_hidden: tuple[Tensor, ...]
    face: Image.Image
    keypoints: NDArray[Any]


class PersonReader(Protocol):
    """Reads people for ConsisID."""

    @property
    def fingerprint(self) -> str:
        """Hash of the weights that it reads with."""
        ...

    def person(self, photo: Path) -> ConsisIDPerson:
        """Read the person in a photo.

        Raises:
            NoFaceError: There is no face.
            UnreadablePhotoError: It is no photo.
        """
        ...


ReadPeople = Callable[[Path, torch.device, torch.dtype], PersonReader]
"""Makes what reads people, of ConsisID's folder, the device and the precision."""


@dataclass(eq=False)
class FaceUtilsReader:
    """Reads people with diffusers' `consisid_utils`; the networks are loaded when the first one is read.

    Args:
        folder: ConsisID's weights, with `face_encoder` in it.
        device: Where to compute.
        dtype: Precision of EVA-CLIP.

    Raises:
        MissingWeightsError: A file is not there.
        MissingBackendError: A package is not installed.
    """

    folder: Path
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self._files = self.folder / "face_encoder"
        missing = [name for name in _FILES if not (self._files / name).is_file()]
        if missing:
            raise MissingWeightsError(f"{self._files} lacks {', '.join(missing)}; {_REMEDY}.")
        purpose = "read people for ConsisID"
        require("consisid_eva_clip", "consisid", purpose)
        require("facexlib", "consisid", purpose)
        require("insightface", "consisid", purpose)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files that it reads."""
        hashes = (file_sha256(self._files / name) for name in _FILES)
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    @cached_property
    def _utils(self) -> Any:
        # At import it asks for the packages.
        from diffusers.pipelines.consisid import consisid_utils

        return consisid_utils

    @cached_property
    def _models(self) -> tuple[Any, ...]:
        try:
            first, second, clip, app, mean, std = self._utils.prepare_face_models(
                str(self.folder), device=str(self.device), dtype=self.dtype
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a damaged file can make the packages' readers raise anything
            told = f"{type(error).__name__}: {first_line(error)}"
            raise CorruptWeightsError(f"{self._files} cannot be read ({told}); {_REMEDY}.") from error
        return first, clip, second, mean, std, app

    @torch.no_grad()
    def person(self, photo: Path) -> ConsisIDPerson:
        """Read the person in a photo; of several faces ArcFace sees the largest, EVA-CLIP the one in the middle."""
        try:
            id_cond, hidden, face, keypoints = self._utils.process_face_embeddings_infer(
                *self._models, str(self.device), self.dtype, read_photo(photo), is_align_face=True
            )
        except (IndexError, RuntimeError) as error:
            # Where neither detector finds a face, the second one's first face is asked for all the same.
            if isinstance(error, RuntimeError) and str(error) != _NOT_ALIGNED:
                raise
            raise NoFaceError(f"ConsisID finds no face in the photo {photo}; take another one.") from error
        return ConsisIDPerson(id_cond, tuple(hidden), face, keypoints)
