import pytest

from fantasyid.face import recognize
from fantasyid.face.registry import BACKENDS, Backend


def test_every_backend_states_its_licence_and_works_here() -> None:
    assert [backend.name for backend in BACKENDS] == ["dlib-hog", "fantasyid-head", "dlib-resnet"]
    for backend in BACKENDS:
        assert backend.licence
        assert backend.task
        assert backend.problem() is None


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
