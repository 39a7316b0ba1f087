"""Video files: what goes in comes out, in a form that plays everywhere, complete or not at all."""

import gc
import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from skimage.data import astronaut

from fantasyid.core import video
from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.core.provenance import DETECTION_THRESHOLD, add_mark, container_metadata, detect_mark
from fantasyid.core.video import open_video, read_video, write_video


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """17 frames of 128x128: the camera passes over a face."""
    picture = cv2.resize(astronaut()[:300, 70:370], (150, 150), interpolation=cv2.INTER_AREA)
    return np.stack([picture[10:138, step : step + 128] for step in range(17)])


def test_round_trip(tmp_path: Path, frames: np.ndarray) -> None:
    write_video(tmp_path / "a.mp4", frames, 8)
    back, fps = read_video(tmp_path / "a.mp4")
    assert back.shape == frames.shape
    assert back.dtype == np.uint8
    assert fps == 8
    assert psnr(back, frames) > 35


def test_colours_survive(tmp_path: Path) -> None:
    """A wrong matrix or range on either side shifts saturated colours by ten or more."""
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 90)], np.uint8)
    flat = np.broadcast_to(colours[:, None, None], (6, 64, 64, 3)).copy()
    write_video(tmp_path / "a.mp4", flat, 8)
    back, _ = read_video(tmp_path / "a.mp4")
    np.testing.assert_allclose(back.astype(int), flat, atol=3)


def test_file_plays_everywhere(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, frames, 8, {"title": "a title", "comment": "a comment"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 17)
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert container.metadata["title"] == "a title"
        assert container.metadata["comment"] == "a comment"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index must come first, or browsers wait for the whole file"


@pytest.mark.parametrize(
    ("shape", "fps", "says"),
    [
        ((2, 65, 64, 3), 8.0, "64x65"),
        ((2, 64, 63, 3), 8.0, "63x64"),
        ((0, 64, 64, 3), 8.0, "(0, 64, 64, 3)"),
        ((2, 64, 64), 8.0, "(2, 64, 64)"),
        ((2, 64, 64, 3), 0.0, "0"),
        ((2, 64, 64, 3), float("nan"), "nan"),
        ((2, 64, 64, 3), float("inf"), "inf"),
    ],
)
def test_unwritable_requests_name_the_fault(tmp_path: Path, shape: tuple[int, ...], fps: float, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        write_video(tmp_path / "a.mp4", np.zeros(shape, np.uint8), fps)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_float_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"uint8 frames .* not float32 .* \(frames \* 255\)\.round"):
        add_mark(np.zeros((2, 64, 64, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match=r"\(64, 64, 3\)"):
        add_mark(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InvalidRequestError, match="float32"):
        write_video(tmp_path / "a.mp4", np.zeros((2, 64, 64, 3), np.float32), 8)  # type: ignore[arg-type]


def test_missing_folder(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match="nowhere"):
        write_video(tmp_path / "nowhere" / "a.mp4", frames, 8)


def test_failure_midway_leaves_everything_as_it_was(tmp_path: Path, frames: np.ndarray) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(InvalidRequestError, match=r"a\.mp4 is a folder"):
        write_video(tmp_path / "a.mp4", frames, 8)
    with pytest.raises(AttributeError):
        write_video(tmp_path / "b.mp4", frames, 8, {"title": 1})  # type: ignore[dict-item]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_is_there_is_replaced_only_when_told_to(tmp_path: Path, frames: np.ndarray) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(InvalidRequestError, match=r"a\.mp4 is there already"):
        write_video(tmp_path / "a.mp4", frames, 8)
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"
    write_video(tmp_path / "a.mp4", frames, 8, overwrite=True)
    assert read_video(tmp_path / "a.mp4")[0].shape == frames.shape


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "vp9"), ("a.GIF", "gif"), ("a.mp4", "h264")])
def test_the_name_says_the_format(tmp_path: Path, frames: np.ndarray, name: str, codec: str) -> None:
    marked = add_mark(frames)
    write_video(tmp_path / name, marked, 8, container_metadata())
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name == codec
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert abs(float(container.duration or 0) / av.time_base - 17 / 8) < 0.1
    assert len(shown) == 17
    assert psnr(np.stack(shown), marked) > 33
    assert detect_mark(np.stack(shown)) > 2 * DETECTION_THRESHOLD
    assert b"AI-generated with FantasyID" in (tmp_path / name).read_bytes()


