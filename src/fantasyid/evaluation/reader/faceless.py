"""A hundred pictures without people, the same on every machine, to count false faces on.

23 pictures that scikit-image and scikit-learn carry (a cat's face among them; left out are those that show people, also
as heads on coins), two random windows of each, enlarged, and 31 drawn ones: noise of eight sizes, clouds, pages of
text, plots, and scenes of ellipses.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fantasyid.core.optional import require

Picture = NDArray[np.uint8]

NUM_PICTURES = 100
_SKIMAGE = (
    *("brick", "cat", "cell", "checkerboard", "clock", "coffee", "colorwheel", "grass", "gravel", "horse"),
    *("hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket"),
    *("shepp_logan_phantom", "stereo_motorcycle", "text"),
)
_WINDOWS = 2
_SIDE = 480


def faceless_pictures(seed: int = 0) -> Iterator[tuple[str, Picture]]:
    """Make the pictures.

    Args:
        seed: Of the windows and the drawn pictures; 0 makes the hundred of the evaluation.

    Yields:
        Name and RGB (H,W,3) of each of the `NUM_PICTURES`.

    Raises:
        MissingBackendError: scikit-image or scikit-learn (extra `examples`) is not installed.
    """
    rng = np.random.default_rng(seed)
    for name, picture in _photos():
        yield name, picture
        for number in range(_WINDOWS):
            yield f"{name}, window {number + 1}", _window(picture, rng)
    for number in range(8):
        yield f"noise of {2**number} px", _noise(2**number, rng)
        yield f"clouds {number + 1}", _clouds(rng)
    for number in range(5):
        yield f"text {number + 1}", _page(rng)
        yield f"plot {number + 1}", _plot(rng)
        yield f"ellipses {number + 1}", _ellipses(rng)


def _photos() -> Iterator[tuple[str, Picture]]:
    purpose = "have pictures without people"
    data = require("skimage.data", "examples", purpose)
    for name in _SKIMAGE:
        loaded = getattr(data, name)()
        yield name, _to_rgb(loaded[0] if isinstance(loaded, tuple) else loaded)
    samples = require("sklearn.datasets", "examples", purpose).load_sample_images()
    for path, picture in zip(samples.filenames, samples.images, strict=True):
        yield Path(path).stem, picture


def _to_rgb(picture: NDArray[np.generic]) -> Picture:
    """Grey, boolean, float in [0, 1] or RGBA -> RGB uint8."""
    levels = picture if picture.dtype == np.uint8 else (picture.astype(np.float64) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.atleast_3d(levels)[..., :3] * np.ones(3, np.uint8))


def _window(picture: Picture, rng: np.random.Generator) -> Picture:
    """A square window of 30 to 60 % of the shorter side."""
    height, width = picture.shape[:2]
    side = round(min(height, width) * rng.uniform(0.3, 0.6))
    y, x = rng.integers(0, height - side), rng.integers(0, width - side)
    return np.asarray(cv2.resize(picture[y : y + side, x : x + side], (_SIDE, _SIDE)), np.uint8)


def _noise(grain: int, rng: np.random.Generator) -> Picture:
    cells = -(-_SIDE // grain)
    coarse = rng.integers(0, 256, (cells, cells, 3), np.uint8)
    enlarged = cv2.resize(coarse, (cells * grain, cells * grain), interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged[:_SIDE, :_SIDE], np.uint8)


def _clouds(rng: np.random.Generator) -> Picture:
    """Noise whose amplitude falls with frequency, as in photographs."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_SIDE), np.fft.fftfreq(_SIDE)))
    fall = np.maximum(frequency, 1 / _SIDE) ** -rng.uniform(0.9, 1.6)
    waves = np.fft.fft2(rng.normal(size=(3, _SIDE, _SIDE))) * fall
    channels = np.real(np.fft.ifft2(waves))
    mixed = np.tensordot(rng.uniform(0, 1, (3, 3)), channels, 1)
    scaled = 128 + 50 * (mixed - mixed.mean()) / mixed.std()
    return np.ascontiguousarray(scaled.clip(0, 255).transpose(1, 2, 0), np.uint8)


def _page(rng: np.random.Generator) -> Picture:
    size = int(rng.integers(14, 40))
    font = ImageFont.load_default(size)
    page = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(page)
    for y in range(10, _SIDE, round(1.3 * size)):
        letters = rng.choice(list("aaabcdeeefghiilmnooprsttuvwy     "), 80)
        draw.text((20, y), "".join(letters), fill="black", font=font)
    return np.array(page)


def _plot(rng: np.random.Generator) -> Picture:
    """Curves over a grid, with bars and dots."""
    plot = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(plot)
    for place in range(40, _SIDE, 60):
        draw.line([(place, 20), (place, _SIDE - 20)], fill="lightgrey")
        draw.line([(20, place), (_SIDE - 20, place)], fill="lightgrey")
    x = np.linspace(20, _SIDE - 20, 60)
    for colour in ("red", "green", "blue", "orange"):
        y = _SIDE / 2 + np.cumsum(rng.normal(0, 12, 60))
        draw.line([*zip(x.tolist(), y.tolist(), strict=True)], fill=colour, width=3)
        for left, top in zip(x[::4].tolist(), y[::4].tolist(), strict=True):
            draw.ellipse([left - 5, top - 5, left + 5, top + 5], fill=colour)
    for left in range(40, _SIDE - 40, 40):
        draw.rectangle([left, int(rng.integers(250, 450)), left + 24, _SIDE - 20], fill="steelblue", outline="black")
    return np.array(plot)


def _ellipses(rng: np.random.Generator) -> Picture:
    """Soft ellipses, large ones first: blobs with darker blobs on them, as a face has."""
    scene = np.full((_SIDE, _SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    for share in np.linspace(0.5, 0.03, 60):
        centre, axes = rng.integers(0, _SIDE, 2), (_SIDE * share * rng.uniform(0.3, 1, 2) / 2 + 1).astype(int)
        colour = rng.integers(0, 256, 3).tolist()
        cv2.ellipse(scene, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 2), np.uint8)
