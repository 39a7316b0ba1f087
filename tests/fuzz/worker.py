"""Reads damaged files one after the other and tells of each what came of it, in a process that may die of it.

`python -m tests.fuzz.worker` takes cases from its standard input, `FORMAT NUMBER` or `FORMAT ATTACK` a line, and writes
one line of JSON for each: what came of it.
"""

import faulthandler
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path

from fantasyid.core.errors import FantasyIDError
from tests.fuzz.attacks import attacks
from tests.fuzz.formats import FORMATS
from tests.fuzz.mutators import mutate

HANG_SECONDS = 20
_NOTABLE_GIB = 0.8
_EXTRA_ADDRESS_SPACE = 8 * 2**30  # So that a reader that takes everything ends itself and not the machine.


def content_of(case: str) -> bytes:
    """The bytes of a case, the same in every run."""
    name, which = case.split()
    if not which.isdigit():
        return attacks(name)[which]
    seeds = _seeds(name)
    generator = random.Random(f"{name} {which}")
    return mutate(generator.choice(seeds), seeds, generator, FORMATS[name].text)


@cache
def _seeds(name: str) -> list[bytes]:
    return FORMATS[name].seeds()


def _outcome(case: str, folder: Path) -> dict[str, object]:
    made = FORMATS[case.split()[0]]
    path = folder / f"file{made.suffix}"
    path.write_bytes(content_of(case))
    start = time.monotonic()
    message = ""
    try:
        made.read(path)
        kind = "read"
    except FantasyIDError as error:
        kind, message = "refused", str(error)
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fantasyid" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        kind, message = "uncaught", f"{place} {type(error).__name__}: {error}"
    seconds = time.monotonic() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 2**20
    if peak > _NOTABLE_GIB:
        Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak for the files after it; it takes some ms.
    return {"case": case, "kind": kind, "seconds": seconds, "peak_gib": peak, "message": ascii(message[:300])}


def main() -> None:
    """Work through standard input."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _EXTRA_ADDRESS_SPACE,) * 2)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            outcome = _outcome(line.strip(), Path(folder))
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(outcome), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
