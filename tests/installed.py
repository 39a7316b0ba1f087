"""A wheel, installed into an empty environment outside of the repository, does what the README promises first.

    python tests/installed.py WHEEL PHOTO CONSTRAINTS

It needs no more than the Python that runs it, and prints how long each step takes and how much is on the disk after it.
"""

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from venv import EnvBuilder
from zipfile import ZipFile

PROMPT = "A woman smiles, in front of a plain blue background."
SERVERS = {"ui": ("--no-open", "/", "FantasyID"), "serve": ("--worker", "/health", "")}
"""Extra and command, an option, an address that answers, and what stands there."""
START_S = 300.0


class Installation:
    """An environment with nothing but the wheel, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path, constraints: Path) -> None:
        EnvBuilder(with_pip=True).create(folder / "environment")
        self.programs = folder / "environment" / "bin"
        self.work = folder / "work"
        self.work.mkdir()
        self._wheel, self._constraints = wheel, constraints
        unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environment |= {"HOME": str(folder), "HF_HUB_OFFLINE": "1"}

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, which must succeed; gives what it printed."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, cwd=self.work, env=self.environment, text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def install(self, *extras: str) -> None:
        """Install the wheel with these extras, as the checks' versions are."""
        wanted = f"{self._wheel}[{','.join(extras)}]" if extras else str(self._wheel)
        options = ("--quiet", "--disable-pip-version-check", "--constraint", str(self._constraints))
        # Packages are asked for in the user's own settings of pip, not in those of an empty home.
        home = {"HOME": os.environ["HOME"]}
        command = [str(self.programs / "python"), "-m", "pip", "install", *options, wanted]
        subprocess.run(command, cwd=self.work, env=self.environment | home, check=True)

    def serve(self, command: str) -> None:
        """Start a server, ask it something, and end it as Ctrl+C does."""
        option, address, content = SERVERS[command]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.work / f"{command}.txt"
        with log.open("w") as file:
            started = [str(self.programs / "fantasyid"), command, option, "--port", str(port)]
            server = subprocess.Popen(started, cwd=self.work, env=self.environment, stdout=file, stderr=file)
        try:
            _wait_for(f"http://127.0.0.1:{port}{address}", content, server, log)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                sys.exit(f"fantasyid {command} did not end with Ctrl+C:\n{log.read_text()}")


def _wait_for(address: str, content: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until the server answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urlopen(address, timeout=5) as answer:
                if content in answer.read().decode():
                    return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    sys.exit(f"Nothing answered at {address}:\n{log.read_text()}")


def _gigabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e9


@contextmanager
def step(name: str) -> Iterator[None]:
    """Tell how long a step took."""
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:6.1f} s  {name}", flush=True)  # noqa: T201


def main(wheel: Path, photo: Path, constraints: Path) -> None:
    """Install the wheel alone, generate; then with its extras, and start its servers."""
    with ZipFile(wheel) as content:
        (metadata,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        offered = content.read(metadata).decode().splitlines()
    extras = [extra for extra in SERVERS if f"Provides-Extra: {extra}" in offered]
    print(f"Python {platform.python_version()}\n{wheel.stat().st_size / 1e6:6.1f} MB {wheel.name}")  # noqa: T201
    with tempfile.TemporaryDirectory(prefix="fantasyid-installed-") as place:
        folder = Path(place)
        installed = Installation(folder, wheel, constraints)
        with step("pip install of the wheel"):
            installed.install()
        print(f"{_gigabytes(folder):6.1f} GB on the disk")  # noqa: T201
        with step("fantasyid doctor"):
            assert installed.run("fantasyid", "doctor").startswith("mini: yes")
        with step("fantasyid generate"):
            installed.run("fantasyid", "generate", str(photo), "--prompt", PROMPT, "--out", "smile.mp4", "--seed", "0")
        assert {path.name for path in installed.work.iterdir()} == {"smile.mp4", "smile.json", "smile.jpg"}
        with step(f"pip install of the extras {', '.join(extras)}"):
            installed.install(*extras)
        print(f"{_gigabytes(folder):6.1f} GB on the disk")  # noqa: T201
        for command in extras:
            with step(f"fantasyid {command}, until it answered and ended"):
                installed.serve(command)


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
