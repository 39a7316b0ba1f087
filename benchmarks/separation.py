"""Does the evaluation separate what is known to differ? Five systems whose order is known, and who sees it.

python -m benchmarks.separation --portraits PORTRAITS --rigs RIGS.npz --out FOLDER \\
    --result benchmarks/results/separation.json

The systems: photos of held-out people re-posed to do what the prompt asks, this package's model, the same model without
identity, the photo itself as a still video, and somebody else's re-posed video. RIGS is made by `fantasyid data rigs
--split val`; people whose photo cannot be re-posed are left out. Needs no GPU. What is there is
not made again.
"""

import argparse
import csv
import itertools
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Results, say
from fantasyid.cli.evaluate_run import StudioMaker, system_request
from fantasyid.core.imaging import read_photo
from fantasyid.core.video import write_video
from fantasyid.data.precompute import FRAMES
from fantasyid.data.repose.render import render
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.evaluation.metrics.registry import metric_of
from fantasyid.evaluation.protocol import (
    IDENTITY_PROMPTS,
    OPPOSITE_PROMPTS,
    SEED,
    EvaluationRow,
    Person,
    read_people,
    shuffled_reference,
)
from fantasyid.evaluation.reposed import scene_of
from fantasyid.evaluation.run import RunItem, run
from fantasyid.evaluation.run_config import RunConfig, run_rows
from fantasyid.evaluation.tables import build_table
from fantasyid.geometry.head_model import HeadModel

REPOSED, OURS, NO_IDENTITY, FROZEN, STRANGER = "reposed", "ours", "no-identity", "frozen", "stranger"
SYSTEMS = (REPOSED, OURS, NO_IDENTITY, FROZEN, STRANGER)
PROMPTS = [
    prompt
    for prompt in (*IDENTITY_PROMPTS, *OPPOSITE_PROMPTS)
    if prompt.key in ("turn_left", "turn_right", "smile", "serious", "mouth_open")
]
FPS = 8


@dataclass(frozen=True)
class Order:
    """What a metric claims to see: one system has more of it than another."""

    metric: str
    more: str
    less: str


def _orders(metrics: str, *chains: tuple[str, ...]) -> Iterable[Order]:
    """Neighbours of the chains, from more to less, for metrics that are named in one text."""
    for metric in metrics.split():
        for chain in chains:
            for more, less in itertools.pairwise(chain):
                yield Order(metric, more, less)


ORDERS = (
    # Likeness: the frozen copy wins, and nobody else is taken for the person.
    *_orders("reference_similarity", (FROZEN, REPOSED, OURS, NO_IDENTITY), (OURS, STRANGER)),
    *_orders("median_distance", (NO_IDENTITY, OURS, REPOSED, FROZEN), (STRANGER, OURS)),
    *_orders("verification_rate", (FROZEN, OURS, NO_IDENTITY), (REPOSED, OURS, STRANGER)),
    # Motion: the frozen copy has none.
    *_orders(
        "face_motion face_motion_per_second yaw_range pitch_range roll_range expression_range",
        (REPOSED, FROZEN),
        (OURS, FROZEN),
        (NO_IDENTITY, FROZEN),
        (STRANGER, FROZEN),
    ),
    # Copy-paste: the frozen copy is nothing else.
    *_orders("copy_paste_pose copy_paste_expression", (FROZEN, REPOSED), (FROZEN, OURS), (FROZEN, STRANGER)),
    # Quality: what does not move neither shakes nor changes, and a photo looks like a photo.
    *_orders("structure_spread jitter flicker", (OURS, FROZEN), (REPOSED, FROZEN)),
    *_orders("inter_frame_similarity", (FROZEN, REPOSED), (FROZEN, OURS)),
    *_orders("face_frechet_distance", (NO_IDENTITY, OURS, REPOSED, FROZEN)),
)


def find_orders(config: RunConfig, items: Sequence[RunItem]) -> dict[str, dict[str, Any]]:
    """Compare the systems as the tables do.

    Args:
        config: Of a run of `SYSTEMS`.
        items: Of the run.

    Returns:
        By metric and systems: both values, the difference, its 95 % interval over people, and whether all of it is
        above 0.
    """
    found = {}
    for base in dict.fromkeys(order.less for order in ORDERS):
        orders = [order for order in ORDERS if order.less == base]
        shown = {base, *(order.more for order in orders)}
        systems = tuple(system for system in config.systems if system.name in shown)
        chosen = config.model_copy(update={"systems": systems, "compared_with": base})
        table = build_table(chosen, [item for item in items if item.system in shown])
        columns = {column.key: column for column in table.columns}
        for order in orders:
            column = columns[order.metric]
            compared = column.comparisons[table.systems.index(order.more)]
            assert compared is not None, "no system is compared with itself"
            found[f"{order.metric}: {order.more} > {order.less}"] = {
                "values": {name: column.line(name).value for name in (order.more, order.less)},
                "difference": compared.difference,
                "low": compared.low,
                "high": compared.high,
                "seen": compared.low is not None and compared.low > 0,
            }
    return found


