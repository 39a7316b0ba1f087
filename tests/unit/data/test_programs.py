"""Motion programs do what their words say."""

import numpy as np
import pytest

from fantasyid.data.repose.programs import PROGRAMS, perform
from fantasyid.geometry.head_model import HeadModel

FRAMES, SEEDS = 17, 30
YAW, PITCH, ROLL = 0, 1, 2
LIMITS_DEG = np.array([22.0, 16.0, 18.0])
ALONE = {"yaw": 0, "pitch": 1, "roll": 2}


def motions(name: str, frames: int = FRAMES) -> list:
    return [PROGRAMS[name][1](np.random.default_rng(seed), frames) for seed in range(SEEDS)]


def performances(frames: int = FRAMES, count: int = 400) -> list:
    rng = np.random.default_rng(11)
    return [perform(rng, frames) for _ in range(count)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_curves_have_a_value_for_every_frame_within_bounds(name: str) -> None:
    known = set(HeadModel.load().expression_names)
    for frames in (9, FRAMES):
        for motion in motions(name, frames):
            assert motion.angles_deg.shape == (frames, 3)
            assert (np.abs(motion.angles_deg) <= 30).all()
            assert set(motion.expression) <= known
            curves = [*motion.expression.values(), *([] if motion.own is None else [motion.own])]
            for curve in curves:
                assert curve.shape == (frames,)
                assert curve.min() >= 0
                assert curve.max() <= 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_motion_stays_in_its_channels(name: str) -> None:
    for motion in motions(name):
        for channel, axis in ALONE.items():
            if channel not in motion.channels:
                assert (motion.angles_deg[:, axis] == 0).all()
        parts = {"brow": "brows", "eyeB": "eyes", "jaw": "mouth", "mouth": "mouth", "cheek": "mouth"}
        for shape in motion.expression:
            channel = next((channel for start, channel in parts.items() if shape.startswith(start)), None)
            assert channel is None or channel in motion.channels, shape


@pytest.mark.parametrize(
    ("name", "phrase", "axis", "sign"),
    [
        ("turn_left", "turns the head to the left", YAW, -1),
        ("turn_right", "turns the head to the right", YAW, 1),
        ("tilt_left", "tilts the head to the left", ROLL, 1),
        ("tilt_right", "tilts the head to the right", ROLL, -1),
        ("look_up", "looks up", PITCH, -1),
        ("look_down", "looks down", PITCH, 1),
    ],
)
def test_turns_go_the_way_they_say(name: str, phrase: str, axis: int, sign: int) -> None:
    for motion in motions(name):
        curve = sign * motion.angles_deg[:, axis]
        assert motion.phrase == phrase
        assert (np.diff(curve) >= 0).all()
        assert curve[-1] - curve[0] >= 8
        assert curve[-1] > 0


@pytest.mark.parametrize(
    ("name", "phrase", "sign"), [("face_left", "faces left", -1), ("face_right", "faces right", 1)]
)
def test_facing_aside_is_held(name: str, phrase: str, sign: int) -> None:
    for motion in motions(name):
        yaw = sign * motion.angles_deg[:, YAW]
        assert motion.phrase == phrase
        assert motion.absolute
        assert (yaw == yaw[0]).all()
        assert 14 <= yaw[0] <= 22


@pytest.mark.parametrize(("name", "phrase", "axis"), [("nod", "nods", PITCH), ("shake", "shakes the head", YAW)])
def test_nods_and_shakes_swing_both_ways_from_rest(name: str, phrase: str, axis: int) -> None:
    starts = set()
    for motion in motions(name):
        curve = motion.angles_deg[:, axis]
        assert motion.phrase == phrase
        assert curve[0] == 0
        assert curve.max() > 3
        assert curve.min() < -3
        starts.add(np.sign(curve[1]))
    assert starts == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("name", "phrase", "shapes", "least"),
    [
        ("smile", "smiles", ("mouthSmileLeft", "mouthSmileRight"), 0.6),
        ("open_mouth", "opens the mouth", ("jawOpen",), 0.45),
        ("pucker", "purses the lips", ("mouthPucker",), 0.5),
        ("close_eyes", "closes the eyes", ("eyeBlinkLeft", "eyeBlinkRight"), 1.0),
        ("raise_brows", "raises the eyebrows", ("browInnerUp",), 0.7),
        ("frown", "frowns", ("browDownLeft", "browDownRight"), 0.7),
    ],
)
def test_expressions_rise_and_stay(name: str, phrase: str, shapes: tuple[str, ...], least: float) -> None:
    for motion in motions(name):
        assert motion.phrase == phrase
        for shape in shapes:
            curve = motion.expression[shape]
            assert curve[0] == 0
            assert (np.diff(curve) >= 0).all()
            assert curve[-1] >= least


