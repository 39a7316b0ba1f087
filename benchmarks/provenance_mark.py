"""What the provenance mark survives, and how often it is seen where it is not.

python -m benchmarks.provenance_mark attacks
python -m benchmarks.provenance_mark unmarked --place "cropped or turned" [--portraits FOLDER]
python -m benchmarks.provenance_mark table

`attacks` marks videos of packaged pictures that the camera passes over, writes them as `fantasyid generate` does, and
does to each what happens to videos. `unmarked` scores pictures that carry no mark: packaged ones and parts of them,
noise, text, plots, heads drawn by this project, and, if given, a folder of photos, in one of the places of
`core.mark_search`. Both go on where they stopped, and
`--seconds` ends them early. `table` prints the section of docs/security.md.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from fantasyid.core.mark_search import LOOKS, THRESHOLDS, Place, search_mark
from fantasyid.core.provenance import add_mark, mean_luma
from fantasyid.core.video import read_video, write_video
from fantasyid.evaluation.reader.faceless import NUM_PICTURES, faceless_pictures
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.pictures import part_colours, turntable

RESULTS = Path("benchmarks/results/provenance_mark.json")
Frames = NDArray[np.uint8]

SIZES = ((128, 128), (480, 720))
NUM_FRAMES = 17
PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field", "immunohistochemistry", "camera")


def compressed(frames: Frames, rate_factor: int) -> Frames:
    """What H.264 leaves at a constant rate factor, 51 being the worst."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(8))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.options = "yuv420p", {"crf": str(rate_factor)}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode(None))
        return read_video(path)[0]


def resized(frames: Frames, height: float, width: float) -> Frames:
    """Each side times a factor, to the nearest even number of pixels."""
    rows, columns = (
        2 * round(side * factor / 2) for side, factor in zip(frames.shape[1:3], (height, width), strict=True)
    )
    return np.stack([cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA) for frame in frames])


def cropped(frames: Frames, share: float) -> Frames:
    """Without a share of the width and of the height, a third of it above and two thirds at the left."""
    height, width = (2 * round(side * (1 - share) / 2) for side in frames.shape[1:3])
    top, left = (frames.shape[1] - height) // 3, (frames.shape[2] - width) * 2 // 3
    return frames[:, top : top + height, left : left + width]


def tilted(frames: Frames, angle_deg: float) -> Frames:
    """Turned about the middle; the corners are grey."""
    height, width = frames.shape[1:3]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1)
    return np.stack([cv2.warpAffine(frame, turn, (width, height), borderValue=(128,) * 3) for frame in frames])


