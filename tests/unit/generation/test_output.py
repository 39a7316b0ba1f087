"""A generation on disk: three files or none, a record that reads back, nobody else's file replaced."""

import shutil
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from skimage.data import astronaut

from fantasyid.core.errors import InvalidRequestError, UnwritableOutputError
from fantasyid.core.output_files import tidy_up
from fantasyid.core.provenance import DETECTION_THRESHOLD, add_mark, declares_ai, detect_mark
from fantasyid.core.video import read_video
from fantasyid.generation.output import contact_sheet
from fantasyid.generation.output import save_generation as save
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.record import GenerationRecord, SoftwareVersions
from fantasyid.generation.request import GenerationRequest
from tests.kills import contents, count_steps, file_size_limit, kill_at

REFERENCE = astronaut()[0:256:2, 96:352:2].copy()
FRAMES = np.stack([np.roll(REFERENCE, step, axis=1) for step in range(17)])


RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def record(*, provenance_mark: bool = True, **changes: object) -> GenerationRecord:
    asked: dict[str, object] = {
        "prompt": "A woman in her 40s smiles, in front of a plain grey background.",
        "seed": 0,
        "num_inference_steps": 30,
        "guidance_scale": 6.0,
        "height": 128,
        "width": 128,
        "num_frames": 17,
        "fps": 8.0,
    }
    return GenerationRecord(
        request=GenerationRequest.model_validate(asked | changes),
        command=("generate", "face.jpg"),
        versions=SoftwareVersions.installed(),
        weights_sha256="0" * 64,
        photo_sha256=("1" * 64,),
        face_index=0,
        face_box=(10.0, 20.0, 90.0, 100.0),
        device="cpu",
        timings_s={"denoise": 3.25},
        provenance_mark=provenance_mark,
    )


def save_generation(
    out: Path, frames: Any, reference: Any, metadata: GenerationRecord, *, overwrite: bool = False
) -> GenerationPaths:
    paths = GenerationPaths.beside(out)
    save(paths, frames, reference, metadata, overwrite=overwrite)
    return paths


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_three_files(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record())
    assert names(tmp_path) == {"a.mp4", "a.json", "a.jpg"}
    assert GenerationRecord.model_validate_json(paths.record.read_text(encoding="utf-8")) == record()
    frames, fps = read_video(paths.video)
    assert frames.shape == FRAMES.shape
    assert fps == 8
    assert detect_mark(frames) > DETECTION_THRESHOLD


def test_mark_can_be_left_off(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record(provenance_mark=False))
    assert detect_mark(read_video(paths.video)[0]) < DETECTION_THRESHOLD
    assert b"AI-generated" not in paths.video.read_bytes()
    assert not any(map(declares_ai, (paths.video, paths.sheet)))
    assert detect_mark(np.asarray(Image.open(paths.sheet))[None]) < DETECTION_THRESHOLD
    assert (
        b"AI-generated with FantasyID"
        in save_generation(tmp_path / "b.mp4", FRAMES, REFERENCE, record()).video.read_bytes()
    )


def test_video_and_sheet_say_it_to_readers_of_metadata(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record())
    with av.open(str(paths.video), options={"export_xmp": "1"}) as container:
        in_video = container.metadata["xmp"]
        assert container.streams.video[0].frames == len(FRAMES)
    with Image.open(paths.sheet) as sheet:
        in_sheet = sheet.info["xmp"].decode()
        assert detect_mark(np.asarray(sheet)[None]) > DETECTION_THRESHOLD
    for packet in (in_video, in_sheet):
        (description,) = ElementTree.fromstring(packet.strip("\x00")).iter(f"{RDF}Description")
        kind = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
        assert kind == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert all(map(declares_ai, (paths.video, paths.sheet)))


@pytest.mark.parametrize("suffix", [".webm", ".gif"])
def test_other_formats_say_it_in_words_and_end_as_they_should(suffix: str, tmp_path: Path) -> None:
    paths = save_generation(tmp_path / f"a{suffix}", FRAMES, REFERENCE, record())
    assert b"AI-generated with FantasyID" in paths.video.read_bytes()
    assert not declares_ai(paths.video)
    assert len(read_video(paths.video)[0]) == len(FRAMES)


def test_contact_sheet_shows_reference_and_frames_in_order() -> None:
    """Flat colours: each tile's centre must have its frame's grey, the reference its own colour."""
    reference = np.full((128, 128, 3), (200, 30, 30), np.uint8)
    frames = np.broadcast_to(np.arange(0, 255, 15, dtype=np.uint8)[:, None, None, None], (17, 128, 128, 3)).copy()
    sheet = np.asarray(contact_sheet(frames, reference, record()))
    height, width, _ = sheet.shape
    assert width == 24 + 408 + 16 + 4 * 200 + 3 * 8 + 24
    assert height > 24 + 408 + 24
    assert tuple(sheet[228, 228]) == (200, 30, 30)
    centres = [sheet[24 + 100 + row * 208, 448 + 100 + column * 208, 0] for row in range(2) for column in range(4)]
    expected = frames[np.linspace(0, 16, 8).round().astype(int), 0, 0, 0]
    assert centres == list(expected)
    caption = sheet[24 + 408 :]
    assert caption.min() < 60, "the caption is drawn"


def test_contact_sheet_of_a_short_video_and_a_long_prompt() -> None:
    short = np.asarray(contact_sheet(FRAMES[:3], REFERENCE, record()))
    assert (short[24 + 208 : 24 + 408, 448 : 448 + 800] == short[0, 0]).all(), "three frames leave the second row empty"
    long = contact_sheet(FRAMES, REFERENCE, record(prompt="A woman in her 40s smiles. " * 30))
    assert long.height > short.shape[0] + 50


