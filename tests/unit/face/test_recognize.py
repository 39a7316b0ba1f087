import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fantasyid.core.errors import MissingBackendError, MissingWeightsError
from fantasyid.face import recognize
from fantasyid.face.detect import DlibFaceDetector
from fantasyid.face.recognize import DlibRecognizer, model_files
from fantasyid.face.types import DetectedFace
from tests.unit.face.faces import portrait, resized


def test_one_person_is_nearer_than_two() -> None:
    recognizer, detector = DlibRecognizer(), DlibFaceDetector()
    photo = portrait()
    brighter = np.clip(photo.astype(int) * 1.25 + 10, 0, 255).astype(np.uint8)
    smaller = resized(photo, 200)
    # Another face: the same photo with the lower half of the face squeezed and the features moved apart.
    other = photo.copy()
    other[112:167] = photo[np.linspace(112, 149, 55).round().astype(int)]
    first, same, shrunk, changed = (
        recognizer.embed(picture, detector.detect(picture)[0]) for picture in (photo, brighter, smaller, other)
    )
    assert first.shape == (128,)
    assert first.dtype == np.float32
    assert recognizer.distance(first, first) == 0
    assert recognizer.distance(first, same) < 0.3
    assert recognizer.distance(first, shrunk) < 0.3
    assert recognizer.distance(first, changed) > recognizer.distance(first, shrunk)
    assert recognizer.distance(first, changed) == recognizer.distance(changed, first)
    assert recognizer.same_person_distance == 0.6


def test_box_places_the_face() -> None:
    recognizer = DlibRecognizer()
    photo = portrait()
    here = recognizer.embed(photo, DetectedFace((97.0, 77.0, 187.0, 167.0), 1.0))
    elsewhere = recognizer.embed(photo, DetectedFace((200.0, 200.0, 290.0, 290.0), 1.0))
    assert recognizer.distance(here, elsewhere) > 0.6


def test_model_files_are_found_without_importing_their_package() -> None:
    shape_file, resnet_file = model_files()
    assert shape_file.is_file()
    assert resnet_file.stat().st_size > 20_000_000


def test_missing_package_and_missing_file_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognize, "PACKAGE", "no_such_models")
    with pytest.raises(MissingBackendError, match=r"fantasyid\[eval\]"):
        model_files()
    (tmp_path / "no_such_models").mkdir()
    (tmp_path / "no_such_models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(MissingWeightsError, match="shape_predictor_5"):
        model_files()
