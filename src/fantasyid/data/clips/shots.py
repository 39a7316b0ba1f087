"""Shots of a video, the frames taken of them, and clips in them."""

import logging
from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from fantasyid.core.optional import require

# Cuts show at this size, in a tenth of the time.
_WIDTH = 256


def find_shots(frames: Iterable[NDArray[np.uint8]], contrast: float, change: float) -> tuple[tuple[int, int], ...]:
    """Cut a video where its picture changes at once (PySceneDetect's adaptive detector).

    Args:
        frames: All frames, RGB (H,W,3).
        contrast: Change at a cut over the mean change around it.
        change: The least change that is one, of 255.

    Returns:
        First frame, and the one after the last, of each shot; together they are all frames.

    Raises:
        MissingBackendError: scenedetect is not installed.
    """
    library = require("scenedetect", "data", "find shots")
    logging.getLogger("pyscenedetect").setLevel(logging.ERROR)
    detector = library.AdaptiveDetector(adaptive_threshold=contrast, min_content_val=change, min_scene_len=1)
    cuts: list[int] = []
    number = -1
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        size = (_WIDTH, max(1, round(height * _WIDTH / width)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        found = detector.process_frame(library.FrameTimecode(number, 25.0), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        cuts += [time.frame_num for time in found]
    if number < 0:
        return ()
    cuts += [time.frame_num for time in detector.post_process(library.FrameTimecode(number, 25.0))]
    edges = [0, *sorted(set(cuts)), number + 1]
    return tuple((first, stop) for first, stop in pairwise(edges) if stop > first)


def parts_of_shot(shot: tuple[int, int], edge: int, longest: int) -> tuple[tuple[int, int], ...]:
    """The shot without its edges, in equal parts of at most `longest` frames.

    Args:
        shot: First frame, and the one after the last.
        edge: Frames to leave out at both ends.
        longest: Frames.

    Returns:
        The parts in the same form; none of a shot that is all edge.
    """
    first, stop = shot[0] + edge, shot[1] - edge
    if stop <= first:
        return ()
    count = -(-(stop - first) // longest)
    bounds = [first + (stop - first) * index // count for index in range(count + 1)]
    return tuple(pairwise(bounds))


def sampled_frames(part: tuple[int, int], video_fps: float, fps: float) -> tuple[int, ...]:
    """The frames nearest to times at another rate.

    Args:
        part: First frame, and the one after the last.
        video_fps: The video's rate.
        fps: The rate wanted, at most the video's.

    Returns:
        Numbers of frames within the part, rising.
    """
    first, stop = part
    step = video_fps / fps
    count = int((stop - 1 - first) / step + 1e-9) + 1
    return tuple(first + round(index * step) for index in range(count))


def clips_of_shot(num_samples: int, num_frames: int, most: int) -> tuple[range, ...]:
    """Where clips lie in a row of samples: spread out evenly, sharing none.

    Args:
        num_samples: How many there are.
        num_frames: How many a clip has.
        most: Clips, at most.

    Returns:
        Ranges of samples; none where there are too few.
    """
    count = min(most, num_samples // num_frames)
    room = num_samples - count * num_frames
    starts = [room * (2 * index + 1) // (2 * count) + index * num_frames for index in range(count)]
    return tuple(range(start, start + num_frames) for start in starts)
