"""Where a generation goes: three files, checked before any time is spent on making them and before slow imports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fantasyid.core.output_files import check_outputs, check_room
from fantasyid.core.video import check_video_name

_OTHER_FILES_BYTES = 4_000_000
"""More than a record and a contact sheet take."""


@dataclass(frozen=True)
class GenerationPaths:
    """The three files of one generation."""

    video: Path
    record: Path
    sheet: Path

    @classmethod
    def beside(cls, out_path: Path) -> "GenerationPaths":
        """The files that belong to `out_path`.

        Args:
            out_path: The video's path, ending in one of `core.video.VIDEO_SUFFIXES`.

        Raises:
            InvalidRequestError: It ends otherwise.
        """
        check_video_name(out_path)
        return cls(out_path, out_path.with_suffix(".json"), out_path.with_suffix(".jpg"))

    @property
    def all(self) -> tuple[Path, Path, Path]:
        """Video, record, sheet."""
        return self.video, self.record, self.sheet

    def check(self, *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
        """Refuse, before any work, what could not be written; see `core.output_files.check_outputs`."""
        check_outputs(self.all, overwrite=overwrite, inputs=inputs)

    def check_room(self, num_frames: int, height: int, width: int) -> None:
        """Refuse a disk without room for a video.

        Args:
            num_frames: Of the video.
            height: Of a frame, in pixels.
            width: Of a frame, in pixels.

        Raises:
            InvalidRequestError: There is less room than its pixels take when nothing is compressed.
        """
        check_room(self.video.parent, num_frames * height * width * 3 + _OTHER_FILES_BYTES, f"The video {self.video}")
