"""Frames of a video file by their numbers, and what of their picture belongs to a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fantasyid.core.errors import UnreadableVideoError
from fantasyid.core.video import Video, open_video


@dataclass(frozen=True)
class SourceVideo:
    """A video file, or a part of its picture.

    Attributes:
        video: The file.
        crop: The part, xyxy pixels; empty is all.
    """

    video: Video
    crop: tuple[int, ...] = ()

    @classmethod
    def open(cls, path: Path, crop: tuple[int, ...] | None) -> "SourceVideo":
        """Look at the file.

        Raises:
            UnreadableVideoError: It cannot be read, or the part is not within its picture.
        """
        video = open_video(path)
        if crop:
            left, top, right, bottom = crop
            height, width = video.size
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise UnreadableVideoError(
                    f"{path} has {width}x{height} pixels, and its list says that {left},{top} to {right},{bottom} "
                    "belong to it; mend the list."
                )
        return cls(video, crop or ())

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.video.fps

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part."""
        if not self.crop:
            return self.video.size
        left, top, right, bottom = self.crop
        return bottom - top, right - left

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All frames, RGB (H,W,3); see `Video.frames`."""
        for frame in self.video.frames():
            if self.crop:
                left, top, right, bottom = self.crop
                frame = np.ascontiguousarray(frame[top:bottom, left:right])
            yield frame

    def chosen(self, numbers: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Some frames.

        Args:
            numbers: Counted from 0, rising; decoding ends after the last.

        Raises:
            UnreadableVideoError: As for `frames`, or the video has not so many.
        """
        wanted = iter(numbers)
        following = next(wanted, None)
        if following is None:
            return
        for number, frame in enumerate(self.frames()):
            if number != following:
                continue
            yield frame
            following = next(wanted, None)
            if following is None:
                return
        raise UnreadableVideoError(f"{self.video.path} has no frame {following}; copy it again.")