def to_markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of docs/evaluation.md: each metric's numbers, and which orders it claims to see and sees.

    Args:
        rows: Of `find_orders`.
    """
    lines = ["| number | " + " | ".join(SYSTEMS) + " | orders seen |", "|---" * (len(SYSTEMS) + 2) + "|"]
    for metric in dict.fromkeys(order.metric for order in ORDERS):
        own = [row for name, row in rows.items() if name.startswith(f"{metric}: ")]
        values = {system: f"{value:.3g}" for row in own for system, value in row["values"].items()}
        cells = [values.get(system, "") for system in SYSTEMS]
        seen = f"{sum(row['seen'] for row in own)} of {len(own)}"
        lines.append(f"| {' | '.join([metric_of(metric).definition.title(), *cells, seen])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the videos, judge them, and write what was found; exits with 1 where an order is not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--portraits", "--rigs", "--out", "--result"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--people", type=int, default=8)
    arguments = parser.parse_args()
    people = choose_people(arguments.portraits, arguments.rigs, arguments.people, arguments.out)
    make_folders(people, arguments.portraits, arguments.rigs, arguments.out)
    config = run_config(arguments.out)
    rows = list(run_rows(config, arguments.out))
    makers = {
        system.name: partial(StudioMaker, system_request(system, rows[0]))
        for system in config.systems
        if system.request is not None
    }
    items = run(config, rows, arguments.out, arguments.out / "run", makers, command=sys.argv)
    results = Results(arguments.result, torch.device("cpu"))
    for name, found in find_orders(config, items).items():
        results.add(name, **found)
    rows = results.content["rows"]
    say(to_markdown(rows))
    unseen = [name for name, row in rows.items() if not row["seen"]]
    say(f"{len(ORDERS) - len(unseen)} of {len(ORDERS)} orders are seen; not seen: {', '.join(unseen) or 'none'}")
    sys.exit(1 if unseen else 0)


def choose_people(portraits: Path, rigs_file: Path, count: int, out: Path) -> tuple[Person, ...]:
    """The first held-out people who can be re-posed, and a manifest of them alone in `out`."""
    with np.load(rigs_file, allow_pickle=False) as archive:
        rigged = set(archive["ids"].tolist())
    people = [person for person in read_people(portraits / "manifest.csv") if Path(person.photo).stem in rigged]
    chosen = {person.name: person for person in people[:count]}
    with (portraits / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        kept = [row for row in rows if row["person"] in chosen and row["file"] == chosen[row["person"]].photo]
    for person in chosen.values():
        (out / person.photo).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(portraits / person.photo, out / person.photo)
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    return tuple(chosen.values())


def make_folders(people: Sequence[Person], portraits: Path, rigs_file: Path, out: Path) -> None:
    """Write the videos that no model makes: re-posed, frozen, and a stranger's."""
    layers = HeadLayers.build(HeadModel.load())
    rigs = RigSet.load(rigs_file, layers)
    with np.load(rigs_file, allow_pickle=False) as archive:
        place = {photo: index for index, photo in enumerate(archive["ids"].tolist())}
    for name in (REPOSED, FROZEN, STRANGER):
        (out / name).mkdir(exist_ok=True)
    for index, person in enumerate(people):
        photo = read_photo(portraits / person.photo)
        photo = photo[: photo.shape[0] // 2 * 2, : photo.shape[1] // 2 * 2]
        for prompt in PROMPTS:
            name = f"{person.name}_{prompt.key}_1.mp4"
            if (out / REPOSED / name).exists():
                continue
            write_video(out / FROZEN / name, np.stack([photo] * FRAMES), FPS, overwrite=True)
            text = prompt.text.format(person=person.caption)
            row = EvaluationRow(person, REPOSED, False, False, prompt.key, text, prompt.asks, SEED + index)
            with torch.no_grad():
                scene = scene_of(layers, rigs, place[Path(person.photo).stem], row)
                frames = render(layers, rigs, scene, supersample=1).frames[0]
            pixels = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
            write_video(out / REPOSED / name, pixels, FPS)
    for name, other in shuffled_reference(tuple(people)).items():
        for prompt in PROMPTS:
            source, target = (f"{shown}_{prompt.key}_1.mp4" for shown in (other.name, name))
            shutil.copy(out / REPOSED / source, out / STRANGER / target)


def run_config(out: Path) -> RunConfig:
    """The five systems on the people of `out`."""
    ours = {"model": {"device": "cpu", "acceleration": {"cache": "taylor"}}}
    requests = {OURS: ours, NO_IDENTITY: {**ours, "use_reference": False, "use_identity_tokens": False}}
    systems = [
        {"name": name, "request": requests[name]} if name in requests else {"name": name, "videos": {"folder": name}}
        for name in SYSTEMS
    ]
    return RunConfig.model_validate(
        {
            "people": {"portraits": "."},
            "prompts": [{"key": prompt.key, "text": prompt.text, "asks": prompt.asks} for prompt in PROMPTS],
            "seeds": [1],
            "systems": systems,
            "compared_with": OURS,
        }
    )


if __name__ == "__main__":
    main()