def test_other_formats_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    for name in ("a.avi", "a", "mp4", ".mp4"):
        with pytest.raises(InvalidRequestError, match=r"must end in \.mp4, \.webm or \.gif"):
            write_video(tmp_path / name, frames, 8)
    with pytest.raises(InvalidRequestError, match="at most 50 frames per second, not 60"):
        write_video(tmp_path / "a.gif", frames, 60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a:b.mp4", "x" * 251 + ".mp4", os.fsdecode(b"caf\xe9.mp4"), "ü 人.gif"])
def test_any_name_that_a_folder_takes(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """libav takes what stands before a colon for a protocol, and refuses it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("a:b")
    folder.mkdir()
    write_video(str(folder / name), frames[:2], 8)
    assert [path.name for path in folder.iterdir()] == [name]


def test_unreadable_files(tmp_path: Path, frames: np.ndarray) -> None:
    write_video(tmp_path / "whole.mp4", frames, 8)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_bytes(b"not a video\n" * 100)
    (tmp_path / "words.txt").write_bytes(b"not a video\n" * 100)
    (tmp_path / "short.mp4").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(tmp_path / "picture.png"), frames[0])
    cv2.imwrite(str(tmp_path / "picture.jpg"), frames[0])
    for name in ("none.mp4", "empty.mp4", "words.mp4", "words.txt", "short.mp4", "picture.png", "picture.jpg"):
        with pytest.raises(UnreadableVideoError, match=name):
            read_video(tmp_path / name)
    with pytest.raises(UnreadableVideoError):
        read_video(tmp_path)


def test_file_cut_between_two_frames(tmp_path: Path, frames: np.ndarray) -> None:
    """The decoder does not mind such a cut; half a video must still not pass for a whole one."""
    path = tmp_path / "a.mp4"
    write_video(path, frames, 8)
    with av.open(str(path)) as container:
        tenth = [packet for packet in container.demux(video=0) if packet.size][9]
        end = tenth.pos + tenth.size
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UnreadableVideoError, match="10 of 17 frames"):
        read_video(path)


# Each display matrix (a, b, c, d) and what it does to a stored frame.
DISPLAYED = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", DISPLAYED)
def test_video_of_a_telephone_is_read_upright(
    tmp_path: Path, frames: np.ndarray, matrix: tuple[int, int, int, int]
) -> None:
    path = tmp_path / "a.mp4"
    wide = frames[:3, :96]
    write_video(path, wide, 8)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    shown, _ = read_video(path)
    expected = np.stack([DISPLAYED[matrix](frame) for frame in wide])
    assert shown.shape == expected.shape
    assert open_video(path).size == expected.shape[1:3]
    assert psnr(shown, expected) > 35


def test_title_in_any_encoding(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "12:30 \udcff.mp4"
    write_video(tmp_path / "a.mp4", frames[:2], 8, {"title": "a title"})
    path.write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"a title", b"\xff\xfe\xe4 tle"))
    assert read_video(path)[0].shape == (2, 128, 128, 3)


@pytest.mark.parametrize("words", ["#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"])
def test_a_playlist_does_not_open_other_files(tmp_path: Path, frames: np.ndarray, words: str) -> None:
    write_video(tmp_path / "a.mp4", frames[:2], 8)
    (tmp_path / "list.mp4").write_text(words.format("a.mp4"))
    with pytest.raises(UnreadableVideoError, match=r"list\.mp4"):
        read_video(tmp_path / "list.mp4")


def test_frames_are_not_kept(tmp_path: Path, frames: np.ndarray) -> None:
    """Neither by us nor by a cycle inside PyAV: 36 kB can hold 60 frames of 28 MB."""
    write_video(tmp_path / "a.mp4", np.concatenate([frames] * 6), 8)
    film = open_video(tmp_path / "a.mp4")
    gc.collect()
    gc.disable()
    try:
        num_frames = sum(1 for _ in film.frames())
        alive = sum(isinstance(thing, VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert num_frames == 102
    assert alive < 20
    assert sum(1 for _ in film.frames()) == 102


def test_an_index_larger_than_its_file_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    """libav makes a table of 24 bytes per frame from twelve bytes that say how many there are."""
    path = tmp_path / "a.mp4"
    write_video(path, frames, 8)
    content = bytearray(path.read_bytes())
    sizes, chunks = content.index(b"stsz") + 8, content.index(b"stsc") + 8
    content[sizes : sizes + 8] = struct.pack(">II", 1, 400_000_000)
    content[chunks : chunks + 16] = struct.pack(">IIII", 1, 1, 400_000_000, 1)
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match="claims 400000000 frames in"):
        read_video(path)


def test_frames_and_films_that_are_too_large(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, np.zeros((1, 2320, 4112, 3), np.uint8), 8)
    with pytest.raises(UnreadableVideoError, match=r"4112x2320 pixels and at most 9\.4 megapixels"):
        read_video(path)
    write_video(path, np.concatenate([frames] * 4), 8, overwrite=True)
    monkeypatch.setattr(video, "MAX_MEGAPIXELS_AT_ONCE", 1)
    with pytest.raises(UnreadableVideoError, match=r"more than 61 frames of 128x128 .* one by one with open_video"):
        read_video(path)
    assert sum(1 for _ in open_video(path).frames()) == 68


def test_mark_is_invisible_and_survives_the_encoder(tmp_path: Path, frames: np.ndarray) -> None:
    marked = add_mark(frames)
    assert psnr(marked, frames) > 43
    assert np.abs(marked.astype(int) - frames).max() <= 8
    write_video(tmp_path / "marked.mp4", marked, 8)
    written, _ = read_video(tmp_path / "marked.mp4")
    assert detect_mark(written) > 2 * DETECTION_THRESHOLD
    larger = np.stack([cv2.resize(frame, (192, 160)) for frame in written])
    assert detect_mark(larger) > 2 * DETECTION_THRESHOLD


def test_unmarked_video_is_not_accused(tmp_path: Path, frames: np.ndarray) -> None:
    write_video(tmp_path / "plain.mp4", frames, 8)
    written, _ = read_video(tmp_path / "plain.mp4")
    assert abs(detect_mark(written)) < 4
    assert detect_mark(np.full((2, 64, 64, 3), 127, np.uint8)) == 0
    assert abs(detect_mark(np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8))) < 4


def test_mark_does_not_change_with_the_installation() -> None:
    """A mark that only this machine finds would be none: the pattern's sign at fixed places is pinned."""
    grey = np.full((1, 128, 128, 3), 128, np.uint8)
    signs = (add_mark(grey)[0, ::16, ::16, 0] > 128).astype(int).ravel()
    assert "".join(map(str, signs)) == "1001011100110010010001110011100000000101001111000111000011000101"


def test_mark_fits_other_sizes() -> None:
    grey = np.full((1, 480, 720, 3), 128, np.uint8)
    marked = add_mark(grey)
    assert psnr(marked, grey) > 43
    assert detect_mark(marked) > 2 * DETECTION_THRESHOLD


def test_container_says_it_in_words() -> None:
    assert container_metadata()["comment"].startswith("AI-generated with FantasyID ")
