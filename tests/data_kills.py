"""Kill the making of what is trained on at moments spread over all its writing, run it again, and compare the bytes.

    python -m tests.data_kills --kills 30

A moment is before a step that a file system sees, see `tests.kills`. `data encode` goes on with what is missing. What
is made of re-posed portraits is made again, over a finished one of before, and until then it must not be read.
"""

import argparse
import io
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from fantasyid.conditioning.identity import IdentityPreparation
from fantasyid.core.errors import FantasyIDError
from fantasyid.core.input_files import file_sha256
from fantasyid.core.video import write_video
from fantasyid.data.clips.config import KeepConfig, MeasureConfig
from fantasyid.data.dataset import encode
from fantasyid.data.dataset.encoded import EncodedClips
from fantasyid.data.dataset.encoders import Encoders
from fantasyid.data.dataset.layout import DatasetFolder, Manifest, Plan, document_bytes
from fantasyid.data.dataset.rows import Clip, View
from fantasyid.data.dataset.shards import write_shard
from fantasyid.data.dataset.tables import write_table
from fantasyid.data.engines.local import LocalEngine
from fantasyid.data.face_views import FaceViews, render_views
from fantasyid.data.precompute import ClipPool, LatentPool, encode_pool, render_pool
from fantasyid.data.repose.prepare import _save
from fantasyid.geometry.head_model import HeadModel
from tests.kills import contents, count_steps, kill_at
from tests.tiny import seeded, tiny_face_vision
from tests.tiny_pipeline import minilm_tokenizer, tiny_frame_vae, tiny_vae
from tests.unit.data.conftest import PEOPLE, _photo
from tests.unit.face.faces import plausible_landmarks

SIDE, CLIPS, SHARD = 64, 5, 2


@dataclass(frozen=True)
class Work:
    """What is killed.

    Attributes:
        begin: Makes what the run finds in a folder.
        run: Makes the rest, or goes on.
        read: Reads what was made; raises `FantasyIDError` unless it is finished.
    """

    begin: Callable[[Path], Any]
    run: Callable[[Path], Any]
    read: Callable[[Path], Any]


def differing(folder: Path, work: Work, kills: int) -> list[str]:
    """Kill a run as often, each time another run at another step; what did not end, or was read, as it should."""
    places = {name: folder / name for name in ("whole", "counted")}
    for place in places.values():
        work.begin(place)
    old = contents(places["whole"])
    work.run(places["whole"])
    new = contents(places["whole"])
    steps = count_steps(partial(work.run, places["counted"]))
    wrong = []
    for number in range(kills):
        step = (2 * number + 1) * steps // (2 * kills)
        place = folder / f"killed{number}"
        work.begin(place)
        kill_at(step, signal.SIGKILL if number % 3 else signal.SIGTERM, partial(work.run, place))
        left = {name: content for name, content in contents(place).items() if "/." not in f"/{name}"}
        with suppress(FantasyIDError):
            work.read(place)
            if left not in (old, new):
                wrong.append(f"what a kill at step {step} of {steps} left is read as if it were finished")
        work.run(place)
        if contents(place) != new:
            wrong.append(f"a kill at step {step} of {steps} changes the bytes")
        shutil.rmtree(place)
    return wrong


