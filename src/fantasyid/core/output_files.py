"""Writing files so that no kill loses or mixes them: those that belong together appear together, or none does.

They are made in a hidden folder beside their place, synced to the disk, and moved one after the other. One rename
before the moves decides: killed before it, a run leaves the old files and the hidden folder; killed after it, some
files are new and the others wait in the hidden folder. The next run that writes beside them removes the folder in the
first case and moves the rest in the second. A folder that another process is working in is locked and left alone.
"""

import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from threading import current_thread, main_thread
from typing import Any

from filelock import FileLock, Timeout

from fantasyid.core.errors import InvalidRequestError, UnwritableOutputError

_HIDDEN = ".fantasyid-{}.part"
# In the hidden folder: files being made, the same once they count, files they replace, when that was, and the lock.
_NEW, _READY, _OLD, _DECIDED, _LOCK = "new", "ready", "old", "decided", "lock"
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# What a folder raises that another process removed in the middle of a step.
_TIDIED_UP = (FileExistsError, FileNotFoundError)
_FAULTS_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


def check_outputs(targets: Sequence[Path], *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse, before any work, names that could not be written at its end.

    What killed runs left beside them is finished or removed first; see `tidy_up`.

    Args:
        targets: Files to write, or folders to make.
        overwrite: Whether files that are there may be replaced; folders never are.
        inputs: Files that are read for them, which are never replaced.

    Raises:
        InvalidRequestError: A folder is missing or not writable, a name is too long, or something there would be lost.
    """
    for folder in dict.fromkeys(target.parent for target in targets):
        if not folder.is_dir():
            raise InvalidRequestError(f"The folder {folder} does not exist; create it or choose another.")
        try:
            tidy_up(folder)
            with _hidden_folder(folder):
                pass
        except OSError as error:
            raise InvalidRequestError(
                f"Nothing can be written to {folder} ({error.strerror}); choose another folder."
            ) from error
    for target in targets:
        _check_target(target, overwrite, inputs)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        InvalidRequestError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from error


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse a disk that is too full.

    Args:
        folder: A folder on the disk.
        needed_bytes: How much will be written at most.
        what: What needs it, to begin the message with.

    Raises:
        InvalidRequestError: There is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InvalidRequestError(
            f"{what} needs {_size(needed_bytes)} and {folder} has {_size(free)} free; "
            "make room or choose another folder."
        )


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Hard link, or copy where the file system has none or the disk is another; the content is the same.

    Args:
        source: A file, or a link to one.
        target: A name that is free.
    """
    file = Path(source).resolve()
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


@contextmanager
def write_together(targets: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Let files be made elsewhere and put them in their place together, or none of them.

    On any exception nothing changes. SIGINT, SIGTERM and SIGHUP wait while the files are moved. Of several folders each
    has all its files or none.

    Args:
        targets: Files to write or folders to make.
        overwrite: Whether files that are there may be replaced.

    Yields:
        Where to make each of them: same names, on the same file system.

    Raises:
        InvalidRequestError: See `check_outputs`; looked at again before the moves.
        UnwritableOutputError: The disk is full, or failed.
    """
    check_outputs(targets, overwrite=overwrite)
    try:
        with ExitStack() as stack:
            made: dict[Path, Path] = {}
            for folder in dict.fromkeys(target.parent for target in targets):
                group = [target for target in targets if target.parent == folder]
                made |= zip(group, stack.enter_context(_write_in(folder, group, overwrite)), strict=True)
            yield [made[target] for target in targets]
    except OSError as error:
        if error.errno not in _FAULTS_OF_THE_DISK:
            raise
        names = ", ".join(str(target) for target in targets)
        raise UnwritableOutputError(
            f"{names} could not be written ({os.strerror(error.errno)}); make room or choose another folder."
        ) from error


@contextmanager
def _write_in(folder: Path, targets: Sequence[Path], overwrite: bool) -> Iterator[list[Path]]:
    with _hidden_folder(folder) as hidden:
        new = hidden / _NEW
        new.mkdir()
        yield [new / target.name for target in targets]
        assert {path.name for path in new.iterdir()} == {target.name for target in targets}, "other files were made"
        _sync_tree(new)
        for target in targets:
            _check_target(target, overwrite, ())
        with signals_wait():
            _keep_old(targets, hidden)
            _decide(hidden)
            try:
                _move(hidden, folder)
            except BaseException:
                _take_back(targets, hidden)
                raise


def write_file(path: Path, content: bytes) -> None:
    """Write one file, or replace it when the new content is complete.

    Args:
        path: In a folder that exists.
        content: All of it.

    Raises:
        FantasyIDError: See `write_together`.
    """
    with write_together([path], overwrite=True) as (made,):
        made.write_bytes(content)


def tidy_up(folder: Path) -> None:
    """Finish or remove what killed runs left in a folder; hidden folders of running processes are left alone.

    Args:
        folder: Where they wrote.

    Raises:
        InvalidRequestError: A file that should be replaced was changed after the kill; both are kept.
        OSError: The folder cannot be written to.
    """
    for hidden in sorted(folder.glob(_HIDDEN.format("*"))):
        lock = FileLock(hidden / _LOCK, timeout=0)
        try:
            if not hidden.is_dir() or hidden.is_symlink() or hidden.stat().st_uid != _user():
                continue
            lock.acquire()
        except (Timeout, *_TIDIED_UP):
            continue
        try:
            if (hidden / _READY).is_dir():
                with signals_wait():
                    _move(hidden, folder)
        finally:
            _leave(hidden, lock)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals that end a program wait for a few short steps; Python gives them to the main thread only."""
    if current_thread() is not main_thread():
        yield
        return
    received: list[int] = []

    def remember(number: int, _: Any) -> None:
        received.append(number)

    before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    ours = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in ours:
            signal.signal(number, remember)
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)


def _check_target(target: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    try:
        target.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidRequestError(
            f"{target.name!r} cannot be a name in {target.parent} ({error.strerror}); choose another."
        ) from error
    if target.is_dir():
        raise InvalidRequestError(f"{target} is a folder; choose another name.")
    for source in inputs:
        if source.exists() and target.exists() and source.samefile(target):
            raise InvalidRequestError(f"{target} is a file that is read for it and would be lost; choose another name.")
    if not overwrite:
        raise InvalidRequestError(f"{target} is there already; choose another name or pass --overwrite.")


@contextmanager
def _hidden_folder(folder: Path) -> Iterator[Path]:
    """A new folder, locked as long as it is used, and removed then unless files that count wait in it."""
    with ExitStack() as stack:
        with signals_wait():
            hidden, lock = _lock_new(folder)
            stack.callback(_leave, hidden, lock)
        yield hidden


def _lock_new(folder: Path) -> tuple[Path, FileLock]:
    """A new hidden folder and its lock; made again when another process tidied it up before it was locked."""
    while True:
        hidden = folder / _HIDDEN.format(token_hex(6))
        hidden.mkdir()
        lock = FileLock(hidden / _LOCK)
        with suppress(*_TIDIED_UP):
            lock.acquire()
            return hidden, lock


def _leave(hidden: Path, lock: FileLock) -> None:
    """Unlock the folder, and remove it unless files that count wait in it.

    It goes while it is locked, and its lock last: who waits for the lock finds it gone and begins anew. Where a locked
    file cannot be removed (Windows), nobody else can remove it either.
    """
    ready, lock_file = hidden / _READY, hidden / _LOCK
    with signals_wait(), ExitStack() as unlock:
        unlock.callback(lock.release)
        if ready.is_dir() and any(ready.iterdir()):
            return
        for part in (_NEW, _READY, _OLD):
            shutil.rmtree(hidden / part, ignore_errors=True)
        with suppress(OSError):
            (hidden / _DECIDED).unlink(missing_ok=True)
            try:
                lock_file.unlink()
            except PermissionError:
                lock.release()
                lock_file.unlink()
            hidden.rmdir()


def _keep_old(targets: Sequence[Path], hidden: Path) -> None:
    """Second names, or copies where the file system has none, for what is about to be replaced."""
    old = hidden / _OLD
    old.mkdir()
    for target in targets:
        if not os.path.lexists(target):
            continue
        try:
            os.link(target, old / target.name, follow_symlinks=False)
        except (OSError, NotImplementedError):
            shutil.copy2(target, old / target.name, follow_symlinks=False)


def _decide(hidden: Path) -> None:
    """From here on the new files count, whatever happens to this process."""
    (hidden / _DECIDED).touch()
    _sync_folder(hidden)
    (hidden / _NEW).replace(hidden / _READY)
    _sync_folder(hidden)
    _sync_folder(hidden.parent)


def _move(hidden: Path, folder: Path) -> None:
    """Move files that count to their place; what the user changed there since they do stays."""
    decided_ns = (hidden / _DECIDED).stat().st_ctime_ns
    for file in sorted((hidden / _READY).iterdir()):
        target = folder / file.name
        if os.path.lexists(target) and target.lstat().st_ctime_ns > decided_ns:
            raise InvalidRequestError(
                f"{target} was changed after a run that was to replace it was killed, and that run's file waits at "
                f"{file}; move one of them away."
            )
        file.replace(target)
    _sync_folder(folder)


def _take_back(targets: Sequence[Path], hidden: Path) -> None:
    """Put everything back as it was before the moves."""
    for target in targets:
        if os.path.lexists(hidden / _READY / target.name):
            continue
        target.replace(hidden / _READY / target.name)
        if os.path.lexists(hidden / _OLD / target.name):
            (hidden / _OLD / target.name).replace(target)
    (hidden / _READY).replace(hidden / _NEW)


def _sync_tree(folder: Path) -> None:
    """Have the disk hold what was written."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    # Windows cannot open folders, and some network file systems cannot sync them.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _user() -> int:
    """Owner of files this process makes; 0 on Windows, as in its `stat`."""
    return os.getuid() if hasattr(os, "getuid") else 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
