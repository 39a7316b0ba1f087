"""Drawing text in any of the scripts that people write prompts in, with the fonts in the package.

Each character is drawn with the first font that has it: DejaVu Sans for Latin with all accents, Greek, Cyrillic, Hebrew
and Arabic, WenQuanYi Micro Hei for Chinese, Japanese and Korean. What neither has, such as emoji and Thai, is a box.
"""

import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

_FOLDER = Path(__file__).parent / "fonts"
_FILES = ("DejaVuSans.ttf", "wqy-microhei.ttc")
_NOT_A_CHARACTER = "\uffff"


def wrap_text(text: str, size: int, width: int) -> list[str]:
    """Break text into lines, between words where there are some.

    Args:
        text: Any; white space counts as one space.
        size: Of the font, in pixels.
        width: Of the lines, in pixels.
    """
    lines: list[str] = []
    for word in unicodedata.normalize("NFC", text).split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for character in word:  # scripts without spaces make one long word of a sentence
            if lines[-1] and text_width(lines[-1] + character, size) > width:
                lines.append("")
            lines[-1] += character
    return lines


def draw_text(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, ink: tuple[int, int, int]
) -> None:
    """Draw one line of text.

    Args:
        draw: Of an RGB picture.
        corner: x and y of the upper left corner, in pixels.
        text: Any characters.
        size: Of the font, in pixels.
        ink: RGB.
    """
    left, top = corner
    baseline = top + _fonts(size)[0].getmetrics()[0]
    x = float(left)
    for font, run in _runs(text, size):
        draw.text((x, baseline), run, fill=ink, font=font, anchor="ls")
        x += font.getlength(run)


def text_width(text: str, size: int) -> float:
    """How wide `draw_text` draws a line, in pixels."""
    return sum(font.getlength(run) for font, run in _runs(text, size))


def _runs(text: str, size: int) -> list[tuple[FreeTypeFont, str]]:
    """The text in parts that one font draws."""
    parts = groupby(text, lambda character: _font_index(character))
    return [(_fonts(size)[index], "".join(characters)) for index, characters in parts]


@cache
def _font_index(character: str) -> int:
    for index, font in enumerate(_fonts(16)):
        # FreeType draws one and the same box for all that a font lacks.
        if bytes(font.getmask(character)) != bytes(font.getmask(_NOT_A_CHARACTER)):
            return index
    return 0


@cache
def _fonts(size: int) -> tuple[FreeTypeFont, ...]:
    return tuple(ImageFont.truetype(_FOLDER / name, size) for name in _FILES)
