"""Whatever happens to a photo's or a video's bytes, reading it gives pixels or one of our own errors."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.errors import FantasyIDError
from fantasyid.core.imaging import read_photo
from fantasyid.core.video import open_video

PHOTO = Image.fromarray(astronaut()).resize((80, 64))
NUM_DAMAGED = 40
NUMBERS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\xff\xff", b"\xff\xff\0\0", b"\x80\0\0\0")


def photo_file(kind: str) -> bytes:
    if kind == "heic":
        return (Path(__file__).parents[2] / "golden" / "turned.heic").read_bytes()
    exif, whole = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010E] = 6, "words"
    name, _, option = kind.partition(" ")
    picture = PHOTO.convert({"palette": "P", "CMYK": "CMYK", "alpha": "RGBA"}.get(option, "RGB"))
    options = {"progressive": {"progressive": True}, "deflate": {"compression": "tiff_adobe_deflate"}}.get(option, {})
    picture.save(whole, name, exif=exif, **options)
    return whole.getvalue()


def video_file(kind: str, path: Path) -> bytes:
    container, codec, pixels = kind.split()
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = pixels
        for step in range(6):
            frame = VideoFrame.from_ndarray(np.asarray(PHOTO.crop((step, 0, step + 64, 64))), format="rgb24")
            output.mux(stream.encode(frame.reformat(format=pixels)))
        output.mux(stream.encode(None))
    return path.read_bytes()


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four places changed, more of them near the start than elsewhere."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(min(len(data), 600) if chance.random() < 0.6 else len(data))
        match chance.randrange(5):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[place : place + chance.choice((1, 4, 100))]
            case 2:
                data[place:place] = chance.randbytes(chance.choice((1, 4, 50)))
            case 3:
                data[place : place + 4] = chance.choice(NUMBERS)
            case _:
                del data[max(place, 8) :]
    return bytes(data)


def check(content: bytes, path: Path, read: Callable[[Path], object]) -> None:
    chance = random.Random(0)
    path.write_bytes(content)
    read(path)
    refusals = []
    for _ in range(NUM_DAMAGED):
        path.write_bytes(damaged(content, chance))
        try:
            read(path)
        except FantasyIDError as error:
            refusals.append(str(error))
    assert refusals
    assert all(str(path) in words and "\n" not in words for words in refusals)


PHOTO_KINDS = (
    *("jpeg", "jpeg progressive", "jpeg CMYK", "png", "png palette", "png alpha", "tiff", "tiff deflate"),
    *("webp", "gif", "bmp", "ppm", "avif", "heic"),
)


@pytest.mark.parametrize("kind", PHOTO_KINDS)
def test_damaged_photos(tmp_path: Path, kind: str) -> None:
    check(photo_file(kind), tmp_path / "photo", read_photo)


@pytest.mark.parametrize(
    "kind",
    ["mp4 libx264 yuv420p", "matroska libx264 yuv420p", "webm libvpx yuv420p", "avi mjpeg yuvj420p", "gif gif rgb8"],
)
def test_damaged_videos(tmp_path: Path, kind: str) -> None:
    def read(path: Path) -> int:
        return sum(frame.size for frame in open_video(path).frames())

    check(video_file(kind, tmp_path / "whole"), tmp_path / "video", read)