def test_a_blink_closes_and_opens_both_eyes() -> None:
    for motion in motions("blink"):
        left, right = motion.expression["eyeBlinkLeft"], motion.expression["eyeBlinkRight"]
        assert np.array_equal(left, right)
        assert left.max() > 0.97
        assert min(left[0], left[-1]) == 0


def test_talking_moves_the_jaw_up_and_down() -> None:
    for motion in motions("talk"):
        jaw = motion.expression["jawOpen"]
        assert jaw.max() - jaw.min() > 0.1
        assert len(set(np.sign(np.diff(jaw))) - {0.0}) == 2


@pytest.mark.parametrize("name", ["serious", "closed_mouth"])
def test_a_closed_or_serious_face_takes_the_photos_expression_away(name: str) -> None:
    assert all((motion.own == 0).all() and not motion.expression for motion in motions(name))


def test_performances_are_bounded_and_complete() -> None:
    for performance in performances():
        assert performance.angles_deg.shape == (FRAMES, 3)
        assert (np.abs(performance.angles_deg) <= LIMITS_DEG).all()
        assert performance.own.shape == performance.zoom.shape == (FRAMES,)
        assert performance.zoom.min() >= 0.86
        assert performance.zoom.max() <= 1.12
        assert performance.shift.shape == (FRAMES, 2)
        assert np.abs(performance.shift).max() <= 0.05
        for curve in (performance.own, *performance.expression.values()):
            assert curve.shape == (FRAMES,)
            assert curve.min() >= 0
            assert curve.max() <= 1


def test_joined_motions_share_no_channel() -> None:
    channels = {motions(name)[0].phrase: motions(name)[0].channels for name in PROGRAMS}
    joined = [[p for p in performance.phrases if p in channels] for performance in performances()]
    assert 0.25 < np.mean([len(phrases) == 2 for phrases in joined]) < 0.5
    for phrases in joined:
        assert 1 <= len(phrases) <= 2
        assert len(phrases) == 1 or not channels[phrases[0]] & channels[phrases[1]], phrases


def test_a_performance_moves_as_its_phrases_say() -> None:
    turned, zoomed = 0, 0
    for performance in performances():
        yaw = performance.angles_deg[:, YAW]
        if "turns the head to the left" in performance.phrases:
            assert yaw[-1] - yaw[0] < -8
            turned += 1
        if "turns the head to the right" in performance.phrases:
            assert yaw[-1] - yaw[0] > 8
        if "smiles" in performance.phrases:
            assert performance.expression["mouthSmileLeft"][-1] >= 0.6
        change = performance.zoom[-1] - performance.zoom[0]
        expected = {"the camera zooms in": 1, "the camera zooms out": -1}
        assert np.sign(change) == sum(expected.get(phrase, 0) for phrase in performance.phrases)
        zoomed += change != 0
    assert min(turned, zoomed) > 10


def test_every_program_is_drawn() -> None:
    seen = {phrase for performance in performances(count=600) for phrase in performance.phrases}
    assert seen >= {motions(name)[0].phrase for name in PROGRAMS}


def test_same_seed_same_performance() -> None:
    first, second, other = (perform(np.random.default_rng(seed), FRAMES) for seed in (5, 5, 6))
    assert first.phrases == second.phrases
    assert first.expression.keys() == second.expression.keys()
    for name in ("angles_deg", "own", "zoom", "shift"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
        assert name == "own" or not np.array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("pose", [(-12.0, 5.0, -3.0), (0.0, 0.0, 0.0), (17.0, -8.0, 9.0)])
def test_phrases_about_the_camera_hold_whatever_the_photos_pose(pose: tuple[float, float, float]) -> None:
    """Pose and movement add up to the head's angles towards the camera, as far as the limits let them."""
    photo = np.array(pose)
    seen = dict.fromkeys(("faces left", "faces right", "looks at the camera"), 0)
    for performance in performances(count=800):
        moved = performance.seen_from(photo)
        assert moved.phrases == performance.phrases
        assert (np.abs(moved.angles_deg) <= LIMITS_DEG).all()
        towards_camera = moved.angles_deg + photo
        for axis in range(3):
            if axis not in performance.absolute:
                assert np.array_equal(moved.angles_deg[:, axis], performance.angles_deg[:, axis])
        if "faces left" in moved.phrases:
            assert towards_camera[:, YAW].max() < -4.9
        if "faces right" in moved.phrases:
            assert towards_camera[:, YAW].min() > 9.9
        if "looks at the camera" in moved.phrases:
            assert np.abs(towards_camera).max() < 9
        for phrase in seen:
            seen[phrase] += phrase in moved.phrases
    assert min(seen.values()) > 10


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_absolute(name: str) -> None:
    """Turning, nodding and tilting are movements; facing aside and looking at the camera are poses."""
    assert all(motion.absolute == (name in ("face_left", "face_right", "camera")) for motion in motions(name))
