from pathlib import Path
from typing import get_args

import pytest

from fantasyid.core.choices import FaceBackend
from fantasyid.core.errors import InvalidRequestError, MissingWeightsError
from fantasyid.face import recognize
from fantasyid.face.insightface import PACKS, InsightFaceDetector
from fantasyid.face.registry import BACKENDS, READERS, Backend, reader_backends
from tests.flame_files import write_flame_2020
from tests.unit.face.onnx_models import save_arcface, save_scrfd


def test_every_backend_states_its_licence() -> None:
    names = [backend.name for backend in BACKENDS]
    assert len(set(names)) == len(names)
    for backend in BACKENDS:
        assert backend.licence
        assert backend.task
        assert backend.remedy


def test_what_needs_no_file_of_the_user_works_here() -> None:
    working = [backend for backend in BACKENDS if backend.name in ("dlib-hog", "fantasyid-head", "dlib-resnet")]
    assert [backend.problem() for backend in working] == [None] * 3


def test_insightface_works_once_its_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    backends = {backend.name: backend for backend in BACKENDS}
    for name in ("insightface-scrfd", "insightface-arcface"):
        problem = backends[name].problem()
        assert problem is not None
        assert "361 MB" in problem
        assert "non-commercial" in problem
    folder = tmp_path / ".insightface" / "models" / "antelopev2"
    save_scrfd(folder / PACKS["antelopev2"].detector)
    save_arcface(folder / PACKS["antelopev2"].recognizer)
    assert backends["insightface-scrfd"].problem() is None
    assert backends["insightface-arcface"].problem() is None


def test_flame_and_deca_are_named_with_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    backends = {backend.name: backend for backend in BACKENDS}
    for name in ("flame", "deca"):
        assert "generic_model.pkl; register at https://flame.is.tue.mpg.de" in str(backends[name].problem())
        assert "non-commercial" in backends[name].licence
    folder = tmp_path / ".cache" / "fantasyid" / "deca"
    folder.mkdir(parents=True)
    write_flame_2020(folder / "generic_model.pkl")
    assert backends["flame"].problem() is None
    assert "deca_model.tar (about 414 MB) as https://github.com/YadiraF/DECA tells" in str(backends["deca"].problem())


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognize, "PACKAGE", "no_such_models")
    problem = BACKENDS[2].problem()
    assert problem is not None
    assert "fantasyid[eval]" in problem


def test_broken_library_is_named_with_its_remedy() -> None:
    def create() -> None:
        raise ImportError("libfoo.so.1: cannot open shared object file")

    broken = Backend("foo", "nothing", "none", create, "install it with: pip install foo")
    assert broken.problem() == (
        "foo cannot be loaded (libfoo.so.1: cannot open shared object file); install it with: pip install foo"
    )


def test_every_way_to_read_a_photo_names_backends_there_are() -> None:
    tasks = {backend.name: backend.task for backend in BACKENDS}
    assert set(READERS) == set(get_args(FaceBackend))
    for detector, reconstructor in READERS.values():
        assert detector is None or tasks[detector].startswith("face detection")
        assert reconstructor is None or tasks[reconstructor] == "3D head"


def test_readers_are_made_or_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reader_backends("builtin") == (None, None)
    for way in ("insightface", "deca"):
        with pytest.raises(MissingWeightsError, match=str(tmp_path)):
            reader_backends(way)
    folder = tmp_path / ".insightface" / "models" / "antelopev2"
    save_scrfd(folder / PACKS["antelopev2"].detector)
    detector, reconstructor = reader_backends("insightface")
    assert isinstance(detector, InsightFaceDetector)
    assert reconstructor is None
    with pytest.raises(MissingWeightsError, match=r"elsewhere.generic_model\.pkl"):
        reader_backends("deca", tmp_path / "elsewhere")
    with pytest.raises(InvalidRequestError, match="'builtin' has no use for DECA's folder"):
        reader_backends("builtin", tmp_path)
    with pytest.raises(InvalidRequestError, match="no face backend 'mediapipe'; there are builtin, insightface, deca"):
        reader_backends("mediapipe")