def jpeg(frames: Frames, quality: int) -> Frames:
    """One frame, as a JPEG file."""
    coded = cv2.imencode(".jpg", frames[len(frames) // 2], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[None]


def screenshot(frames: Frames) -> Frames:
    """One frame, 480 pixels high, somewhere on a screen of 1280 x 800 with other things on it."""
    screen = cv2.resize(data.page(), (1280, 800))[..., None].repeat(3, axis=2)
    width = round(480 * frames.shape[2] / frames.shape[1])
    screen[170:650, 240 : 240 + width] = cv2.resize(frames[len(frames) // 2], (width, 480))
    return jpeg(screen[None], 92)


def noisy(frames: Frames, sigma: float) -> Frames:
    """With noise of a standard deviation in 8-bit steps."""
    noise = np.random.default_rng(0).normal(0, sigma, frames.shape)
    return (frames + noise).round().clip(0, 255).astype(np.uint8)


def brighter(frames: Frames) -> Frames:
    """Gamma 0.8 and a fifth less colour, as filters do."""
    light = 255 * (frames / 255) ** 0.8
    grey = light.mean(axis=-1, keepdims=True)
    return (grey + 0.8 * (light - grey)).round().clip(0, 255).astype(np.uint8)


ATTACKS: dict[str, Callable[[Frames], Frames]] = {
    "none: as `generate` writes it (CRF 16)": lambda frames: frames,
    "H.264 again, CRF 23": lambda frames: compressed(frames, 23),
    "H.264 again, CRF 28": lambda frames: compressed(frames, 28),
    "H.264 again, CRF 32": lambda frames: compressed(frames, 32),
    "half size": lambda frames: resized(frames, 0.5, 0.5),
    "half size, CRF 23": lambda frames: compressed(resized(frames, 0.5, 0.5), 23),
    "half size, CRF 28": lambda frames: compressed(resized(frames, 0.5, 0.5), 28),
    "twice the size, CRF 23": lambda frames: compressed(resized(frames, 2, 2), 23),
    "squeezed to 3/4 of its width, CRF 16": lambda frames: compressed(resized(frames, 1, 0.75), 16),
    "crop of 5 %": lambda frames: cropped(frames, 0.05),
    "crop of 15 %": lambda frames: cropped(frames, 0.15),
    "crop of 25 %": lambda frames: cropped(frames, 0.25),
    "crop of 40 %": lambda frames: cropped(frames, 0.4),
    "crop of 10 %, CRF 23": lambda frames: compressed(cropped(frames, 0.1), 23),
    "mirrored": lambda frames: frames[:, :, ::-1],
    "turned by 90 degrees": lambda frames: np.rot90(frames, axes=(1, 2)),
    "turned by 2 degrees": lambda frames: tilted(frames, 2),
    "brighter, less colour": brighter,
    "noise of 8 steps": lambda frames: noisy(frames, 8),
    "one frame as JPEG, quality 90": lambda frames: jpeg(frames, 90),
    "one frame as JPEG, quality 60": lambda frames: jpeg(frames, 60),
    "one frame on a screenshot": screenshot,
}


def passing_video(picture: Frames, height: int, width: int) -> Frames:
    """The camera passes over a picture."""
    large = cv2.resize(picture, (width * 9 // 8, height * 9 // 8), interpolation=cv2.INTER_AREA)
    steps = np.linspace(0, width // 8, NUM_FRAMES).astype(int)
    return np.stack([large[height // 16 : height // 16 + height, step : step + width] for step in steps])


def measure_attacks(rows: dict[str, Any], seconds: float) -> None:
    """Each attack on each picture at each size: scores, and where the mark was found; goes on where `rows` ends."""
    begin = time.monotonic()
    for (height, width), (number, name) in product(SIZES, enumerate(PICTURES)):
        size = f"{width}x{height}"
        cells = {attack: rows.setdefault(attack, {}).setdefault(size, {"found": 0, "scores": []}) for attack in ATTACKS}
        missing = [attack for attack, cell in cells.items() if len(cell["scores"]) <= number]
        if not missing:
            continue
        frames = marked_video(name, height, width)
        for attack in missing:
            if time.monotonic() - begin > seconds:
                return
            finding = search_mark(np.ascontiguousarray(ATTACKS[attack](frames)))
            cells[attack]["found"] += finding.found
            cells[attack]["scores"].append(round(finding.score, 2))


def marked_video(name: str, height: int, width: int) -> Frames:
    """A marked video of a packaged picture, as `generate` would have written it."""
    picture = np.atleast_3d(getattr(data, name)())[..., :3] * np.ones(3, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        write_video(Path(folder) / "video.mp4", add_mark(passing_video(picture, height, width)), 8)
        return read_video(Path(folder) / "video.mp4")[0]


def unmarked_pictures(portraits: Path | None, done: int) -> Iterator[Frames]:
    """Pictures without end that carry no mark; a folder's come in turns with ours until it has no more.

    Args:
        portraits: The folder, if there is one.
        done: How many to leave out.
    """
    photos = sorted(portraits.glob("*.jpg")) if portraits else []
    for seed in count():
        mine = photos[seed * NUM_PICTURES : (seed + 1) * NUM_PICTURES]
        if done >= 1 + NUM_PICTURES + len(mine):
            done -= 1 + NUM_PICTURES + len(mine)
            continue
        yield from islice(_pictures_of(seed, mine), done, None)
        done = 0


def _pictures_of(seed: int, photos: list[Path]) -> Iterator[Frames]:
    rng, head = np.random.default_rng(seed), HeadModel.load()
    vertices = head.mean * torch.from_numpy(1 + 0.1 * rng.normal(size=3)).float()
    yaws = (float(rng.uniform(-60, 60)),)
    yield turntable(vertices, head.triangles, part_colours(head), yaws, int(rng.integers(96, 400)))[None]
    for number, (_, picture) in enumerate(faceless_pictures(seed)):
        height, width = (round(side * rng.uniform(0.6, 1)) for side in picture.shape[:2])
        top, left = rng.integers(picture.shape[0] - height + 1), rng.integers(picture.shape[1] - width + 1)
        scale = rng.integers(96, 513) / max(height, width)
        part = picture[top : top + height, left : left + width]
        yield cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[None]
        if number < len(photos):
            yield np.asarray(Image.open(photos[number]).convert("RGB"))[None]


def measure_unmarked(scores: list[float], place: Place, portraits: Path | None, seconds: float, wanted: int) -> None:
    """Go on looking for the mark in one kind of place where the scores end."""
    begin, done = time.monotonic(), len(scores)
    for frames in islice(unmarked_pictures(portraits, done), wanted - done):
        if time.monotonic() - begin > seconds:
            return
        scores.append(round(LOOKS[place](mean_luma(frames)), 3))


def table(content: dict[str, Any]) -> str:
    """The section of docs/security.md, in Markdown."""
    sizes = [f"{width}x{height}" for height, width in SIZES]
    lines = [f"| what is done to the video | {' | '.join(sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for attack, row in content["attacks"].items():
        lines.append(f"| {attack} | {' | '.join(_found(row[size]) for size in sizes)} |")
    lines += ["", "| looked for | found from | unmarked pictures | highest score | found |", "|---|---|---|---|---|"]
    for place, threshold in THRESHOLDS.items():
        scores = content["unmarked"][place]
        found = sum(score >= threshold for score in scores)
        lines.append(f"| {place} | {threshold:g} | {len(scores):,} | {max(scores):.2f} | {found} |")
    return "\n".join(lines)


def _found(cell: dict[str, Any]) -> str:
    return f"{cell['found']} of {len(cell['scores'])}"


def main() -> None:
    """Measure one of the two, or print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("attacks", "unmarked", "table"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to add to")
    parser.add_argument("--place", choices=THRESHOLDS, default="whole", help="where unmarked pictures are searched")
    parser.add_argument("--portraits", type=Path, help="folder of .jpg photos without the mark")
    parser.add_argument("--pictures", type=int, default=2500, help="how many unmarked pictures")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop; a later call goes on")
    options = parser.parse_args()
    content: dict[str, Any] = {"attacks": {}, "unmarked": {place: [] for place in THRESHOLDS}}
    if options.out.exists():
        content = json.loads(options.out.read_text(encoding="utf-8"))
    if options.what == "attacks":
        measure_attacks(content["attacks"], options.seconds)
    elif options.what == "unmarked":
        scores = content["unmarked"][options.place]
        measure_unmarked(scores, options.place, options.portraits, options.seconds, options.pictures)
    else:
        print(table(content))  # noqa: T201
        return
    options.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
