"""Work in a thread of its own: told as it goes on, ended when nobody wants it, and never with a traceback."""

import logging
import threading
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from fantasyid.core.errors import FantasyIDWarning, InvalidRequestError
from fantasyid.generation.progress import Progress
from fantasyid.ui.jobs import End, Event, Note, Preview, Stage, follow
from fantasyid.ui.notices import Notices

FRAMES = np.zeros((4, 8, 8, 3), np.uint8)


def happenings(work: Callable[[Progress], None], cancel: threading.Event | None = None) -> list[Event]:
    return list(follow(work, Notices(), cancel or threading.Event()))


def denoise(progress: Progress, total: int) -> None:
    with progress.steps("Generating", total) as tell:
        for step in range(total):
            tell(step + 1)
            progress.preview(lambda: FRAMES)


def test_stages_steps_and_notes_are_told_in_order() -> None:
    def work(progress: Progress) -> None:
        with progress.stage("Loading the model"):
            progress.note("Warning: it is large.")
        denoise(progress, 2)

    told = [event for event in happenings(work) if not isinstance(event, Preview)]
    assert told == [
        Stage("Loading the model"),
        Note("It is large."),
        Stage("Generating", 0, 2),
        Stage("Generating", 1, 2),
        Stage("Decoding the frames"),
        End(),
    ]


@pytest.mark.parametrize(("steps", "looks"), [(1, 0), (2, 1), (25, 5), (100, 5)])
def test_five_looks_at_most_whatever_the_steps(steps: int, looks: int) -> None:
    seen = [event for event in happenings(lambda progress: denoise(progress, steps)) if isinstance(event, Preview)]
    assert len(seen) == looks


def test_a_cancelled_job_ends_at_its_next_step() -> None:
    cancel, done = threading.Event(), list[int]()

    def work(progress: Progress) -> None:
        with progress.steps("Generating", 10) as tell:
            for step in range(10):
                if step == 3:
                    cancel.set()
                tell(step + 1)
                done.append(step + 1)

    assert happenings(work, cancel)[-1] == End(cancelled=True)
    assert done == [1, 2, 3]


def test_a_job_that_nobody_follows_any_more_ends() -> None:
    cancel, ended = threading.Event(), threading.Event()

    def work(progress: Progress) -> None:
        try:
            with progress.steps("Generating", 1) as tell:
                while True:
                    tell(0)
        finally:
            ended.set()

    events = follow(work, Notices(), cancel)
    next(events)
    events.close()
    assert ended.wait(10)


def test_an_error_is_its_sentence() -> None:
    def refuse(progress: Progress) -> None:
        raise InvalidRequestError("Steps is 0; it must be more.")

    assert happenings(refuse) == [End("Steps is 0; it must be more.")]


def test_a_fault_of_ours_says_so_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(progress: Progress) -> None:
        raise ZeroDivisionError("secret")

    (end,) = happenings(fail)
    assert isinstance(end, End)
    assert str(end.error).startswith("Something went wrong inside fantasyid")
    assert "secret" not in str(end.error)
    assert "ZeroDivisionError: secret" in caplog.text


def test_each_thread_hears_its_own_warnings() -> None:
    notices, both_listen = Notices(), threading.Barrier(2)
    heard: dict[str, list[str]] = {"first": [], "second": []}

    def work(name: str) -> None:
        with notices.told(heard[name].append):
            both_listen.wait(10)
            for _ in range(2):  # Python shows a warning of one place once, unless told otherwise
                warnings.warn(f"of {name}", FantasyIDWarning, stacklevel=1)
            logging.getLogger("fantasyid.face.reader").warning("logged by %s", name)
            both_listen.wait(10)

    before = warnings.showwarning
    threads = [threading.Thread(target=work, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {name: [f"of {name}", f"of {name}", f"logged by {name}"] for name in heard}
    assert warnings.showwarning is before


def test_other_warnings_show_as_they_always_do() -> None:
    heard: list[str] = []
    with pytest.warns(UserWarning, match="a library's"), Notices().told(heard.append):
        warnings.warn("a library's", UserWarning, stacklevel=1)
    assert not heard
