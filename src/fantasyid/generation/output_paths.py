"""Where a generation goes: video, record and contact sheet, checked before time is spent and before slow imports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fantasyid.core.choices import OutputFormat
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import check_outputs, check_room
from fantasyid.core.video import VIDEO_SUFFIXES, check_video_name

_OTHER_FILES_BYTES = 4_000_000
"""More than a record and a contact sheet take."""


@dataclass(frozen=True)
class GenerationPaths:
    """The three files of one generation."""

    video: Path
    record: Path
    sheet: Path

    @classmethod
    def beside(cls, out_path: Path, form: OutputFormat | None = None) -> "GenerationPaths":
        """The files that belong to `out_path`.

        Args:
            out_path: The video's path, ending in one of `core.video.VIDEO_SUFFIXES`; with `form` the end may be left
                out, and a folder of pictures has none.
            form: How the video is written; None is as the name says.

        Raises:
            InvalidRequestError: It ends otherwise.
        """
        if form is None:
            check_video_name(out_path)
        elif form == "png":
            if out_path.suffix.lower() in (*VIDEO_SUFFIXES, ".png"):
                raise InvalidRequestError(f"Pictures are written into a folder; give one as --out, not {out_path}.")
            return cls(out_path, Path(f"{out_path}.json"), Path(f"{out_path}.jpg"))
        elif out_path.suffix.lower() not in VIDEO_SUFFIXES:
            out_path = Path(f"{out_path}.{form}")
        elif out_path.suffix.lower() != f".{form}":
            raise InvalidRequestError(f"--format {form} does not fit the name {out_path.name!r}; give one of them.")
        return cls(out_path, out_path.with_suffix(".json"), out_path.with_suffix(".jpg"))

    @classmethod
    def several(cls, out_path: Path, form: OutputFormat | None, count: int) -> "tuple[GenerationPaths, ...]":
        """The files of one or more videos: NAME.mp4, or NAME-1.mp4, NAME-2.mp4 and so on.

        Args:
            out_path: As in `beside`.
            form: As in `beside`.
            count: How many videos.

        Raises:
            InvalidRequestError: See `beside`.
        """
        if count == 1:
            return (cls.beside(out_path, form),)
        cls.beside(out_path, form)
        suffix = out_path.suffix if out_path.suffix.lower() in VIDEO_SUFFIXES else ""
        stem = out_path.name.removesuffix(suffix)
        return tuple(cls.beside(out_path.with_name(f"{stem}-{k + 1}{suffix}"), form) for k in range(count))

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
