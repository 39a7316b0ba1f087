"""What a server withstands: crowds, kills and nonsense, with a tiny model, over HTTP and in processes of their own.

python -m benchmarks.serving --redis redis-server --out benchmarks/results/serving.json

- crowd: 20 clients ask for 200 videos of a queue of 50; who is refused asks again when told to.
- kills_file: a server with its own worker is killed 20 times at random moments, while videos are asked for and made.
- kills_redis: a Redis, a server without a worker, and two workers; one of the four is killed, 20 times. Redis keeps
  nothing over its death.
- nonsense: 1,000 requests that are wrong in one way each.
- same: one worker on a file and two on a Redis make videos of a photo with the same seeds.

Needs no GPU; takes about a quarter of an hour on two cores.
`tests/unit/serving/test_results.py` looks at what was found.
"""

import argparse
import hashlib
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch
from PIL import Image
from skimage.data import astronaut

from benchmarks.nonsense import FIELDS, WRONG
from fantasyid.core.video import read_video
from fantasyid.serving.store import VideoFolder, VideoStore
from tests.tiny_photo_model import tiny_photo_pipeline

PARTS = ("crowd", "kills_file", "kills_redis", "nonsense", "same")
RESULTS = "benchmarks/results/serving.json"
CLIENTS, REQUESTS, QUEUE = 20, 200, 50
KILLS, NONSENSE, SAME = 20, 1000, 12


class Site:
    """Processes of one server and its workers on one folder, each started again when it has ended.

    Args:
        place: A folder of its own, made here.
        model: Folder of a model.
        redis: Program of a Redis, which is one of the processes; None is a file and a worker in the server.
    """

    def __init__(self, place: Path, model: Path, redis: str | None = None) -> None:
        place.mkdir()
        self.store = VideoStore(place / "videos")
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.log = place / "log.txt"
        fantasyid = [sys.executable, "-m", "fantasyid"]
        shared = ["--outputs", str(self.store.folder)]
        machine = ["--model", str(model), "--device", "cpu", "--dtype", "float32", "--max-queue", str(QUEUE)]
        server = [*fantasyid, "serve", *machine, "--no-page", "--port", self.url.rpartition(":")[2], *shared]
        if redis is None:
            self._commands = [server]
        else:
            port = _free_port()
            shared = [*shared, "--queue", f"redis://127.0.0.1:{port}/0"]
            server = [*server, "--no-worker", *shared[2:]]
            store = [redis, "--port", str(port), "--dir", str(place), "--save", ""]
            self._commands = [server, *[[*fantasyid, "worker", *shared]] * 2, store]
        self.processes = [self._start(command) for command in self._commands]
        self._up = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up)
        self._keeper.start()
        self.wait_until_up()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _keep_up(self) -> None:
        """Start again what has ended, as a service manager does."""
        while not self._up.wait(0.1):
            for index, command in enumerate(self._commands):
                if self.processes[index].poll() is not None:
                    self.processes[index] = self._start(command)

    def wait_until_up(self) -> None:
        """Until the server answers and has its queue."""
        for _ in range(1200):
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server does not answer: {self.log.read_text()[-3000:]}")

    def kill(self, index: int) -> None:
        """Kill one process, without a chance to tidy up."""
        self.processes[index].send_signal(signal.SIGKILL)

    def ask(self, photo: bytes | None = None, **fields: str) -> tuple[str, int]:
        """Ask for a video until it is accepted; gives its id, and how often there was no room."""
        files: dict[str, Any] = {name: (None, value) for name, value in {**FIELDS, **fields}.items()}
        if photo is not None:
            files["input_reference"] = ("photo.png", photo)
        refusals = 0
        while True:
            try:
                answer = httpx2.post(f"{self.url}/v1/videos", files=files, timeout=60)
            except httpx2.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                return str(answer.json()["id"]), refusals
            assert answer.status_code in (429, 503), answer.text
            refusals += answer.status_code == 429
            time.sleep(float(answer.headers["Retry-After"]))

    def wait(self) -> list[VideoFolder]:
        """Until everything has ended; gives all videos."""
        while True:
            folders = self.store.folders()
            if all(folder.state().ended_at for folder in folders):
                return folders
            time.sleep(0.2)

    def end(self) -> None:
        """Stop all processes."""
        self._up.set()
        self._keeper.join()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def crowd(site: Site) -> dict[str, Any]:
    """Many at once."""
    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda number: site.ask(seed=str(number)), range(REQUESTS)))
    ids = {video_id for video_id, _ in answers}
    folders = site.wait()
    seconds = round(time.monotonic() - start)
    ended = [folder.state().ended_at or 0 for folder in folders]
    lines = httpx2.get(f"{site.url}/metrics").text.splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return {
        "clients": CLIENTS,
        "asked": REQUESTS,
        "completed": sum(folder.state().status == "completed" for folder in folders),
        "refusals": sum(refusals for _, refusals in answers),
        "refusals_that_the_server_counted": int(
            float(counts['fantasyid_requests_total{method="POST",route="/v1/videos",status="429"}'])
        ),
        "lost": len(ids - {folder.id for folder in folders}),
        "doubled": len(folders) - len(ids),
        "out_of_order": sum(after < before for before, after in pairwise(ended)),
        "seconds": seconds,
    }


