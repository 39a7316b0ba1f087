"""Reading and writing video files: H.264 in MP4, the form every player and browser opens; VP9 in WebM, and GIF."""

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError
from fantasyid.core.output_files import write_together

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")
_ENCODERS: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    ".mp4": ("mp4", "libx264", {"movflags": "+faststart"}, {"crf": "16", "preset": "medium"}),
    ".webm": ("webm", "libvpx-vp9", {}, {"crf": "16", "b": "0"}),
}
"""Format, encoder and their options, by a name's end."""
_MOST_GIF_FPS = 50
# ITU-T H.273: 1 is BT.709 for primaries, transfer and matrix alike, and limited ("MPEG") for the range.
_BT709 = 1
_LIMITED_RANGE = 1

MAX_FRAME_PIXELS = 4096 * 2304
"""A decoder may hold 17 frames of 6 bytes per pixel, however small the file."""
MAX_MEGAPIXELS_AT_ONCE = 150
"""Of the frames that `read_video` gives in one array."""
# What libav opens. Playlists are not among them: they would have it read other files and addresses.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
_CODECS = (
    "h264,hevc,av1,libdav1d,vp8,vp9,libvpx,libvpx-vp9,mpeg4,msmpeg4v2,msmpeg4v3,h263,mpeg1video,mpeg2video,mjpeg,"
    "prores,dnxhd,ffv1,huffyuv,rawvideo,gif"
)
_LIMITS = {"codec_whitelist": _CODECS, "max_pixels": str(MAX_FRAME_PIXELS)}
_OPENING = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", **_LIMITS}
_MP4_FOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")
# The boxes that say how many frames, and how many cuts, there are; and where in them the number stands.
_MP4_COUNTS = {b"stsz": 8, b"trun": 4, b"elst": 4}


