"""Motion programs: what a re-posed head does over a clip, and the words for it.

Angles are degrees added to the photo's own pose (yaw > 0 to the right of the picture, pitch > 0 chin down, roll > 0
counter-clockwise). Left and right in phrases are those of the picture; expression names are ARKit's, where left is the
subject's own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
_AXES = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class Motion:
    """Curves over the T frames of a clip.

    Attributes:
        phrase: What the caption says of it.
        channels: Parts it uses; two motions with none in common may be joined.
        angles_deg: (T, 3) yaw, pitch, roll added to the photo's pose.
        expression: Curves by ARKit name, 0 to 1.
        own: (T,) how much of the photo's own expression is left.
        absolute: Whether the phrase speaks of the angles towards the camera, on the axes of its channels, and not of a
            change.
    """

    phrase: str
    channels: frozenset[str]
    angles_deg: Curve
    expression: dict[str, Curve] = field(default_factory=dict)
    own: Curve | None = None
    absolute: bool = False


def _ramp(rng: np.random.Generator, frames: int) -> Curve:
    """0 to 1, smooth, starting within the first third and held at the end."""
    start, length = rng.uniform(0.0, 0.3), rng.uniform(0.35, 0.65)
    position = np.clip((np.linspace(0, 1, frames) - start) / length, 0, 1)
    return position * position * (3 - 2 * position)


def _wave(rng: np.random.Generator, frames: int, cycles: tuple[float, float]) -> Curve:
    """A sine of -1 to 1 that starts from rest."""
    time = np.linspace(0, 1, frames)
    swing = np.sin(2 * np.pi * rng.uniform(*cycles) * time) * np.clip(time / 0.12, 0, 1)
    return swing * float(rng.choice([-1.0, 1.0]))


def _still(frames: int) -> Curve:
    return np.zeros((frames, 3))


def _about(axis: int, curve: Curve) -> Curve:
    angles = np.zeros((len(curve), 3))
    angles[:, axis] = curve
    return angles


def _turn(direction: int) -> Callable[[np.random.Generator, int], Motion]:
    def program(rng: np.random.Generator, frames: int) -> Motion:
        start = -direction * rng.uniform(-2, 9)
        curve = start + direction * rng.uniform(14, 24) * _ramp(rng, frames)
        side = "right" if direction > 0 else "left"
        return Motion(f"turns the head to the {side}", frozenset({"yaw"}), _about(0, curve))

    return program


def _face(direction: int) -> Callable[[np.random.Generator, int], Motion]:
    def program(rng: np.random.Generator, frames: int) -> Motion:
        side = "right" if direction > 0 else "left"
        curve = np.full(frames, direction * rng.uniform(14, 22))
        return Motion(f"faces {side}", frozenset({"yaw"}), _about(0, curve), absolute=True)

    return program


def _tilt(direction: int) -> Callable[[np.random.Generator, int], Motion]:
    def program(rng: np.random.Generator, frames: int) -> Motion:
        side = "left" if direction > 0 else "right"
        curve = direction * rng.uniform(8, 15) * _ramp(rng, frames)
        return Motion(f"tilts the head to the {side}", frozenset({"roll"}), _about(2, curve))

    return program


def _look(direction: int) -> Callable[[np.random.Generator, int], Motion]:
    def program(rng: np.random.Generator, frames: int) -> Motion:
        word = "down" if direction > 0 else "up"
        curve = direction * (rng.uniform(9, 15) * _ramp(rng, frames) - rng.uniform(0, 3))
        return Motion(f"looks {word}", frozenset({"pitch"}), _about(1, curve))

    return program


def _nod(rng: np.random.Generator, frames: int) -> Motion:
    return Motion("nods", frozenset({"pitch"}), _about(1, rng.uniform(5, 9) * _wave(rng, frames, (1.5, 2.5))))


def _shake(rng: np.random.Generator, frames: int) -> Motion:
    curve = rng.uniform(8, 13) * _wave(rng, frames, (1.5, 2.5))
    return Motion("shakes the head", frozenset({"yaw"}), _about(0, curve))


def _camera_gaze(rng: np.random.Generator, frames: int) -> Motion:
    return Motion("looks at the camera", frozenset(_AXES), _still(frames), absolute=True)


def _smile(rng: np.random.Generator, frames: int) -> Motion:
    ramp, start = _ramp(rng, frames), rng.uniform(0.0, 0.3)
    amount = rng.uniform(0.6, 1.0) * ramp
    shapes = {f"{name}{side}": part * amount for side in ("Left", "Right") for name, part in _SMILE_PARTS}
    return Motion("smiles", frozenset({"mouth"}), _still(frames), shapes, start + (0.6 - start) * ramp)


_SMILE_PARTS = (("mouthSmile", 1.0), ("cheekSquint", 0.5), ("mouthDimple", 0.25))


def _serious(rng: np.random.Generator, frames: int) -> Motion:
    return Motion("keeps a serious face", frozenset({"mouth"}), _still(frames), {}, np.zeros(frames))


def _open_mouth(rng: np.random.Generator, frames: int) -> Motion:
    curve = rng.uniform(0.45, 0.8) * _ramp(rng, frames)
    own = np.full(frames, rng.uniform(0.0, 0.4))
    return Motion("opens the mouth", frozenset({"mouth"}), _still(frames), {"jawOpen": curve}, own)


def _closed_mouth(rng: np.random.Generator, frames: int) -> Motion:
    return Motion("keeps the mouth closed", frozenset({"mouth"}), _still(frames), {}, np.zeros(frames))


def _talk(rng: np.random.Generator, frames: int) -> Motion:
    time = np.linspace(0, 1, frames)
    beat = sum(np.sin(2 * np.pi * (rng.uniform(2, 6) * time + rng.uniform())) for _ in range(3)) / 3
    jaw = np.clip(0.16 + 0.3 * beat, 0, 0.5)
    funnel = np.clip(0.3 * np.sin(2 * np.pi * (rng.uniform(1.5, 4) * time + rng.uniform())), 0, 1)
    own = np.full(frames, rng.uniform(0.2, 0.6))
    return Motion("talks", frozenset({"mouth"}), _still(frames), {"jawOpen": jaw, "mouthFunnel": funnel}, own)


def _pucker(rng: np.random.Generator, frames: int) -> Motion:
    shapes = {"mouthPucker": rng.uniform(0.5, 0.9) * _ramp(rng, frames)}
    return Motion("purses the lips", frozenset({"mouth"}), _still(frames), shapes, np.full(frames, 0.1))


def _both(name: str, curve: Curve) -> dict[str, Curve]:
    return {f"{name}Left": curve, f"{name}Right": curve}


def _blink(rng: np.random.Generator, frames: int) -> Motion:
    index, centre = np.arange(frames), rng.uniform(3, frames - 4)
    curve = np.clip(1.25 - np.abs(index - centre) / 1.8, 0, 1)
    return Motion("blinks", frozenset({"eyes"}), _still(frames), _both("eyeBlink", curve))


def _close_eyes(rng: np.random.Generator, frames: int) -> Motion:
    return Motion("closes the eyes", frozenset({"eyes"}), _still(frames), _both("eyeBlink", _ramp(rng, frames)))


def _raise_brows(rng: np.random.Generator, frames: int) -> Motion:
    curve = rng.uniform(0.7, 1.0) * _ramp(rng, frames)
    shapes = {"browInnerUp": curve, **_both("browOuterUp", 0.9 * curve), **_both("eyeWide", 0.4 * curve)}
    return Motion("raises the eyebrows", frozenset({"brows"}), _still(frames), shapes)


def _frown(rng: np.random.Generator, frames: int) -> Motion:
    curve = rng.uniform(0.7, 1.0) * _ramp(rng, frames)
    shapes = {**_both("browDown", curve), **_both("mouthFrown", 0.5 * curve)}
    return Motion("frowns", frozenset({"brows", "mouth"}), _still(frames), shapes, np.full(frames, 0.2))


PROGRAMS: dict[str, tuple[float, Callable[[np.random.Generator, int], Motion]]] = {
    "turn_left": (3.0, _turn(-1)),
    "turn_right": (3.0, _turn(1)),
    "face_left": (1.0, _face(-1)),
    "face_right": (1.0, _face(1)),
    "tilt_left": (0.7, _tilt(1)),
    "tilt_right": (0.7, _tilt(-1)),
    "look_up": (0.8, _look(-1)),
    "look_down": (0.8, _look(1)),
    "nod": (1.0, _nod),
    "shake": (1.0, _shake),
    "camera": (1.0, _camera_gaze),
    "smile": (3.0, _smile),
    "serious": (2.5, _serious),
    "open_mouth": (3.0, _open_mouth),
    "closed_mouth": (2.0, _closed_mouth),
    "talk": (1.5, _talk),
    "pucker": (0.6, _pucker),
    "blink": (1.2, _blink),
    "close_eyes": (0.7, _close_eyes),
    "raise_brows": (1.0, _raise_brows),
    "frown": (1.0, _frown),
}
"""Sampling weight and program by name."""

_LIMIT = np.array([22.0, 16.0, 18.0])


@dataclass(frozen=True)
class Performance:
    """One or two motions joined, with the small movements nobody mentions.

    Attributes:
        phrases: What the caption says, in order.
        angles_deg: (T, 3) added to the photo's pose, within 22, 16 and 18 degrees.
        expression: Curves by ARKit name, 0 to 1.
        own: (T,) how much of the photo's own expression is left.
        zoom: (T,) camera zoom.
        shift: (T, 2) camera shift in fractions of the frame.
        absolute: Axes (0 yaw, 1 pitch, 2 roll) whose angles are those towards the camera.
    """

    phrases: tuple[str, ...]
    angles_deg: Curve
    expression: dict[str, Curve]
    own: Curve
    zoom: Curve
    shift: Curve
    absolute: tuple[int, ...] = ()

    def seen_from(self, pose_deg: Curve) -> "Performance":
        """The same for a photo of that pose (yaw, pitch, roll): angles towards the camera become changes of it."""
        angles, axes = self.angles_deg.copy(), list(self.absolute)
        angles[:, axes] -= pose_deg[axes]
        return replace(self, angles_deg=angles.clip(-_LIMIT, _LIMIT))


def perform(rng: np.random.Generator, frames: int) -> Performance:
    """Draw a performance of `frames` frames, 7 or more."""
    weights = np.array([weight for weight, _ in PROGRAMS.values()])
    order = rng.choice(len(PROGRAMS), size=len(PROGRAMS), replace=False, p=weights / weights.sum())
    programs = [program for _, program in PROGRAMS.values()]
    motions = [programs[order[0]](rng, frames)]
    if rng.uniform() < 0.4:
        others = (programs[index](rng, frames) for index in order[1:])
        joined = next((motion for motion in others if not motion.channels & motions[0].channels), None)
        motions += [joined] if joined else []
    used = frozenset[str]().union(*(motion.channels for motion in motions))
    angles = sum((motion.angles_deg for motion in motions), _drift(rng, frames, used))
    expression = {name: curve for motion in motions for name, curve in motion.expression.items()}
    if "eyes" not in used and rng.uniform() < 0.35:
        expression |= _blink(rng, frames).expression
    own = next((motion.own for motion in motions if motion.own is not None), None)
    if own is None:
        own = np.full(frames, 1.0 if rng.uniform() < 0.5 else rng.uniform(0, 1))
    phrases = [motion.phrase for motion in motions]
    zoom = np.full(frames, rng.uniform(0.9, 1.08))
    if rng.uniform() < 0.1:
        direction = rng.choice([-1.0, 1.0])
        zoom = (0.98 + direction * 0.11 * np.linspace(-1, 1, frames)).clip(0.86, 1.12)
        phrases.append("the camera zooms in" if direction > 0 else "the camera zooms out")
    shift = np.tile(rng.normal(0, 0.018, 2), (frames, 1)).clip(-0.05, 0.05)
    axes = tuple(k for k, name in enumerate(_AXES) if any(m.absolute and name in m.channels for m in motions))
    return Performance(tuple(phrases), angles.clip(-_LIMIT, _LIMIT), expression, own, zoom, shift, axes)


def _drift(rng: np.random.Generator, frames: int, used: frozenset[str]) -> Curve:
    """A slow unmentioned movement, with a random pose where no motion asks for one."""
    time = np.linspace(0, 1, frames)[:, None]
    drift = np.sin(2 * np.pi * (rng.uniform(0.3, 0.9, 3) * time + rng.uniform(size=3))) * [1.5, 1.2, 0.8]
    start = rng.normal(0, [5.0, 3.0, 2.0])
    for axis, name in enumerate(_AXES):
        if name in used:
            start[axis] = 0.0
    return drift + start
