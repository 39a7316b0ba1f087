"""Reading and writing video files: H.264 in MP4, the form every player and browser opens; VP9 in WebM, and GIF."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
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
# Names under which libav opens single pictures and plain text as if they were videos.
_NO_VIDEO_FORMATS = ("image2", "tty", "mjpeg")


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


def read_video(path: Path) -> tuple[npt.NDArray[np.uint8], float]:
    """Read all frames of a video file.

    Args:
        path: Any container and codec that libav decodes.

    Returns:
        RGB frames (T, H, W, 3) with T >= 1, and frames per second.

    Raises:
        UnreadableVideoError: The file is missing, empty, damaged, cut short, or not a video.
    """
    if not path.is_file():
        raise UnreadableVideoError(f"There is no video file at {path}; check the path.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{path} is empty; make or copy the video again.")
    try:
        return _decode(path)
    except FFmpegError as error:
        raise UnreadableVideoError(f"{path} cannot be read as a video ({error.strerror}); give an MP4 file.") from error


def _decode(path: Path) -> tuple[npt.NDArray[np.uint8], float]:
    with av.open(str(path)) as container:
        name = container.format.name
        if name in _NO_VIDEO_FORMATS or name.endswith("_pipe") or not container.streams.video:
            raise UnreadableVideoError(f"{path} is not a video; give an MP4 file.")
        stream = container.streams.video[0]
        images: list[npt.NDArray[np.uint8]] = []
        num_packets = 0
        for packet in container.demux(stream):
            num_packets += packet.size > 0
            images += [_to_rgb(frame) for frame in packet.decode() if isinstance(frame, VideoFrame)]
        if not images or num_packets < stream.frames:
            raise UnreadableVideoError(
                f"{path} is cut short: {num_packets} of {stream.frames} frames are in it; copy it again."
            )
        if len({image.shape for image in images}) > 1:
            raise UnreadableVideoError(f"{path} changes its frame size on the way; convert it to one size.")
        rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise UnreadableVideoError(f"{path} does not say how many frames it has per second; convert it to MP4.")
    return np.stack(images), float(rate)


def _to_rgb(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    # Said aloud because PyAV's own default for the source matrix changed between versions (PyAV issue 2230).
    source = Colorspace.ITU709 if frame.colorspace == _BT709 else Colorspace.ITU601
    return frame.to_ndarray(format="rgb24", src_colorspace=source).astype(np.uint8, copy=False)
