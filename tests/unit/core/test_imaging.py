import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.data import astronaut

from fantasyid.core.errors import UnreadablePhotoError
from fantasyid.core.imaging import as_photo, read_photo, to_tensor

HEIC = Path(__file__).parents[2] / "golden" / "turned.heic"
"""`SMALL`, stored lying on its side with a box that says so."""
SMALL = np.asarray(Image.fromarray(astronaut()).resize((80, 64)))


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_lossless_rgb_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(SMALL).save(tmp_path / f"photo.{suffix}")
    assert np.array_equal(read_photo(tmp_path / f"photo.{suffix}"), SMALL)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = Image.fromarray(SMALL).convert("L")
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_photo(tmp_path / "grey.png"), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.fromarray(SMALL).convert("CMYK").save(tmp_path / "print.jpg", quality=98, subsampling=0)
    photo = read_photo(tmp_path / "print.jpg")
    assert photo.shape == SMALL.shape
    assert np.abs(photo.astype(int) - SMALL.astype(int)).mean() < 3


# What each EXIF orientation says was done to the upright picture before it was stored.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Pillow turns TIFFs itself while it loads them."""
    upright, exif, path = Image.fromarray(SMALL), Image.Exif(), tmp_path / f"turned.{suffix}"
    exif[0x0112] = orientation
    stored = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    stored.save(path, exif=exif, lossless=True)
    assert np.array_equal(read_photo(path), SMALL)
    with Image.open(path) as image:
        assert np.array_equal(as_photo(image), SMALL)
    with Image.open(path) as image:
        image.load()
        assert np.array_equal(as_photo(image), SMALL)


def test_heic_of_a_telephone_is_read_upright() -> None:
    photo = read_photo(HEIC)
    assert photo.shape == SMALL.shape
    assert np.abs(photo.astype(int) - SMALL).mean() < 8
    assert np.array_equal(as_photo(HEIC.read_bytes()), photo)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    grey = np.asarray(Image.fromarray(SMALL).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"deep.{suffix}")
    assert np.array_equal(read_photo(tmp_path / f"deep.{suffix}"), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_rgb_is_scaled(tmp_path: Path, suffix: str) -> None:
    deep = SMALL.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"deep.{suffix}"), deep[:, :, ::-1])
    assert_close(read_photo(tmp_path / f"deep.{suffix}"), SMALL, tolerance=1)


