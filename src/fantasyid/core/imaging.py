"""Reading photos: whatever the file holds becomes RGB uint8, upright, or a clear error; never half a picture."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from fantasyid.core.errors import UnreadablePhotoError

Photo = str | Path | Image.Image | NDArray[np.uint8]

MAX_MEGAPIXELS = 89
"""Larger pictures are refused: a file of a few kB can claim any size. Pillow warns of larger ones too."""

# What Pillow raises on damaged files, found by cutting and altering files of twelve formats.
_DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError)

# How to set each EXIF orientation upright. Not ImageOps.exif_transpose: it writes the EXIF block anew, and fails on
# photos that have nothing worse than an odd tag in it.
_SET_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_photo(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo file of any kind Pillow reads.

    The EXIF orientation is applied; grey, CMYK, palette and 16-bit pictures are converted (16 bits by scaling), and
    transparent ones are laid on white. Of an animation the first frame is taken. Colour profiles are ignored.

    Args:
        path: The file.

    Returns:
        RGB (H,W,3).

    Raises:
        UnreadablePhotoError: The file is missing, empty, damaged, too large, or not a picture.
    """
    path = Path(path)
    if path.is_dir():
        raise UnreadablePhotoError(f"{path} is a folder; name a photo file in it.")
    if not path.is_file():
        raise UnreadablePhotoError(f"There is no file {path}; check the path of the photo.")
    try:
        if path.stat().st_size == 0:
            raise UnreadablePhotoError(f"{path} is an empty file; copy or download the photo again.")
        with warnings.catch_warnings():
            # Pillow warns where the error below follows, and about damage where an exception follows.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return _to_rgb(image, str(path))
    except Image.DecompressionBombError as error:
        raise UnreadablePhotoError(_too_large(str(path))) from error
    except UnidentifiedImageError as error:
        raise UnreadablePhotoError(
            f"{path} is not a picture in a known format; use a JPEG, PNG, WebP or TIFF file."
        ) from error
    except PermissionError as error:
        raise UnreadablePhotoError(f"{path} may not be read by this user; change its permissions.") from error
    except _DAMAGED as error:
        raise UnreadablePhotoError(f"{path} is damaged or cut short ({error}); copy or download it again.") from error


def as_photo(photo: Photo) -> NDArray[np.uint8]:
    """Take a photo in any form a caller may hold it in.

    Args:
        photo: A path, a PIL image of any mode (EXIF orientation applied), or RGB uint8 (H,W,3).

    Returns:
        RGB (H,W,3).

    Raises:
        UnreadablePhotoError: It is not a picture, or cannot be read.
    """
    if isinstance(photo, str | Path):
        return read_photo(photo)
    if isinstance(photo, Image.Image):
        try:
            return _to_rgb(photo, "The PIL image")
        except _DAMAGED as error:
            raise UnreadablePhotoError(f"The PIL image is damaged or cut short ({error}); load it again.") from error
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise UnreadablePhotoError(
            f"An array of type {photo.dtype} and shape {photo.shape} is not a photo; pass RGB uint8 of shape (H, W, 3)."
        )
    return photo


def to_tensor(photo: NDArray[np.uint8]) -> Tensor:
    """Make a photo a network input.

    Args:
        photo: RGB (H,W,3).

    Returns:
        (1,3,H,W) float32 in [-1, 1].
    """
    return torch.from_numpy(photo.transpose(2, 0, 1).astype(np.float32))[None].div_(127.5).sub_(1)


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
        raise UnreadablePhotoError(_too_large(name))
    turn = _SET_UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode.startswith("I"):
        return _from_16_bits(np.asarray(upright).astype(np.int64), name)
    if upright.mode == "F":
        raise UnreadablePhotoError(f"{name} holds floating-point pixels; save it with 8 or 16 bits per channel.")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(upright.convert("RGB"))


def _from_16_bits(grey: NDArray[np.int64], name: str) -> NDArray[np.uint8]:
    if grey.min() < 0 or grey.max() > 65535:
        raise UnreadablePhotoError(f"{name} holds 32-bit pixels; save it with 8 or 16 bits per channel.")
    scaled = np.round(grey / 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_MEGAPIXELS} megapixels; make it smaller."
