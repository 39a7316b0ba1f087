"""What is kept of videos, found again and deleted; and how a person and a video are shown."""

import base64
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.credentials import SigningKey, known_certificates, read_credentials
from fantasyid.core.errors import InvalidRequestError
from fantasyid.generation.record import GenerationRecord
from fantasyid.generation.request import PersonRequest
from fantasyid.generation.studio import GeneratedVideo
from fantasyid.ui import markup
from fantasyid.ui.reading import face_picture
from fantasyid.ui.shelf import KeptVideo, Shelf
from tests.unit.generation.test_output import record


def keep(shelf: Shelf, photo: Path, seed: int) -> KeptVideo:
    """A video of two grey frames of somebody."""
    person = shelf.keep_inputs(PersonRequest(photos=(photo,)))
    stated = record(seed=seed, num_frames=2, width=32, height=32)
    request = stated.request.model_copy(update={"person": person})
    sha = tuple(sha256(path.read_bytes()).hexdigest() for path in person.photos)
    facts = {"request": request, "photo_sha256": sha, "face_index": 0, "face_box": (10.0, 10.0, 30.0, 30.0)}
    made: GenerationRecord = stated.model_copy(update=facts)
    return shelf.keep(GeneratedVideo(np.full((2, 32, 32, 3), 128, np.uint8), made, np.zeros((32, 32, 3), np.uint8)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "upload" / "photo.PNG"
    path.parent.mkdir()
    Image.fromarray(astronaut()[:64, :64]).save(path)
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "videos").mkdir()
    return Shelf(tmp_path / "videos")


def test_videos_are_found_again_with_what_made_them(shelf: Shelf, photo: Path) -> None:
    first, second = keep(shelf, photo, 1), keep(shelf, photo, 1)
    assert first.name != second.name
    photo.unlink()  # uploads go away
    (shelf.folder / "notes.json").write_text("{}")
    found = Shelf(shelf.folder).videos()
    assert {video.name for video in found} == {first.name, second.name}
    request = shelf.find(first.name).request()
    assert request.person is not None
    assert [path.parent for path in request.person.photos] == [shelf.folder]
    assert first.first_frame().shape == (32, 32, 3)
    assert np.array_equal(first.photo(), astronaut()[:64, :64])


def test_what_is_kept_is_signed_where_there_is_a_key(
    shelf: Shelf, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    key = SigningKey.local()
    signed, plain = keep(Shelf(shelf.folder, key), photo, 1), keep(shelf, photo, 2)
    states = [read_credentials(video.paths.video, known_certificates()).state for video in (signed, plain)]
    assert states == ["valid", "absent"]
    assert f"signed by the key {key.public_sha256[:16]}" in markup.facts(signed.record)
    assert "signed" not in markup.facts(plain.record)


def test_deleting_leaves_what_others_need(shelf: Shelf, photo: Path) -> None:
    first, second = keep(shelf, photo, 1), keep(shelf, photo, 2)
    shelf.delete(first.name)
    assert not any(path.exists() for path in first.paths.all)
    assert second.reference() is not None
    shelf.delete(second.name)
    assert not list(shelf.folder.iterdir())
    with pytest.raises(InvalidRequestError, match="There is no file"):
        shelf.delete(second.name)


def test_what_is_too_old_goes_and_nothing_else(shelf: Shelf, photo: Path) -> None:
    def age(*paths: Path) -> None:
        for path in paths:
            os.utime(path, (path.stat().st_mtime - 3600,) * 2)

    mine = {shelf.folder / name for name in ("notes.json", "photo-of-me.png")}
    for path in mine:
        path.touch()
    cancelled = photo.with_name("cancelled.png")
    Image.fromarray(astronaut()[:32, :32]).save(cancelled)
    shelf.keep_inputs(PersonRequest(photos=(cancelled,)))
    old, young = keep(shelf, photo, 1), keep(shelf, photo, 2)
    age(*mine, *shelf.folder.glob("photo-*"), *old.paths.all)
    before = set(shelf.folder.iterdir())
    shelf.expire(2)
    assert set(shelf.folder.iterdir()) == before
    shelf.expire(1)
    (kept,) = young.record.request.person.photos  # type: ignore[union-attr]
    assert set(shelf.folder.iterdir()) == {*mine, *young.paths.all, kept}

    age(kept, *young.paths.all)
    shelf.keep_inputs(PersonRequest(photos=(photo,)))  # for a video that is being made
    shelf.expire(1)
    assert set(shelf.folder.iterdir()) == {*mine, kept}
    age(kept)
    shelf.expire(1)
    assert set(shelf.folder.iterdir()) == mine


def test_files_outside_the_folder_are_never_deleted(shelf: Shelf, photo: Path) -> None:
    kept = keep(shelf, photo, 1)
    text = kept.paths.record.read_text().replace(str(shelf.folder / "photo-"), str(photo.parent / "photo-"))
    kept.paths.record.write_text(text)
    elsewhere = photo.parent / kept.record.request.person.photos[0].name  # type: ignore[union-attr]
    elsewhere.write_bytes(b"somebody else's")
    shelf.delete(kept.name)
    assert elsewhere.exists()


def test_a_video_without_its_photo_is_shown_without(shelf: Shelf, photo: Path) -> None:
    kept = keep(shelf, photo, 1)
    next(shelf.folder.glob("photo-*")).unlink()
    assert kept.reference() is None
    assert kept.first_frame().shape == (32, 32, 3)


def test_the_reference_is_the_face_and_its_surroundings() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[20:40, 60:80] = 255
    picture = face_picture(photo, (60, 20, 80, 40), 40)
    assert picture[20, 20].min() == 255
    assert picture[12:28, 12:28].min() == 255
    assert picture[:8].max() == 0
    beyond = face_picture(photo, (-10.0, -10.0, 10.0, 10.0), 40)
    assert beyond.shape == (40, 40, 3)


def test_what_comes_from_outside_cannot_become_markup(shelf: Shelf, photo: Path) -> None:
    evil = "<script>alert(1)</script>"
    kept = keep(shelf, photo, 1)
    request = kept.record.request.model_copy(update={"prompt": evil})
    shown = markup.facts(kept.record.model_copy(update={"request": request}))
    for text in (shown, markup.notice(evil), markup.notices([evil]), markup.progress_bar(evil, 1, 2, 3.0)):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_bars_are_high_where_the_face_is_alike() -> None:
    text = markup.likeness((0.45, 0.75, None), 0.6)
    assert 'class="fid-same" style="height:75%" title="Frame 1: distance 0.45"' in text
    assert 'class="fid-other" style="height:25%"' in text
    assert 'class="fid-none" style="height:0%" title="Frame 3: no face found"' in text
    assert "takes 1 of 3 frames for the person" in text
    assert "--line:50%" in text


def test_frames_so_far_travel_inside_the_page() -> None:
    strip = markup.film_strip(np.full((4, 300, 400, 3), 90, np.uint8))
    assert strip.count("<img alt=") == 4
    data = strip.split("base64,")[1].split('"')[0]
    assert base64.b64decode(data).startswith(b"\xff\xd8")