def save_set(folder: Path, seed: int, num_frames: int = 2) -> GenerationPaths:
    stated = record(seed=seed, num_frames=num_frames)
    frames = np.roll(FRAMES[:num_frames], seed, axis=2)
    return save_generation(folder / "a.mp4", frames, REFERENCE, stated, overwrite=True)


@pytest.mark.parametrize(("number", "stride"), [(signal.SIGKILL, 5), (signal.SIGTERM, 11)])
def test_a_kill_leaves_the_old_generation_or_the_new_one(tmp_path: Path, number: int, stride: int) -> None:
    """Some steps here; every step of the same writing in test_output_files.py."""
    for name, seed in (("old", 0), ("new", 1)):
        (tmp_path / name).mkdir()
        save_set(tmp_path / name, seed)
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    steps = count_steps(lambda: save_set(tmp_path / "new", 1))
    for step in range(0, steps, stride):
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / f"{step}"))
        kill_at(step, number, lambda folder=folder: save_set(folder, 1))  # type: ignore[misc]
        if number == signal.SIGKILL:
            tidy_up(folder)
        assert contents(folder) in (old, new), f"step {step} of {steps}"


def test_a_full_disk_leaves_the_frames_in_a_place_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_set(tmp_path, 0)
    before = contents(tmp_path)
    elsewhere = tmp_path.with_name("elsewhere")
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    with file_size_limit(3000), pytest.raises(UnwritableOutputError) as caught:
        save_set(tmp_path, 1, num_frames=17)
    assert contents(tmp_path) == before
    message = str(caught.value)
    assert "a.mp4" in message
    assert "make room or choose another folder. There was no room for the frames elsewhere either." in message
    assert list(elsewhere.iterdir()) == []

    with file_size_limit(40_000), pytest.raises(UnwritableOutputError) as caught:
        save_set(tmp_path, 1, num_frames=17)
    assert contents(tmp_path) == before
    (kept,) = elsewhere.iterdir()
    assert f"The frames, 17 pictures for 8 a second, and their record are in {kept}." in str(caught.value)
    pictures = np.stack([np.asarray(Image.open(path)) for path in sorted(kept.glob("*.png"))])
    assert np.array_equal(pictures, add_mark(np.roll(FRAMES, 1, axis=2)))
    assert GenerationRecord.model_validate_json((kept / "record.json").read_bytes()).request.seed == 1


def test_failure_midway_leaves_nothing_and_keeps_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UnwritableOutputError, match="127x127"):
        save_generation(out / "a.mp4", FRAMES[:, :127, :127], REFERENCE, record(height=127, width=127))
    broken = REFERENCE[..., :1].repeat(5, axis=-1)
    with pytest.raises(RuntimeError, match=r"TypeError: .* are in .*fantasyid-frames-"):
        save_generation(out / "a.mp4", FRAMES, broken, record())
    assert names(out) == set()
    assert len(list(tmp_path.glob("fantasyid-frames-*/0016.png"))) == 2


def test_an_earlier_generation_is_replaced_only_when_told_to(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("elsewhere")))
    save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record())
    before = contents(tmp_path)
    with pytest.raises(InvalidRequestError, match=r"a\.mp4 is there already"):
        GenerationPaths.beside(tmp_path / "a.mp4").check(overwrite=False)
    with pytest.raises(UnwritableOutputError, match=r"a\.mp4 is there already.* The frames, .* are in "):
        save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record(seed=1))
    assert contents(tmp_path) == before
    paths = save_generation(tmp_path / "a.mp4", FRAMES, REFERENCE, record(seed=1), overwrite=True)
    assert GenerationRecord.model_validate_json(paths.record.read_text(encoding="utf-8")).request.seed == 1
    assert names(tmp_path) == {"a.mp4", "a.json", "a.jpg"}


@pytest.mark.parametrize("name", ["holiday.mp4", "holiday.json", "holiday.jpg"])
def test_nobody_elses_file_is_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InvalidRequestError, match=rf"{name} is there already; choose another name or pass --overwrite"):
        GenerationPaths.beside(tmp_path / "holiday.mp4").check(overwrite=False)


def test_the_photo_itself_is_never_replaced(tmp_path: Path) -> None:
    """`generate face.jpg --out face.mp4` would put its contact sheet over the photo."""
    photo = tmp_path / "face.jpg"
    Image.fromarray(REFERENCE).save(photo)
    for overwrite in (False, True):
        with pytest.raises(InvalidRequestError, match=r"face\.jpg is a file that is read for it and would be lost"):
            GenerationPaths.beside(tmp_path / "face.mp4").check(overwrite=overwrite, inputs=[photo])


def test_names_and_room_are_checked_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.avi", "a"):
        with pytest.raises(InvalidRequestError, match=r"\.mp4"):
            GenerationPaths.beside(tmp_path / name)
    (tmp_path / "b.json").mkdir()
    for name, says in (
        ("nowhere/a.mp4", "nowhere"),
        ("b.mp4", r"b\.json is a folder"),
        (f"{'x' * 251}.mp4", "too long"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            GenerationPaths.beside(tmp_path / name).check(overwrite=True)
    paths = GenerationPaths.beside(tmp_path / f"{'x' * 250}.mp4")
    paths.check(overwrite=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))
    paths.check_room(17, 128, 128)
    with pytest.raises(InvalidRequestError, match=r"needs 54\.8 MB and .* has 50\.0 MB free"):
        paths.check_room(49, 480, 720)


@pytest.mark.parametrize("changes", [{"colour": 1}, {"photo_sha256": ("abc",)}, {"format": 1}])
def test_record_refuses_what_it_does_not_know(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerationRecord.model_validate({**record().model_dump(), **changes})
