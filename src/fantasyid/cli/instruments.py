"""What `fantasyid data prepare` measures clips with: the built-in face networks and libraries, made in any process."""

import hashlib
from functools import partial
from importlib.metadata import version

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.data.clips.config import MeasureConfig
from fantasyid.data.clips.faces import FaceNetworks
from fantasyid.data.clips.measure import Measurer
from fantasyid.data.clips.prepare import Instruments
from fantasyid.data.clips.text import TextFinder
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.face.reconstruct_builtin import BuiltinReconstructor
from fantasyid.geometry.head_model import HeadModel

_LIBRARIES = (
    "av",
    "dlib-bin",
    "ImageHash",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scenedetect-headless",
    "torch",
)
_TERMS = {
    "face reader and face vision network": "Apache-2.0",
    "dlib-hog": "Boost Software License 1.0, model included",
    "rapidocr, networks of PaddleOCR": "Apache-2.0",
    "scenedetect": "BSD-3-Clause",
    "ImageHash": "BSD-2-Clause",
}


def instruments(config: MeasureConfig) -> Instruments:
    """What measures, its versions, and its terms.

    Args:
        config: How to measure.

    Raises:
        MissingBackendError: A package is not installed.
    """
    networks = {name: _manifest_hash(name) for name in ("face_reader_model", "face_vision")}
    networks["head"] = HeadModel.load().topology.hash
    software = {"text": TextFinder().fingerprint(), **networks, **{name: version(name) for name in _LIBRARIES}}
    return Instruments(partial(open_measurer, config), software, _TERMS)


def open_measurer(config: MeasureConfig) -> Measurer:
    """Load the networks.

    Args:
        config: How to measure.
    """
    reader = load_component(MINI_FOLDER, "face_reader_model")
    vision = load_component(MINI_FOLDER, "face_vision")
    head = HeadModel.load()
    return Measurer(
        config=config,
        networks=FaceNetworks(DlibFaceDetector(retries=False), LandmarkReader(reader), vision),
        reconstructor=BuiltinReconstructor(head, reader),
        head=head,
        text=TextFinder(),
    )


def _manifest_hash(name: str) -> str:
    """Of a packed network: its manifest holds the hash of each shard."""
    return hashlib.sha256((MINI_FOLDER / name / "manifest.json").read_bytes()).hexdigest()[:16]
