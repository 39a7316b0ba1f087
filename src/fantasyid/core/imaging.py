"""Reading photos: whatever the file holds becomes RGB uint8, upright, or a clear error; never half a picture."""

import hashlib
import io
import logging
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from fantasyid.core.errors import UnreadablePhotoError
from fantasyid.core.input_files import no_such_file

logger = logging.getLogger(__name__)

Photo = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[np.uint8] | Tensor

MAX_MEGAPIXELS = 89
"""Larger photos are shrunk by a whole factor while they are read: JPEGs by their decoder, others in strips."""
MAX_SIDE = 30_000
"""A picture of one row is a few hundred bytes at any width, and no photo of a person is as wide as this."""

# What is opened, and up to how many megapixels: so that no file, however small, takes more than a gigabyte.
# What a pixel costs while it is decoded depends on the format: 4 bytes in most, 16 in the last three.
_MAX_MEGAPIXELS = {"PNG": 178, "BMP": 178, "PPM": 178, "TIFF": 89, "GIF": 89, "WEBP": 50, "AVIF": 50, "HEIF": 50}
_PILLOW_FORMATS = ("PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "AVIF")
_NAMES = "JPEG, PNG, WebP, TIFF, HEIC, AVIF, GIF, BMP or PPM"
# JPEGs are shrunk before they take memory, unless they come in several scans, which are gathered whole: 2 bytes per
# sample (a pixel has one for each colour).
_MAX_JPEG_SAMPLES = 630_000_000
_MAX_JPEG_SAMPLES_IN_SCANS = 267_000_000
_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
# What the decoder draws where the file has ended, and how much of a picture it may be.
_MISSING_GREY, _MAX_MISSING_SHARE = 128, 0.02

# What Pillow's readers raise on damaged files, found by cutting and altering files of every format.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
)

# For each EXIF orientation, the view of an upright picture in which it lies as the file stores it. Not
# ImageOps.exif_transpose: it writes the EXIF block anew, and fails on photos that have nothing worse than an odd tag.
_AS_STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
_LYING = (5, 6, 7, 8)
_STRIP_PIXELS = 4_000_000