def kills(site: Site, draw: random.Random) -> dict[str, Any]:
    """Deaths at random moments, while videos are asked for and made."""
    accepted: list[str] = []
    done = threading.Event()

    def ask_and_wait(client: int) -> None:
        while not done.is_set():
            video_id, _ = site.ask(num_inference_steps="20", seed=str(client))
            accepted.append(video_id)
            while not done.wait(0.05) and site.store.find(video_id).state().ended_at is None:
                pass

    results: dict[str, str] = {}
    changed = 0
    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_and_wait, client) for client in range(4)]
        try:
            for _ in range(KILLS):
                if draw.random() < 0.8:  # else while it starts
                    site.wait_until_up()
                time.sleep(draw.uniform(0, 3))
                site.kill(draw.randrange(len(site.processes)))
                changed += _changed(site, results)
            site.wait_until_up()
        finally:
            done.set()
        for client in asking:
            client.result()
    folders = site.wait()
    changed += _changed(site, results)
    states = [folder.state() for folder in folders]
    made = Counter(re.findall(r"(video_\w+): completed", site.log.read_text()))
    return {
        "kills": KILLS,
        "accepted": len(accepted),
        "kept_without_an_answer": len(folders) - len(accepted),
        "completed": sum(state.status == "completed" for state in states),
        "failed_with_a_reason": sum(state.status == "failed" and state.error is not None for state in states),
        "begun_again": sum(state.attempts > 1 for state in states),
        "lost": len(set(accepted) - {folder.id for folder in folders}),
        "made_twice": max(changed, sum(count > 1 for count in made.values())),
    }


def _changed(site: Site, results: dict[str, str]) -> int:
    """How many videos that were there are others now."""
    changed = 0
    for folder in site.store.folders():
        if folder.outputs.record.exists():
            now = hashlib.sha256(folder.outputs.record.read_bytes()).hexdigest()
            changed += results.setdefault(folder.id, now) != now
    return changed


