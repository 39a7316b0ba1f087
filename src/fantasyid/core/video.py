"""Reading and writing video files: H.264 in MP4, the form every player and browser opens."""

import uuid
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from fantasyid.core.errors import InvalidRequestError, UnreadableVideoError

CONSTANT_RATE_FACTOR = 16
# ITU-T H.273: 1 is BT.709 for primaries, transfer and matrix alike, and limited ("MPEG") for the range.
_BT709 = 1
_LIMITED_RANGE = 1
# Names under which libav opens single pictures and plain text as if they were videos.
_NO_VIDEO_FORMATS = ("image2", "tty", "mjpeg")


def write_video(
    path: Path, frames: npt.NDArray[np.uint8], fps: float, metadata: Mapping[str, str] | None = None
) -> None:
    """Write frames as an H.264 MP4 (yuv420p, BT.709, index at the front).

    The file is written under a temporary name in the same folder and renamed when complete: on any failure nothing
    appears and a file that was there stays as it was.

    Args:
        path: Where to write; its folder must exist.
        frames: RGB (T, H, W, 3), H and W even, T >= 1.
        fps: Frames per second, above 0.
        metadata: Container tags, such as `{"title": ...}`.

    Raises:
        InvalidRequestError: The shape, the size, the rate or the folder does not allow it.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise InvalidRequestError(
            f"A video is written from uint8 frames of shape (T, H, W, 3), not {frames.dtype} of shape {frames.shape}."
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2 or not height or not width:
        raise InvalidRequestError(f"H.264 needs an even width and height, not {width}x{height}.")
    if not fps > 0:
        raise InvalidRequestError(f"The frame rate must be above 0, not {fps}.")
    if not path.parent.is_dir():
        raise InvalidRequestError(f"The folder {path.parent} does not exist; create it or choose another.")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _encode(partial, frames, Fraction(fps).limit_denominator(100_000), metadata or {})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _encode(path: Path, frames: npt.NDArray[np.uint8], rate: Fraction, metadata: Mapping[str, str]) -> None:
    options = {"movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(CONSTANT_RATE_FACTOR), "preset": "medium"}
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
