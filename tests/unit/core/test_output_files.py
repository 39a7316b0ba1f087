"""Files that belong together, and a process that is killed at every step of writing them."""

import errno
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from fantasyid.core.errors import InvalidRequestError, UnwritableOutputError
from fantasyid.core.output_files import check_outputs, check_room, tidy_up, write_file, write_together
from tests.kills import contents, count_steps, kill_at

NAMES = ("a.json", "b.jpg", "c.mp4")


def write_set(folder: Path, content: bytes) -> None:
    with write_together([folder / name for name in NAMES], overwrite=True) as made:
        for path in made:
            path.write_bytes(content + path.name.encode())


def whole(content: bytes) -> dict[str, bytes]:
    return {name: content + name.encode() for name in NAMES}


def write_folder(folder: Path, content: bytes) -> None:
    with write_together([folder / "model"], overwrite=False) as (made,):
        (made / "vae").mkdir(parents=True)
        (made / "vae" / "weights").write_bytes(content)
        (made / "manifest").write_bytes(content)


@pytest.mark.parametrize(
    ("number", "there"),
    [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
)
def test_a_kill_at_any_step_leaves_the_old_set_or_the_new_one(tmp_path: Path, number: int, there: bool) -> None:
    old = whole(b"old") if there else {}

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path, content in old.items():
            (folder / path).write_bytes(content)
        return folder

    steps = count_steps(lambda: write_set(fresh("count"), b"new"))
    assert steps > 20
    seen = set()
    for step in range(steps):
        folder = fresh(f"{step}")
        kill_at(step, number, lambda folder=folder: write_set(folder, b"new"))  # type: ignore[misc]
        if number == signal.SIGKILL:
            tidy_up(folder)
        found = contents(folder)
        assert found in (old, whole(b"new")), f"step {step}"
        seen.add(found == old)
    assert seen == {True, False}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_at_any_step_leaves_the_whole_folder_or_none(tmp_path: Path, number: int) -> None:
    new = {"model/vae/weights": b"new", "model/manifest": b"new"}
    (tmp_path / "count").mkdir()
    steps = count_steps(lambda: write_folder(tmp_path / "count", b"new"))
    seen = set()
    for step in range(steps):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        kill_at(step, number, lambda folder=folder: write_folder(folder, b"new"))  # type: ignore[misc]
        if number == signal.SIGKILL:
            tidy_up(folder)
        found = contents(folder)
        assert found in ({}, new), f"step {step}"
        seen.add(len(found))
    assert seen == {0, 2}


def test_a_kill_while_tidying_up_changes_nothing(tmp_path: Path) -> None:
    """What a killed run left is tidied by a run that is killed too."""

    def left(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path, content in whole(b"old").items():
            (folder / path).write_bytes(content)
        kill_at(first_move, signal.SIGKILL, lambda: write_set(folder, b"new"))
        return folder

    (tmp_path / "count").mkdir()
    first_move = count_steps(lambda: write_set(tmp_path / "count", b"x"), until="replace", nth=2)
    steps = count_steps(lambda: tidy_up(left("left")))
    assert steps >= len(NAMES)
    for step in range(steps):
        folder = left(f"{step}")
        kill_at(step, signal.SIGKILL, lambda folder=folder: tidy_up(folder))  # type: ignore[misc]
        tidy_up(folder)
        assert contents(folder) == whole(b"new")


def test_an_exception_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")

    def fail() -> None:
        with write_together([tmp_path / "a.json", tmp_path / "b.jpg"], overwrite=True) as (first, _):
            first.write_bytes(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert contents(tmp_path) == {"a.json": b"old"}


def test_a_move_that_fails_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.mp4").write_bytes(b"old")
    rename = Path.replace

    def fail_at_the_last(source: Path, target: Path) -> Path:
        if target == tmp_path / "c.mp4" and source.parent.name == "ready":
            raise OSError(errno.EIO, "failed")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_last)
    with pytest.raises(UnwritableOutputError, match="Input/output error"):
        write_set(tmp_path, b"new")
    assert contents(tmp_path) == {"c.mp4": b"old"}


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(
            UnwritableOutputError, match=r"a\.ply could not be written \(No space left on device\); make room"
        ),
        write_together([tmp_path / "a.ply"], overwrite=False),
    ):
        raise OSError(errno.ENOSPC, "full")
    assert contents(tmp_path) == {}


def test_what_a_running_process_makes_is_left_alone(tmp_path: Path) -> None:
    with write_together([tmp_path / "a.txt"], overwrite=False) as (first,):
        first.write_bytes(b"first")
        with write_together([tmp_path / "b.txt"], overwrite=False) as (second,):
            second.write_bytes(b"second")
        assert first.read_bytes() == b"first"
    assert contents(tmp_path) == {"a.txt": b"first", "b.txt": b"second"}


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def write() -> None:
        with write_together([target], overwrite=False) as (made,):
            made.write_bytes(b"new")
            target.write_bytes(b"mine")

    with pytest.raises(InvalidRequestError, match=r"a\.txt is there already"):
        write()
    assert contents(tmp_path) == {"a.txt": b"mine"}


def test_what_changed_after_a_kill_is_not_replaced_by_what_waited(tmp_path: Path) -> None:
    for path, content in whole(b"old").items():
        (tmp_path / path).write_bytes(content)
    (tmp_path.with_name("count")).mkdir()
    second = count_steps(lambda: write_set(tmp_path.with_name("count"), b"new"), until="replace", nth=3)
    kill_at(second, signal.SIGKILL, lambda: write_set(tmp_path, b"new"))
    (decided,) = tmp_path.glob("*/decided")
    changed = 0
    while changed <= decided.stat().st_ctime_ns:  # the clock of a file system ticks a few hundred times a second
        (tmp_path / "c.mp4").write_bytes(b"mine")
        changed = (tmp_path / "c.mp4").stat().st_ctime_ns
    with pytest.raises(InvalidRequestError, match=r"c\.mp4 was changed after .* waits at .*c\.mp4; move one of them"):
        tidy_up(tmp_path)
    assert (tmp_path / "c.mp4").read_bytes() == b"mine"
    assert b"newc.mp4" in contents(tmp_path).values()
    (tmp_path / "c.mp4").rename(tmp_path / "kept.mp4")
    tidy_up(tmp_path)
    assert contents(tmp_path) == {**whole(b"new"), "kept.mp4": b"mine"}


def write_many(folder: Path, run: int) -> None:
    for number in range(20):
        write_file(folder / f"{run}-{number}.txt", b"content")


def test_many_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_many, [tmp_path] * 4, range(4)))
    assert len(contents(tmp_path)) == 80
    assert not list(tmp_path.glob(".*"))