def nonsense(site: Site, draw: random.Random) -> dict[str, Any]:
    """Requests that are wrong in one way each."""
    process = psutil.Process(site.processes[0].pid)
    answers: Counter[int] = Counter()
    memory = []
    for number in range(NONSENSE + NONSENSE // 10):
        status = draw.choice(WRONG)(site.url, draw)
        if number >= NONSENSE // 10:  # before that it fills its caches
            answers[status] += 1
        if number % (NONSENSE // 10) == 0:
            memory.append(round(process.memory_info().rss / 1e6))
    return {
        "requests": answers.total(),
        "videos": len(site.store.folders()),
        "answers": {str(status): count for status, count in sorted(answers.items())},
        "memory_mb_after_each_hundred": memory[1:],
    }


def frames(site: Site, photo: bytes) -> dict[int, str]:
    """Videos of some seeds; gives a hash of the frames of each."""
    for seed in range(SAME):
        site.ask(photo, seed=str(seed))
    found = {}
    for folder in site.wait():
        pixels, _ = read_video(folder.outputs.video)
        found[folder.job().request.seed or 0] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return found


@contextmanager
def running(*arguments: Any, **more: Any) -> Iterator[Site]:
    """A site, stopped at the end."""
    site = Site(*arguments, **more)
    try:
        yield site
    finally:
        site.end()


def table(found: dict[str, Any]) -> str:
    """What a run found, as docs/serving.md tells it."""
    crowd, nonsense, same = (found[name] for name in ("crowd", "nonsense", "same"))
    answers = ", ".join(f"{count} of {status}" for status, count in nonsense["answers"].items())
    memory = nonsense["memory_mb_after_each_hundred"]
    rows = [
        (
            f"{crowd['clients']} clients ask at once for {crowd['asked']} videos, a queue of {QUEUE}",
            f"{crowd['completed']} made in {crowd['seconds']} s, after {crowd['refusals']} answers 429, each with "
            f"`Retry-After`; {crowd['lost']} lost, {crowd['doubled']} doubled, {crowd['out_of_order']} out of order",
        ),
        (
            f"a server with its worker killed {found['kills_file']['kills']} times, while videos are made",
            _survived(found["kills_file"]),
        ),
        (
            f"one of a Redis, a server and two workers killed {found['kills_redis']['kills']} times",
            _survived(found["kills_redis"]),
        ),
        (
            f"{nonsense['requests']} requests that are wrong in one way each",
            f"{answers}; {nonsense['videos']} videos; memory {memory[0]} MB after the first hundred, {memory[-1]} MB "
            "after the last",
        ),
        (
            f"{same['videos']} videos of a photo by one worker on a file, and by two on a Redis",
            f"{same['equal']} have the same frames",
        ),
    ]
    lines = [f"| {what} | {came} |" for what, came in rows]
    return "\n".join(["| what | what came of it |", "|---|---|", *lines])


def _survived(kills: dict[str, Any]) -> str:
    return (
        f"{kills['accepted']} accepted, {kills['completed']} made, {kills['failed_with_a_reason']} failed with a "
        f"reason; {kills['begun_again']} begun again, {kills['lost']} lost, {kills['made_twice']} made twice"
    )


def main() -> None:
    """Run all, or a part, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", default="redis-server", help="program of a Redis")
    parser.add_argument("--out", type=Path, default=Path(RESULTS))
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS, help="what to run")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    found |= {"python": sys.version.split()[0], "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = Path(folder) / "model"
        tiny_photo_pipeline().save_pretrained(model)
        for part in options.only:
            found[part] = measure(part, Path(folder), model, options.redis)
            options.out.write_text(json.dumps(found, indent=2) + "\n")
            print(part, json.dumps(found[part], indent=2), flush=True)  # noqa: T201


def measure(part: str, place: Path, model: Path, redis: str) -> dict[str, Any]:
    """One part, on processes of its own."""
    draw = random.Random(0)
    if part == "crowd":
        with running(place / part, model) as site:
            return crowd(site)
    if part.startswith("kills"):
        with running(place / part, model, redis if part == "kills_redis" else None) as site:
            return kills(site, draw)
    if part == "nonsense":
        with running(place / part, model) as site:
            return nonsense(site, draw)
    photo = io.BytesIO()
    Image.fromarray(astronaut()).save(photo, "PNG")
    with running(place / "one", model) as one:
        first = frames(one, photo.getvalue())
    with running(place / "two", model, redis) as two:
        second = frames(two, photo.getvalue())
    equal = sum(second.get(seed) == pixels for seed, pixels in first.items())
    return {"videos": SAME, "equal": equal, "different_from_each_other": len(set(first.values()))}


if __name__ == "__main__":
    main()
