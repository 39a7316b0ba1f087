"""A generation on disk: three files or none, a record that reads back, nobody else's file replaced."""

from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from skimage.data import astronaut

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.provenance import DETECTION_THRESHOLD, declares_ai, detect_mark
from fantasyid.core.video import read_video
from fantasyid.pipelines.output import (
    GenerationPaths,
    GenerationRecord,
    SoftwareVersions,
    contact_sheet,
    save_generation,
)

REFERENCE = astronaut()[0:256:2, 96:352:2].copy()
FRAMES = np.stack([np.roll(REFERENCE, step, axis=1) for step in range(17)])


RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def record(**changes: object) -> GenerationRecord:
    settings: dict[str, object] = {
        "versions": SoftwareVersions.installed(),
        "command": ("generate", "face.jpg"),
        "prompt": "A woman in her 40s smiles, in front of a plain grey background.",
        "negative_prompt": "",
        "seed": 0,
        "num_inference_steps": 30,
        "guidance_scale": 6.0,
        "identity_scale": 1.0,
        "use_reference": True,
        "use_identity_tokens": True,
        "height": 128,
        "width": 128,
        "num_frames": 17,
        "fps": 8.0,
        "model_name": "mini",
        "weights_sha256": "0" * 64,
        "photo_sha256": "1" * 64,
        "face_index": 0,
        "face_box": (10.0, 20.0, 90.0, 100.0),
        "device": "cpu",
        "dtype": "float32",
        "timings_s": {"denoise": 3.25},
    }
    return GenerationRecord.model_validate(settings | changes)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_three_files(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record())
    assert names(tmp_path) == {"a.mp4", "a.json", "a.jpg"}
    assert GenerationRecord.model_validate_json(paths.record.read_text(encoding="utf-8")) == record()
    frames, fps = read_video(paths.video)
    assert frames.shape == FRAMES.shape
    assert fps == 8
    assert detect_mark(frames) > DETECTION_THRESHOLD


def test_mark_can_be_left_off(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record(provenance_mark=False))
    assert detect_mark(read_video(paths.video)[0]) < DETECTION_THRESHOLD
    assert b"AI-generated" not in paths.video.read_bytes()
    assert not any(map(declares_ai, (paths.video, paths.sheet)))
    assert detect_mark(np.asarray(Image.open(paths.sheet))[None]) < DETECTION_THRESHOLD
    assert (
        b"AI-generated with FantasyID"
        in save_generation(tmp_path / "b.mp4", FRAMES, 8.0, REFERENCE, record()).video.read_bytes()
    )


def test_video_and_sheet_say_it_to_readers_of_metadata(tmp_path: Path) -> None:
    paths = save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record())
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


def test_failed_move_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record())
    before = {path: path.read_bytes() for path in first.all}
    rename = Path.replace

    def fail_at_the_sheet(source: Path, target: Path) -> Path:
        if target == first.sheet and source.parent.name != "replaced":
            raise OSError("disk full")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_sheet)
    with pytest.raises(OSError, match="disk full"):
        save_generation(tmp_path / "a.mp4", FRAMES[:, ::-1], 8.0, REFERENCE, record(seed=1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="127x127"):
        save_generation(tmp_path / "a.mp4", FRAMES[:, :127, :127], 8.0, REFERENCE, record(height=127, width=127))
    broken = REFERENCE[..., :1].repeat(5, axis=-1)
    with pytest.raises(TypeError):
        save_generation(tmp_path / "a.mp4", FRAMES, 8.0, broken, record())
    assert names(tmp_path) == set()


def test_earlier_generation_is_replaced(tmp_path: Path) -> None:
    save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record())
    paths = save_generation(tmp_path / "a.mp4", FRAMES, 8.0, REFERENCE, record(seed=1))
    assert GenerationRecord.model_validate_json(paths.record.read_text(encoding="utf-8")).seed == 1
    assert names(tmp_path) == {"a.mp4", "a.json", "a.jpg"}


def test_the_photo_itself_is_not_replaced(tmp_path: Path) -> None:
    """`generate face.jpg --out face.mp4` would put its contact sheet over the photo."""
    Image.fromarray(REFERENCE).save(tmp_path / "face.jpg")
    before = (tmp_path / "face.jpg").read_bytes()
    with pytest.raises(InvalidRequestError, match=r"face\.jpg"):
        save_generation(tmp_path / "face.mp4", FRAMES, 8.0, REFERENCE, record())
    assert (tmp_path / "face.jpg").read_bytes() == before
    assert names(tmp_path) == {"face.jpg"}


def test_bad_names(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"\.mp4"):
        GenerationPaths.beside(tmp_path / "a.avi")
    with pytest.raises(InvalidRequestError, match="nowhere"):
        GenerationPaths.beside(tmp_path / "nowhere" / "a.mp4")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(InvalidRequestError, match=r"b\.json"):
        GenerationPaths.beside(tmp_path / "b.mp4")


@pytest.mark.parametrize("changes", [{"colour": 1}, {"photo_sha256": "abc"}, {"num_inference_steps": 0}])
def test_record_refuses_what_it_does_not_know(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        record(**changes)
