"""Damages files on purpose and counts what the readers do: `python -m tests.fuzz.run pickle --files 100000`.

Without formats it takes all of them. It prints one line a format, and each failure with the name under which
`--show FORMAT NUMBER OUT` writes the file again. It ends with 1 if there was any.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.attacks import attacks
from tests.fuzz.formats import FORMATS
from tests.fuzz.worker import HANG_SECONDS, content_of

PEAK_GIB = 1.5
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        case: `FORMAT NUMBER` of a damaged file, `FORMAT NAME` of an attack.
        kind: read, refused (by an error of ours), uncaught, died or hung.
        seconds: How long it took.
        peak_gib: The largest resident memory of the process, libraries included.
        message: The error.
    """

    case: str
    kind: str
    seconds: float
    peak_gib: float
    message: str

    @property
    def is_failure(self) -> bool:
        """Whether it breaks what docs/security.md promises."""
        return self.kind not in ("read", "refused") or self.seconds > HANG_SECONDS or self.peak_gib > PEAK_GIB


def run(cases: list[str]) -> Iterator[Outcome]:
    """Read each case in a process of its own kind; the next one takes over where one died."""
    while cases:
        done = 0
        with tempfile.TemporaryFile("w+") as complaints:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                cwd=_ROOT,
            )
            for outcome in _answers(worker, cases):
                yield outcome
                done += 1
            status = worker.wait()
            complaints.seek(0)
            said = complaints.read()
        if done < len(cases):
            kind = "hung" if "Timeout" in said else "died"
            yield Outcome(cases[done], kind, 0.0, 0.0, f"status {status}: {said[-600:]!a}")
            done += 1
        cases = cases[done:]


def _answers(worker: subprocess.Popen[str], cases: list[str]) -> Iterator[Outcome]:
    """What a worker says of the cases until it dies; one goes in for one that comes out."""
    assert worker.stdin
    assert worker.stdout
    begun = True
    for case in cases:
        try:
            worker.stdin.write(f"{case}\n")
            worker.stdin.flush()
        except BrokenPipeError:
            begun = False
        answer = worker.stdout.readline() if begun else ""
        if not answer:
            break
        yield Outcome(**json.loads(answer))
    try:
        worker.stdin.close()
    except BrokenPipeError:
        begun = False


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(FORMATS)}; all without any")
    parser.add_argument("--files", type=int, default=10_000, help="damaged files of each format, besides the attacks")
    parser.add_argument("--first", type=int, default=0, help="number of the first one; others give other files")
    parser.add_argument("--show", nargs=3, metavar=("FORMAT", "NUMBER", "OUT"), help="write one of them and end")
    options = parser.parse_args()
    if options.show:
        name, which, out = options.show
        Path(out).write_bytes(content_of(f"{name} {which}"))
        return 0
    failures = 0
    for name in options.formats or FORMATS:
        numbers = range(options.first, options.first + options.files)
        cases = [f"{name} {which}" for which in (*attacks(name), *numbers)]
        kinds: Counter[str] = Counter()
        slowest = largest = 0.0
        for outcome in run(cases):
            kinds[outcome.kind] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak_gib)
            if outcome.is_failure:
                failures += 1
                print(f"  {outcome}", flush=True)  # noqa: T201
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        print(f"{name}: {counts}; slowest {slowest:.2f} s, peak {largest:.2f} GiB", flush=True)  # noqa: T201
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
