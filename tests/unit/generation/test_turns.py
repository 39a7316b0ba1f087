"""One studio for several threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fantasyid.generation.progress import Progress
from fantasyid.generation.request import GenerationRequest, ModelRequest
from fantasyid.generation.studio import Studio
from tests.tiny_photo_model import tiny_photo_pipeline

SHORT = GenerationRequest(prompt="a man nods", seed=1, num_inference_steps=2, num_frames=1)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_photo_pipeline().save_pretrained(folder)
    return Studio(ModelRequest(name=str(folder), device="cpu", dtype="float32"))


class CancelledError(Exception):
    pass


class Waiting(Progress):
    """Says when it waits, and may end there."""

    def __init__(self, *, ends: bool) -> None:
        self.waits, self.began, self._ends = threading.Event(), threading.Event(), ends

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        assert what == "Waiting for another video"
        self.waits.set()
        if self._ends:
            raise CancelledError
        yield

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        self.began.set()
        yield lambda done: None


class During(Progress):
    """Does something while the first step is done."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    @contextmanager
    def steps(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: self._do() if done == 1 else None


def test_videos_are_made_one_after_the_other(studio: Studio) -> None:
    second, made = Waiting(ends=False), []
    thread = threading.Thread(target=lambda: made.extend(studio.videos(SHORT, progress=second)))

    def start_another() -> None:
        thread.start()
        assert second.waits.wait(20)
        assert not second.began.is_set()

    list(studio.videos(SHORT, progress=During(start_another)))
    thread.join()
    assert len(made) == 1


def test_who_waits_can_be_cancelled(studio: Studio) -> None:
    ends: list[str] = []

    def make_another() -> None:
        with pytest.raises(CancelledError):
            list(studio.videos(SHORT, progress=Waiting(ends=True)))
        ends.append("cancelled")

    def cancel_another() -> None:
        thread = threading.Thread(target=make_another)
        thread.start()
        thread.join()

    list(studio.videos(SHORT, progress=During(cancel_another)))
    assert ends == ["cancelled"]
    assert len(list(studio.videos(SHORT))) == 1


def test_a_thread_need_not_wait_for_itself(studio: Studio) -> None:
    made = []
    list(studio.videos(SHORT, progress=During(lambda: made.extend(studio.videos(SHORT)))))
    assert len(made) == 1
