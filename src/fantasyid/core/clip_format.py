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


MINI_CLIPS = ClipFormat(size=128, frames=17, fps=8, text_length=48)
"""Of the built-in model that ships. The next one's is 192 pixels, 25 frames and 144 tokens, see docs/experiments.md."""
