"""What clips for training the built-in model are, stated once for renderer, encoders, training and evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipFormat:
    """Size and length of clips.

    Attributes:
        size: Height and width in pixels.
        frames: Frames of a clip.
        fps: Frames per second.
        text_length: Tokens of a caption, padded; longer prompts are refused.
    """

    size: int
    frames: int
    fps: int
    text_length: int


MINI_CLIPS = ClipFormat(size=192, frames=25, fps=8, text_length=144)
"""What is trained on now. A model carries its own format in its config: the weights that ship are of an earlier one,
128 pixels, 17 frames and 48 tokens."""
