"""What the built-in model's videos are, stated once for renderer, encoders, training, pipeline and evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipFormat:
    """Size and length of the clips a model is trained on.

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
"""Of the built-in model."""