def encoding_of_clips(folder: Path) -> Work:
    """`data encode`: a few clips of noise, two a shard, with tiny networks."""
    videos, dataset = folder / "videos", folder / "dataset"
    videos.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)
    write_video(videos / "a.mp4", pictures, 8.0)
    _write_dataset(DatasetFolder(dataset), videos / "a.mp4")
    text = BertConfig(hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    encoders = Encoders(
        vae=tiny_vae(),
        tokenizer=minilm_tokenizer(),
        text_encoder=seeded(BertModel, config=text),
        face_vision=tiny_face_vision(),
        preparation=IdentityPreparation(reference_size=(32, 32), face_size=32),
        text_length=8,
        dtype=torch.float32,
    )
    model = encode.ModelEncoders(lambda: encoders, {"vae": "tiny"}, 8, (32, 32), "float32")

    def run(place: Path) -> None:
        with patch.object(encode, "SHARD_SIZE", SHARD):  # so that a few clips fill several
            encode.encode(DatasetFolder(place), videos, "tiny", model, LocalEngine(), lambda done: None)

    return Work(partial(shutil.copytree, dataset), run, lambda place: EncodedClips(place / "encodings" / "tiny"))


def _write_dataset(folder: DatasetFolder, video: Path) -> None:
    """What `data prepare` leaves of clips of one video, each with one view."""
    folder.measured.mkdir(parents=True)
    jpeg = io.BytesIO()
    Image.fromarray(np.full((440, 480, 3), 120, np.uint8)).save(jpeg, "JPEG")
    head = HeadModel.load()
    view = View(key="a", frame=0, yaw_deg=0, pitch_deg=0, roll_deg=0, confidence=1, sharpness=1, error_cm=0)
    landmarks = plausible_landmarks()[0]
    parts = {
        "a/picture": torch.frombuffer(bytearray(jpeg.getvalue()), dtype=torch.uint8),
        "a/landmarks": torch.cat([landmarks, torch.zeros(len(landmarks), 1)], -1),
        "a/vertices": head.mean,
    }
    write_shard(folder.part(0)["pictures"], parts)
    clips = [
        Clip(
            clip_id=f"{number:020x}",
            path=video.name,
            sha256=file_sha256(video),
            licence="CC0",
            film="a",
            captions=(),
            annotations="{}",
            frames=tuple(range(9)),
            crop=(0, 0, SIDE, SIDE),
            views=(view,),
            part=0,
            caption=f"Clip {number}.",
            caption_from="source",
            person="a#0",
            split="train",
        )
        for number in range(CLIPS)
    ]
    write_table(folder.clips, clips, Clip)
    measure = MeasureConfig(num_frames=9, height=SIDE, width=SIDE)
    plan = Plan(layout="folder", measure=measure, software={"head": head.topology.hash}, sources="")
    counts = {"videos": 1, "absent": 0, "candidates": CLIPS, "kept": CLIPS, "people": 1}
    rest: dict[str, Any] = {"dropped": {}, "licences": {"CC0": CLIPS}, "backends": {}, "files": {}}
    folder.manifest.write_bytes(document_bytes(Manifest(plan=plan, keep=KeepConfig(), **counts, **rest)))


def _write_rigs(folder: Path) -> Path:
    head = HeadModel.load()
    _save(folder / "rigs.npz", [_photo(head, place) for place in range(len(PEOPLE))], head)
    return folder / "rigs.npz"


def _write_pool(folder: Path) -> None:
    """What `data render` leaves, of noise."""
    folder.mkdir()
    draw, large, small = np.random.default_rng(0), (3, 32, 32), (3, 96, 96)
    shapes = {"clips": (2, *large), "reference": large, "face": small, "frame_face": small, "neutral_face": small}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", draw.integers(0, 256, (1, *shape), np.uint8))
    np.save(folder / "identity.npy", np.zeros((1, 5), np.float16))
    (folder / "captions.json").write_text('["somebody"]')


def rendering(folder: Path) -> Work:
    """`data render`, over a pool of another seed."""
    rigs = _write_rigs(folder)
    render_pool(rigs, folder / "old", clips=1, device="cpu", seed=1, frames=2)
    run = partial(render_pool, rigs, clips=1, device="cpu", seed=2, frames=2)
    return Work(partial(shutil.copytree, folder / "old"), run, ClipPool.open)


def views(folder: Path) -> Work:
    """`data views`, over those of another seed."""
    rigs = _write_rigs(folder)
    render_views(rigs, folder / "old", people=1, device="cpu", seed=1)
    run = partial(render_views, rigs, people=1, device="cpu", seed=2)
    return Work(partial(shutil.copytree, folder / "old"), run, partial(FaceViews.open, device="cpu"))


def encoding_of_a_pool(folder: Path) -> Work:
    """`data encode-pool`, over what another VAE gave."""
    _write_pool(folder / "old")
    vision = tiny_face_vision(image_size=96)
    encode_pool(folder / "old", tiny_frame_vae(latents_mean=(0.0,) * 4), vision, "cpu")
    run = partial(encode_pool, vae=tiny_frame_vae(), vision=vision, device="cpu")
    return Work(partial(shutil.copytree, folder / "old"), run, partial(LatentPool.open, device="cpu"))


WORKS = (encoding_of_clips, rendering, views, encoding_of_a_pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="how many of each command")
    kills, wrong = parser.parse_args().kills, []
    for work in WORKS:
        with tempfile.TemporaryDirectory() as folder:
            found = differing(Path(folder), work(Path(folder)), kills)
        print(f"{work.__name__}: {kills} kills, {len(found)} faults", *found, sep="\n  ", flush=True)  # noqa: T201
        wrong += found
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