def write_video(
    path: str | Path,
    frames: npt.NDArray[np.uint8],
    fps: float,
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write frames in the format that the name asks for; on any failure nothing appears and nothing changes.

    `.mp4` is H.264 (yuv420p, BT.709, index at the front), which every player and browser opens; `.webm` is VP9, and
    `.gif` has 256 colours per frame.

    Args:
        path: Where to write, ending in one of `VIDEO_SUFFIXES`; its folder must exist.
        frames: RGB (T, H, W, 3), H and W even, T >= 1.
        fps: Frames per second, above 0; of a `.gif` at most 50, since players slow faster ones down.
        metadata: Container tags, such as `{"title": ...}`; a `.gif` keeps the comment alone.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        InvalidRequestError: The name, the shape, the size, the rate or the folder does not allow it.
        UnwritableOutputError: The disk is full, or failed.
    """
    path = Path(path)
    check_video_name(path)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InvalidRequestError(
            f"A video is written from uint8 frames of shape (T, H, W, 3), not {frames.dtype} of shape {frames.shape}."
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2 or not height or not width:
        raise InvalidRequestError(f"A video needs an even width and height, not {width}x{height}.")
    if not fps > 0 or not np.isfinite(fps):
        raise InvalidRequestError(f"The frame rate must be a number above 0, not {fps}.")
    if path.suffix.lower() == ".gif" and fps > _MOST_GIF_FPS:
        raise InvalidRequestError(f"A GIF shows at most {_MOST_GIF_FPS} frames per second, not {fps:g}; write an .mp4.")
    with write_together([path], overwrite=overwrite) as (made,):
        if path.suffix.lower() == ".gif":
            _write_gif(made, frames, fps, metadata or {})
        else:
            _encode(made, frames, Fraction(fps).limit_denominator(100_000), metadata or {})


def check_video_name(path: Path) -> None:
    """Refuse a name that names no format which `write_video` writes.

    Args:
        path: The video's path.

    Raises:
        InvalidRequestError: It ends otherwise.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InvalidRequestError(
            f"The video's name must end in {', '.join(VIDEO_SUFFIXES[:-1])} or {VIDEO_SUFFIXES[-1]}, not {path.name!r}."
        )


def _encode(path: Path, frames: npt.NDArray[np.uint8], rate: Fraction, metadata: Mapping[str, str]) -> None:
    form, codec, form_options, codec_options = _ENCODERS[path.suffix.lower()]
    # libav takes a name for an address where it holds a colon; after "file:" it is a name whatever it holds.
    with av.open(f"file:{path}", "w", format=form, options=form_options) as container:
        container.metadata.update(metadata)
        stream = cast(VideoStream, container.add_stream(codec, rate=rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = codec_options
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED_RANGE
        for image in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_gif(path: Path, frames: npt.NDArray[np.uint8], fps: float, metadata: Mapping[str, str]) -> None:
    """Endless, as GIFs are; times are whole hundredths of a second, rounded so that they don't drift."""
    first, *others = (Image.fromarray(frame).quantize(dither=Image.Dither.FLOYDSTEINBERG) for frame in frames)
    ends_ms = np.round(np.arange(len(frames) + 1) * 100 / fps).astype(int) * 10
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=np.diff(ends_ms).tolist(),
        loop=0,
        comment=metadata.get("comment", ""),
    )


@dataclass(frozen=True)
class Turn:
    """How a container says that its frames are to be shown.

    Attributes:
        transposed: Rows become columns, first of all.
        flipped_x: Left and right change places.
        flipped_y: Top and bottom change places.
    """

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> "Turn":
        """What a frame's display matrix says, to the nearest quarter."""
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # Data of a kind that this PyAV has no name for lies beside it; a mirror stays unseen then.
            angle = math.radians(frame.rotation)
            a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
        else:
            if not isinstance(matrix, SideData):
                return cls()
            # x' = a x + c y and y' = b x + d y, in rows of three.
            a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        if abs(a) + abs(d) < abs(b) + abs(c):
            return cls(transposed=True, flipped_x=c < 0, flipped_y=b < 0)
        return cls(flipped_x=a < 0, flipped_y=d < 0)

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Set a stored frame (H, W, 3) upright."""
        image = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(image[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1])


@dataclass(frozen=True)
class Video:
    """A video file whose frames are read one by one, as often as asked, so that a film of any length fits.

    Attributes:
        path: The file.
        fps: Frames per second, above 0.
        size: Height and width in pixels of the upright frames.
        turn: How the stored frames become upright.
    """

    path: Path
    fps: float
    size: tuple[int, int]
    turn: Turn

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Decode the frames, upright whatever the container says.

        Yields:
            RGB (H, W, 3), at least one, all of one size.

        Raises:
            UnreadableVideoError: The file is damaged, cut short, or changes its frame size.
        """
        with _our_errors(self.path), _opened(self.path) as (container, stream):
            num_packets = num_frames = 0
            for packet in container.demux(stream):
                num_packets += packet.size > 0
                for frame in packet.decode():
                    assert isinstance(frame, VideoFrame)
                    image = self.turn.apply(_to_rgb(frame))
                    if image.shape[:2] != self.size:
                        raise UnreadableVideoError(
                            f"{self.path} changes its frame size on the way; convert it to one size."
                        )
                    num_frames += 1
                    yield image
            if not num_frames or num_packets < stream.frames:
                raise UnreadableVideoError(
                    f"{self.path} is cut short: {num_packets} of {stream.frames} frames are in it; copy it again."
                )


def open_video(path: Path) -> Video:
    """Look at a video file.

    Args:
        path: MP4, MOV, MKV, WebM, AVI or GIF, whatever it is called, of at most 9.4 megapixels.

    Returns:
        The video, its first frame decoded to know its size.

    Raises:
        UnreadableVideoError: The file is missing, empty, damaged, not a video, or its frames are too large.
    """
    if not path.is_file():
        raise UnreadableVideoError(f"There is no video file at {path}; check the path.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{path} is empty; make or copy the video again.")
    with _our_errors(path), _opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        first = next((frame for frame in container.decode(stream) if isinstance(frame, VideoFrame)), None)
        if first is None:
            raise UnreadableVideoError(f"{path} is cut short: 0 of {stream.frames} frames are in it; copy it again.")
        # Once and not for every frame: PyAV's side data and their frame hold each other until the next collection.
        turn = Turn.of(first)
        size = (first.width, first.height) if turn.transposed else (first.height, first.width)
    if not rate:
        raise UnreadableVideoError(f"{path} does not say how many frames it has per second; convert it to MP4.")
    return Video(path, float(rate), size, turn)


def read_video(path: Path) -> tuple[npt.NDArray[np.uint8], float]:
    """Read all frames of a short video at once.

    Args:
        path: As for `open_video`.

    Returns:
        RGB frames (T, H, W, 3) with T >= 1, and frames per second.

    Raises:
        UnreadableVideoError: As for `open_video`, or the frames have more than 150 megapixels together.
    """
    video = open_video(path)
    max_frames = MAX_MEGAPIXELS_AT_ONCE * 1_000_000 // math.prod(video.size)
    images = list(islice(video.frames(), max_frames + 1))
    if len(images) > max_frames:
        raise UnreadableVideoError(
            f"{path} has more than {max_frames} frames of {video.size[1]}x{video.size[0]} pixels, which is more than "
            f"{MAX_MEGAPIXELS_AT_ONCE} megapixels at once; read its frames one by one with open_video."
        )
    return np.stack(images), video.fps


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    """The one place where what libav and PyAV raise becomes ours."""
    try:
        yield
    except PermissionError as error:
        raise UnreadableVideoError(f"{path} may not be read by this user; change its permissions.") from error
    except (OSError, FFmpegError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
        said = error.strerror if isinstance(error, FFmpegError) else error
        raise UnreadableVideoError(f"{path} cannot be read as a video ({said}); give an MP4 file.") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the stream to show, its decoder set to what we allow."""
    _check_index(path)
    # "file:" because libav takes what stands before a colon for a protocol; titles are in any encoding.
    with av.open(f"file:{path}", options=_OPENING, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            raise UnreadableVideoError(f"{path} is not a video that can be decoded; give an MP4 file.")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_FRAME_PIXELS:
            raise UnreadableVideoError(
                f"{path} has frames of {width}x{height} pixels and at most {MAX_FRAME_PIXELS / 1e6:.1f} megapixels are "
                "read; make it smaller."
            )
        stream.codec_context.options = _LIMITS
        # Every thread holds frames of its own.
        stream.codec_context.thread_count = 1
        yield container, stream


def _check_index(path: Path) -> None:
    """Refuse an MP4 that claims more frames than it has bytes, before libav makes a table of them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        counts = dict.fromkeys(_MP4_COUNTS, 0)
        _count_frames(file, 0, size, counts)
    num_frames = (counts[b"stsz"] + counts[b"trun"]) * max(1, counts[b"elst"])
    if num_frames > size:
        raise UnreadableVideoError(f"{path} claims {num_frames} frames in {size} bytes; copy or make the video again.")


def _count_frames(file: IO[bytes], start: int, end: int, counts: dict[bytes, int]) -> None:
    """Add up what the boxes of an MP4 claim; what is none has none of them."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(32).ljust(32, b"\0")
        size, kind = struct.unpack(">I4s", head[:8])
        body = 8
        if size == 1:
            (size,), body = struct.unpack(">Q", head[8:16]), 16
        size = min(size or end, end - start)
        if size < body:
            return
        if kind in _MP4_FOLDERS:
            _count_frames(file, start + body, start + size, counts)
        elif kind in _MP4_COUNTS:
            place = body + _MP4_COUNTS[kind]
            counts[kind] += int.from_bytes(head[place : place + 4], "big")
        start += size


def _to_rgb(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    # Said aloud because PyAV's own default for the source matrix changed between versions (PyAV issue 2230).
    source = Colorspace.ITU709 if frame.colorspace == _BT709 else Colorspace.ITU601
    return frame.to_ndarray(format="rgb24", src_colorspace=source).astype(np.uint8, copy=False)