def test_32_bit_and_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(tmp_path / "integers.tiff")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(UnreadablePhotoError, match="32-bit"):
        read_photo(tmp_path / "integers.tiff")
    with pytest.raises(UnreadablePhotoError, match="floating-point"):
        read_photo(tmp_path / "floats.tiff")


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    layer = np.dstack([SMALL, np.full(SMALL.shape[:2], 255, np.uint8)])
    layer[:32, :, 3] = 0
    layer[32:48, :, 3] = 128
    Image.fromarray(layer).save(tmp_path / "cut-out.png")
    photo = read_photo(tmp_path / "cut-out.png")
    assert (photo[:32] == 255).all()
    assert_close(photo[32:48], np.round(SMALL[32:48] * (128 / 255) + 127), tolerance=1)
    assert np.array_equal(photo[48:], SMALL[48:])


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(SMALL).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_photo(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    colour = palette.getpixel((0, 0))
    palette.save(tmp_path / "palette.gif", transparency=colour)
    assert (read_photo(tmp_path / "palette.gif")[0, 0] == 255).all()


def test_modes_one_and_lab_are_read(tmp_path: Path) -> None:
    bits = Image.fromarray(SMALL).convert("1")
    bits.save(tmp_path / "bits.png")
    assert set(np.unique(read_photo(tmp_path / "bits.png"))) == {0, 255}
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.fromarray(SMALL), to_lab).save(tmp_path / "lab.tiff")
    assert read_photo(tmp_path / "lab.tiff").shape == SMALL.shape


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_truncated_files_are_refused_wherever_they_are_cut(tmp_path: Path, suffix: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(SMALL).save(whole, {"jpg": "jpeg"}.get(suffix, suffix))
    data = whole.getvalue()
    path = tmp_path / f"cut.{suffix}"
    for part in (0.02, 0.3, 0.6, 0.9, *(() if suffix == "jpg" else (0.98,))):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(UnreadablePhotoError, match=r"cut\."):
            read_photo(path)


def test_what_is_not_a_photo_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("Dear all, this is not a picture.")
    (tmp_path / "empty.jpg").touch()
    cases = {"letter.jpg": "known format", "empty.jpg": "empty file", "missing.jpg": "no file", ".": "folder"}
    for name, words in cases.items():
        with pytest.raises(UnreadablePhotoError, match=words) as caught:
            read_photo(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("num_missing", [1, 2, 40])
def test_jpeg_that_lacks_its_last_bytes_is_read(
    num_missing: int, options: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    whole = io.BytesIO()
    Image.fromarray(astronaut()).save(whole, "jpeg", **options)
    cut = whole.getvalue()[:-num_missing]
    expected = np.asarray(Image.open(whole)).astype(int)
    assert np.abs(as_photo(cut) - expected).mean() < 0.1
    assert "lacks its last bytes" in caplog.text


@pytest.mark.parametrize(("options", "part"), [({}, 0.9), ({"subsampling": 0}, 0.9), ({"progressive": True}, 0.4)])
def test_half_a_jpeg_is_not(options: dict[str, bool], part: float) -> None:
    whole = io.BytesIO()
    Image.fromarray(astronaut()).save(whole, "jpeg", **options)
    with pytest.raises(UnreadablePhotoError, match="cut short"):
        as_photo(whole.getvalue()[: int(len(whole.getvalue()) * part)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"),
        ("spider.jpg", np.array([1, 8, 8, 0, 1, 0, *[0] * 6, 8, 1, *[0] * 7, 32, 32, 32], ">f4").tobytes() * 9),
        ("pcx.jpg", b"\x0a\x05\x01\x08" + bytes(200)),
        ("lines.jpg", b"P6\n"),
    ],
)
def test_only_the_formats_we_mean_are_opened(tmp_path: Path, name: str, content: bytes) -> None:
    """Pillow knows forty, and gives one of them to Ghostscript."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadablePhotoError, match=name):
        read_photo(tmp_path / name)


def black_png(width: int, height: int) -> bytes:
    """One bit per pixel: 100 megapixels are 12 kB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (100_000, 1, "100000x1 pixels and no side may have more than 30000"),
        (1, 300_000, "1x300000 pixels and no side may have more than 30000"),
        (13_400, 13_400, "more than 178 megapixels"),
        (20_000, 20_000, "more than 178 megapixels"),
    ],
)
def test_decompression_bombs_are_refused_unread(width: int, height: int, words: str) -> None:
    with pytest.raises(UnreadablePhotoError, match=words):
        as_photo(black_png(width, height))


def test_size_of_a_jpeg_is_bounded_before_it_is_decoded() -> None:
    whole = io.BytesIO()
    Image.fromarray(SMALL).save(whole, "jpeg", progressive=True)
    data = whole.getvalue()
    place = data.index(b"\xff\xc2") + 5
    claims = data[:place] + struct.pack(">HH", 30_000, 30_000) + data[place + 4 :]
    with pytest.raises(UnreadablePhotoError, match="30000x30000 pixels and a JPEG in several scans may have 89 mega"):
        as_photo(claims)


def test_photos_above_89_megapixels_are_shrunk(tmp_path: Path) -> None:
    assert as_photo(black_png(10_001, 9_000)).shape == (4500, 5001, 3)
    whole = io.BytesIO()
    Image.new("L", (10_000, 9_000), 90).save(whole, "jpeg")
    photo = as_photo(whole.getvalue())
    assert photo.shape == (4500, 5000, 3)
    assert (photo == 90).all()


def test_strips_join_without_a_seam() -> None:
    large = np.asarray(Image.fromarray(astronaut()).resize((3000, 3000)))
    assert np.array_equal(as_photo(Image.fromarray(large)), large)


@pytest.mark.parametrize("place", [41, 43, 65, 67])
def test_odd_exif_tags_leave_a_good_photo_readable(tmp_path: Path, place: int) -> None:
    exif, whole = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010E], exif[0x011A], exif[0x8769] = 6, "words", 72.0, {0x829A: 0.01}
    Image.fromarray(SMALL).transpose(Image.Transpose.ROTATE_90).save(whole, "jpeg", exif=exif)
    for value in range(16):
        data = bytearray(whole.getvalue())
        data[place] = value
        (tmp_path / "odd.jpg").write_bytes(data)
        assert sorted(read_photo(tmp_path / "odd.jpg").shape) == [3, 64, 80]


def test_photos_in_memory(tmp_path: Path) -> None:
    assert as_photo(SMALL) is SMALL
    assert np.array_equal(as_photo(torch.from_numpy(SMALL.copy()).permute(2, 0, 1)), SMALL)
    Image.fromarray(SMALL).save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    with (tmp_path / "photo.png").open("rb") as file:
        for photo in (content, bytearray(content), io.BytesIO(content), file, Path(tmp_path) / "photo.png"):
            assert np.array_equal(as_photo(photo), SMALL)
    assert np.array_equal(as_photo(Image.fromarray(SMALL)), SMALL)
    for wrong in (
        SMALL[:, :, 0],
        SMALL.astype(np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(UnreadablePhotoError, match=r"\(H, W, 3\)"):
            as_photo(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([SMALL], "A list is not a photo; pass one path, bytes"),
        (None, "A NoneType is not a photo"),
        (torch.zeros(3, 4, 4), r"torch.float32 and shape \(3, 4, 4\) is not a photo"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"shape \(3, H, W\)"),
        (io.StringIO("words"), "open it with mode 'rb'"),
        (b"", "empty"),
        ("https://example.org/photo.jpg", "download the photo"),
    ],
)
def test_what_is_no_photo_is_said_in_a_sentence(wrong: object, words: str) -> None:
    with pytest.raises(UnreadablePhotoError, match=words):
        as_photo(wrong)  # type: ignore[arg-type]


def test_truncated_pil_image_is_refused() -> None:
    whole = io.BytesIO()
    Image.fromarray(SMALL).save(whole, "jpeg")
    image = Image.open(io.BytesIO(whole.getvalue()[:-400]))
    with pytest.raises(UnreadablePhotoError, match="cut short"):
        as_photo(image)


def test_tensor_is_rgb_planes_in_minus_one_to_one() -> None:
    tensor = to_tensor(SMALL)
    assert tensor.shape == (1, 3, 64, 80)
    assert tensor.dtype == torch.float32
    assert torch.equal(((tensor[0] + 1) * 127.5).round().byte(), torch.from_numpy(SMALL.transpose(2, 0, 1).copy()))
    assert to_tensor(np.full((2, 2, 3), 255, np.uint8)).max() == 1
    assert to_tensor(np.zeros((2, 2, 3), np.uint8)).min() == -1