def test_links_and_other_peoples_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "ready").mkdir(parents=True)
    (tmp_path / "elsewhere" / "ready" / "a.txt").write_bytes(b"theirs")
    (tmp_path / "elsewhere" / "decided").touch()
    (tmp_path / ".fantasyid-000000000000.part").symlink_to("elsewhere")
    tidy_up(tmp_path)
    assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "elsewhere" / "ready" / "a.txt").exists()


def test_names_are_checked_before_any_work(tmp_path: Path) -> None:
    photo = tmp_path / "face.jpg"
    photo.write_bytes(b"photo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "again.jpg").symlink_to(photo)
    for name, overwrite, says in (
        ("nowhere/a.txt", False, "nowhere does not exist; create it"),
        ("x" * 300, False, "File name too long"),
        ("folder", True, "folder is a folder"),
        ("face.jpg", False, "is a file that is read for it"),
        ("face.jpg", True, "is a file that is read for it"),
        ("again.jpg", True, "is a file that is read for it"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            check_outputs([tmp_path / name], overwrite=overwrite, inputs=[photo])
    with pytest.raises(InvalidRequestError, match=r"face\.jpg is there already; .* or pass --overwrite"):
        check_outputs([photo], overwrite=False)
    check_outputs([photo, tmp_path / ("x" * 250), tmp_path / "a:b.mp4"], overwrite=True)
    with pytest.raises(InvalidRequestError, match="Nothing can be written to /proc"):
        check_outputs([Path("/proc/a.txt")], overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.jpg", "face.jpg", "folder"]


def test_room_is_asked_for_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    check_room(tmp_path, 10**6, "The video")
    with pytest.raises(InvalidRequestError, match=r"The video needs 2\.0 MB and .* has 1\.0 MB free; make room"):
        check_room(tmp_path, 2 * 10**6, "The video")
