"""Engines do every unit once, on one thread, and tell what went wrong."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.engines.job import Engine, WorkerError
from fantasyid.data.engines.local import LocalEngine
from fantasyid.data.engines.ray import RayEngine
from tests.unit.data.engines.jobs import Numbers

with_ray = pytest.param(RayEngine(2), marks=pytest.mark.skipif(find_spec("ray") is None, reason="needs ray"), id="ray")
ENGINES = [pytest.param(LocalEngine(1), id="here"), pytest.param(LocalEngine(2), id="two"), with_ray]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_unit_is_done_once_on_one_thread(engine: Engine, tmp_path: Path) -> None:
    counts: list[int] = []
    engine.run(Numbers(tmp_path), [1, 3, 4, 7, 8], counts.append)
    assert counts == [1, 2, 3, 4, 5]
    written = {int(path.stem): path.read_text().split() for path in tmp_path.glob("*.txt")}
    assert sorted(written) == [1, 3, 4, 7, 8]
    assert {threads for _, threads in written.values()} == {"1"}
    processes = {int(process) for process, _ in written.values()}
    here = isinstance(engine, LocalEngine) and engine.workers == 1
    assert (os.getpid() in processes) == here
    assert {f"opened-{process}" for process in processes} <= {path.name for path in tmp_path.glob("opened-*")}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_unit_raises_comes_out(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="Unit 2 is not allowed"):
        engine.run(Numbers(tmp_path, "error"), range(5), lambda count: None)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_process_that_ends_is_told(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="run"):
        engine.run(Numbers(tmp_path, "death"), range(5), lambda count: None)


def test_nothing_to_do_opens_nothing(tmp_path: Path) -> None:
    for workers in (1, 2):
        LocalEngine(workers).run(Numbers(tmp_path), [], pytest.fail)
    assert not list(tmp_path.iterdir())


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\nfrom fantasyid.data.engines.local import LocalEngine\n"
        "from tests.unit.data.engines.jobs import Numbers\n"
        "if __name__ == '__main__':\n"
        f"    LocalEngine(2).run(Numbers(Path({str(tmp_path)!r}), 'sleep'), range(2), print)\n"
    )
    (tmp_path / "main.py").write_text(program)
    root = Path(__file__).parents[4]
    path = os.pathsep.join([str(root), *sys.path])
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env={**os.environ, "PYTHONPATH": path})
    try:
        opened = _wait_for(lambda: list(tmp_path.glob("opened-*")), 2)
        workers = [int(path.name.partition("-")[2]) for path in opened]
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert not _wait_for(lambda: [worker for worker in workers if _lives(worker)], 0)
    finally:
        parent.kill()


def _wait_for(look: Callable[[], list[Any]], count: int) -> list[Any]:
    """What is found once it is so many, or after half a minute."""
    for _ in range(600):
        if len(found := look()) == count:
            break
        time.sleep(0.05)
    return found


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