def read_photo(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a photo file: JPEG, PNG, WebP, TIFF, HEIC, AVIF, GIF, BMP or PPM, whatever it is called.

    Its orientation is applied; grey, CMYK, palette and 16-bit pictures are converted (16 bits by scaling), and
    transparent ones are laid on white. Of an animation the first frame is taken. Colour profiles are ignored. Photos of
    more than 89 megapixels are shrunk by a whole factor; a JPEG that lacks its last bytes is taken, with a warning, if
    no more than 2 % of the picture is missing, or the last bit of its detail.

    Args:
        path: The file.

    Returns:
        RGB (H,W,3).

    Raises:
        UnreadablePhotoError: The file is missing, empty, damaged, too large, or not a picture.
    """
    with _opened(Path(path)) as file:
        return _read(file, str(path))


def read_photo_and_sha256(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Read a photo file as `read_photo` does, and hash the very bytes that it was read from.

    Args:
        path: The file.

    Returns:
        RGB (H,W,3), and the SHA-256 of the file's bytes in hexadecimal.

    Raises:
        UnreadablePhotoError: See `read_photo`.
    """
    with _opened(path) as file:
        content = file.read()
    return _read(io.BytesIO(content), str(path)), hashlib.sha256(content).hexdigest()


def as_photo(photo: Photo) -> NDArray[np.uint8]:
    """Take a photo in any form a caller may hold it in.

    Args:
        photo: A path, the bytes of a file, a file open for reading bytes, a PIL image of any mode (EXIF orientation
            applied), RGB uint8 (H,W,3), or a uint8 tensor (3,H,W).

    Returns:
        RGB (H,W,3).

    Raises:
        UnreadablePhotoError: It is not a picture, or cannot be read.
    """
    if isinstance(photo, str | os.PathLike):
        return read_photo(photo)
    if isinstance(photo, Image.Image):
        with _our_errors("The PIL image"):
            _check_size(photo, "The PIL image", _MAX_MEGAPIXELS["PNG"])
            return _to_rgb(photo, "The PIL image")
    if isinstance(photo, bytes | bytearray | memoryview):
        return _read(io.BytesIO(photo), "The photo given as bytes")
    if callable(getattr(photo, "read", None)):
        return _read_open_file(photo)
    if isinstance(photo, Tensor):
        if photo.dtype != torch.uint8 or photo.ndim != 3 or photo.shape[0] != 3 or 0 in photo.shape:
            raise UnreadablePhotoError(
                f"A tensor of {photo.dtype} and shape {tuple(photo.shape)} is not a photo; pass RGB torch.uint8 of "
                "shape (3, H, W)."
            )
        return np.ascontiguousarray(photo.detach().permute(1, 2, 0).cpu().numpy())
    if not isinstance(photo, np.ndarray):
        raise UnreadablePhotoError(
            f"A {type(photo).__name__} is not a photo; pass one path, bytes, open file, PIL image, RGB uint8 array of "
            "shape (H, W, 3) or uint8 tensor of shape (3, H, W)."
        )
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise UnreadablePhotoError(
            f"An array of type {photo.dtype} and shape {photo.shape} is not a photo; pass RGB uint8 of shape (H, W, 3)."
        )
    return photo


def photo_size(content: bytes) -> tuple[int, int]:
    """Width and height of a photo as its file stores it, in pixels, without decoding it.

    Args:
        content: The file's bytes.

    Raises:
        UnreadablePhotoError: It is no picture.
    """
    name = "The photo given as bytes"
    with _our_errors(name):
        if not content:
            raise UnreadablePhotoError(f"{name} is an empty file; copy or download the photo again.")
        if content.startswith(_JPEG):
            return JpegImagePlugin.JpegImageFile(io.BytesIO(content)).size
        with _open(io.BytesIO(content), content[:32]) as image:
            return image.size


def to_tensor(photo: NDArray[np.uint8]) -> Tensor:
    """Make a photo a network input.

    Args:
        photo: RGB (H,W,3).

    Returns:
        (1,3,H,W) float32 in [-1, 1].
    """
    return torch.from_numpy(photo.transpose(2, 0, 1).astype(np.float32))[None].div_(127.5).sub_(1)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.is_dir():
        raise UnreadablePhotoError(f"{path} is a folder; name a photo file in it.")
    if not path.is_file():
        raise UnreadablePhotoError(no_such_file(path, "photo"))
    try:
        with path.open("rb") as file:
            yield file
    except PermissionError as error:
        raise UnreadablePhotoError(f"{path} may not be read by this user; change its permissions.") from error


def _read_open_file(file: Any) -> NDArray[np.uint8]:
    name = f"The open file {getattr(file, 'name', '')}".rstrip()
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise UnreadablePhotoError(f"{name} cannot be read ({error}); open it again with mode 'rb'.") from error
    if not isinstance(content, bytes):
        raise UnreadablePhotoError(f"{name} gives {type(content).__name__} and not bytes; open it with mode 'rb'.")
    return _read(io.BytesIO(content), name)


def _read(file: IO[bytes], name: str) -> NDArray[np.uint8]:
    with _our_errors(name):
        start = file.read(32)
        file.seek(0)
        if not start:
            raise UnreadablePhotoError(f"{name} is an empty file; copy or download the photo again.")
        if start.startswith(_JPEG):
            return _to_rgb(_load_jpeg(file, name), name)
        with _open(file, start) as image:
            _check_size(image, name, _MAX_MEGAPIXELS[image.format or "PNG"])
            return _to_rgb(image, name)


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    """The one place where what Pillow raises becomes ours; its warnings of what becomes an error here are left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise UnreadablePhotoError(
            f"{name} has more than {_MAX_MEGAPIXELS['PNG']} megapixels; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise UnreadablePhotoError(f"{name} is not a picture in a known format; use {_NAMES}.") from error
    except _DAMAGED as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePhotoError(f"{name} is damaged or cut short ({said}); copy or download it again.") from error


def _open(file: IO[bytes], start: bytes) -> Image.Image:
    """Open a picture that is no JPEG, unread."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start[16:]:
        # Not through Image.open, which would learn the format for the whole process.
        from pi_heif import HeifImageFile  # here, because it loads a decoder that few photos need

        picture: Image.Image = HeifImageFile(file)
        return picture
    return Image.open(file, formats=_PILLOW_FORMATS)


def _check_size(image: Image.Image, name: str, max_megapixels: int) -> None:
    if max(image.size) > MAX_SIDE:
        raise UnreadablePhotoError(
            f"{name} is {image.width}x{image.height} pixels and no side may have more than {MAX_SIDE}; cut it down."
        )
    if image.width * image.height > max_megapixels * 1_000_000:
        kind = f" in a {image.format} file" if image.format else ""
        raise UnreadablePhotoError(
            f"{name} is {image.width}x{image.height} pixels and has more than {max_megapixels} megapixels, the most "
            f"that is read{kind}; make it smaller."
        )


def _load_jpeg(file: IO[bytes], name: str) -> Image.Image:
    """Decode a JPEG, shrunk where it is too large; the first picture, where the file holds several."""
    # Not through Image.open, whose own limit is below what telephones make.
    image = JpegImagePlugin.JpegImageFile(file)
    first_scan = file.tell()
    in_scans = not _holds_all_colours(file, first_scan, image.layers) or bool(image.info.get("progressive"))
    limit = _MAX_JPEG_SAMPLES_IN_SCANS if in_scans else _MAX_JPEG_SAMPLES
    if image.width * image.height * image.layers > limit:
        kind = "JPEG in several scans" if in_scans else "JPEG"
        raise UnreadablePhotoError(
            f"{name} is {image.width}x{image.height} pixels and a {kind} may have {limit // image.layers // 1_000_000} "
            "megapixels; make it smaller."
        )
    _shrink_jpeg(image)
    _check_size(image, name, MAX_MEGAPIXELS)
    try:
        image.load()
    except OSError:
        file.seek(0)
        content = file.read()
        if in_scans and not _last_scans_are_there(content, first_scan, image.layers):
            raise
        return _load_cut_jpeg(content, name)
    return image


def _holds_all_colours(file: IO[bytes], scan: int, layers: int) -> bool:
    """Whether the scan whose header ends there is the whole picture and not a part of it."""
    header = b"\xff\xda" + struct.pack(">HB", 6 + 2 * layers, layers)
    file.seek(max(0, scan - 8 - 2 * layers))
    return file.read(len(header)) == header


def _shrink_jpeg(image: ImageFile.ImageFile) -> None:
    """Have it decoded at a half, a quarter or an eighth, the first that is small enough."""
    width, height = image.size
    for factor in (1, 2, 4, 8):
        if width * height <= MAX_MEGAPIXELS * 1_000_000 * factor**2 and max(width, height) <= MAX_SIDE * factor:
            image.draft(None, (max(1, width // factor), max(1, height // factor)))
            return


def _last_scans_are_there(content: bytes, first_scan: int, layers: int) -> bool:
    """Whether every coefficient of every colour has come to its last bit in some scan, be that itself cut."""
    finished: dict[int, set[int]] = {}
    for scan in content[content.rindex(b"\xff\xda", 0, first_scan) :].split(b"\xff\xda")[1:]:
        colours = scan[3 : 3 + 2 * scan[2] : 2]
        first, last, bits = scan[3 + 2 * scan[2] : 6 + 2 * scan[2]]
        for colour in colours:
            finished.setdefault(colour, set()).update(range(first, last + 1) if bits & 15 == 0 else ())
    return len(finished) == layers and all(coefficients >= set(range(64)) for coefficients in finished.values())


def _load_cut_jpeg(content: bytes, name: str) -> Image.Image:
    """Decode a JPEG whose end is missing, if it is no more than a strip at the bottom, or the finest detail."""
    # Where it meets the end, the decoder draws grey; of a JPEG in scans it draws what the earlier ones say.
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(content + _END_OF_JPEG))
    _shrink_jpeg(image)
    image.load()
    edge = image.crop((max(0, image.width - 8), 0, *image.size)).convert("RGB")
    is_there = (np.asarray(edge) != _MISSING_GREY).any(axis=(1, 2))[::-1]
    num_rows = int(np.argmax(is_there)) if is_there.any() else image.height
    last_rows = image.crop((0, image.height - num_rows, *image.size)).convert("RGB")
    missing = float((np.asarray(last_rows) == _MISSING_GREY).all(axis=2).sum() / (image.width * image.height))
    if missing > _MAX_MISSING_SHARE:
        raise OSError(f"{missing:.0%} of the picture is missing")
    logger.warning("%s lacks its last bytes and was read all the same; its lower edge may be grey.", name)
    return image


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Convert in strips, so that the picture is not held three times over."""
    if image.mode == "F":
        raise UnreadablePhotoError(f"{name} holds floating-point pixels; save it with 8 or 16 bits per channel.")
    # Before the orientation is asked for: Pillow sets TIFFs upright while it loads them, and removes the tag.
    image.load()
    factor = math.ceil(math.sqrt(image.width * image.height / (MAX_MEGAPIXELS * 1_000_000)))
    width, height = -(-image.width // factor), -(-image.height // factor)
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    lying = orientation in _LYING
    upright = np.empty((width, height, 3) if lying else (height, width, 3), np.uint8)
    stored = _AS_STORED[orientation](upright) if orientation in tuple(_AS_STORED) else upright
    rows = max(1, _STRIP_PIXELS // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        strip = _strip_to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))), name)
        stored[top // factor : (top + rows) // factor] = np.asarray(strip if factor == 1 else strip.reduce(factor))
    return upright


def _strip_to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnreadablePhotoError(f"{name} holds 32-bit pixels; save it with 8 or 16 bits per channel.")
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
