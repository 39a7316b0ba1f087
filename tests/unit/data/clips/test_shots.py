"""Shots, samples and clips."""

import numpy as np
import pytest

from fantasyid.core.video import open_video
from fantasyid.data.clips.shots import clips_of_shot, find_shots, parts_of_shot, sampled_frames
from tests.unit.data.clips.films import packaged_film


def test_cuts_of_a_real_film_and_of_one_joined_to_another() -> None:
    car = [frame for number, frame in enumerate(open_video(packaged_film("carphone_pristine")).frames()) if number < 40]
    assert find_shots(car, 3.0, 15.0) == ((0, 40),)
    bikes = open_video(packaged_film("bikes")).frames()
    bright = [frame[:144, :176] for number, frame in enumerate(bikes) if number < 20]
    assert find_shots([*car, *bright, *car[:7]], 3.0, 15.0) == ((0, 40), (40, 60), (60, 67))
    assert find_shots([], 3.0, 15.0) == ()


@pytest.mark.parametrize(
    ("shot", "edge", "longest", "parts"),
    [
        ((0, 100), 2, 1000, ((2, 98),)),
        ((10, 14), 2, 1000, ()),
        ((10, 15), 2, 1000, ((12, 13),)),
        ((0, 100), 0, 40, ((0, 33), (33, 66), (66, 100))),
    ],
)
def test_long_shots_are_measured_in_equal_parts(
    shot: tuple[int, int], edge: int, longest: int, parts: tuple[tuple[int, int], ...]
) -> None:
    assert parts_of_shot(shot, edge, longest) == parts


@pytest.mark.parametrize("video_fps", [8.0, 23.976, 25.0, 29.97, 60.0])
def test_samples_are_the_frames_nearest_in_time(video_fps: float) -> None:
    numbers = np.array(sampled_frames((10, 400), video_fps, 8.0))
    times = np.arange(len(numbers)) / 8
    assert np.abs((numbers - 10) / video_fps - times).max() <= 0.5 / video_fps + 1e-9
    assert numbers[0] == 10
    assert numbers[-1] < 400 <= numbers[-1] + video_fps / 8 + 1
    assert (np.diff(numbers) >= 1).all()


def test_clips_of_a_shot_share_no_frame_and_are_spread_out() -> None:
    assert clips_of_shot(8, 9, 3) == ()
    assert clips_of_shot(9, 9, 3) == (range(9),)
    assert clips_of_shot(13, 9, 3) == (range(2, 11),)
    assert clips_of_shot(30, 9, 3) == (range(0, 9), range(10, 19), range(20, 29))
    assert clips_of_shot(100, 9, 2) == (range(20, 29), range(70, 79))
