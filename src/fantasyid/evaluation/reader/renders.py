"""Renders of held-out people whose head, expression and pose are known, made once and read by every face reader.

Ten pictures a person, from the photo that looks straightest: six at yaw -20, -12, -4, 4, 12 and 20 degrees with six
expressions (which goes with which yaw differs from person to person), with pitch, roll, light and background drawn;
and four plain ones, mouth open and closed at yaw -20 and 20.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.output_files import write_together
from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.data.repose.render import Scene, render
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.evaluation.archives import read_arrays
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import euler_degrees, rotation_matrix

YAWS_DEG = (-20.0, -12.0, -4.0, 4.0, 12.0, 20.0)
# Name, share of the photo's own expression that stays, and activations of at least so much.
_EXPRESSIONS: tuple[tuple[str, float, dict[str, float]], ...] = (
    ("own", 1.0, {}),
    ("none", 0.0, {}),
    ("smile", 0.5, {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4}),
    ("open", 0.2, {"jawOpen": 0.6}),
    ("pucker", 0.1, {"mouthPucker": 0.7}),
    ("frown", 0.2, {"browDownLeft": 0.8, "browDownRight": 0.8, "mouthFrownLeft": 0.4, "mouthFrownRight": 0.4}),
)
_OPEN, _CLOSED = _EXPRESSIONS[3], _EXPRESSIONS[1]
_MAX_PITCH_DEG, _MAX_ROLL_DEG = 8.0, 10.0
_SEED = 20_261_122


@dataclass(frozen=True, eq=False)
class KnownRenders:
    """M renders of P people.

    Attributes:
        frames: (M,H,W,3) uint8 RGB.
        person: (M,) index of the person.
        expression: (M,) name of the expression.
        plain: (M,) True for the four plain ones: mouth open and closed at yaw -20 and 20.
        angles_deg: (M,3) yaw, pitch and roll of the head.
        vertices: (P,N,3) cm, the neutral heads.
        names: (P,) of the people.
        head: Hash of the head model they were made with.
    """

    frames: NDArray[np.uint8]
    person: NDArray[np.int64]
    expression: NDArray[np.str_]
    plain: NDArray[np.bool_]
    angles_deg: NDArray[np.float32]
    vertices: NDArray[np.float32]
    names: NDArray[np.str_]
    head: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write an npz, complete or not at all."""
        with write_together([path], overwrite=True) as (made,):
            np.savez_compressed(made, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path, head: HeadModel) -> "KnownRenders":
        """Read what `save` wrote.

        Raises:
            InvalidRequestError: The file is missing or damaged, or was made with another head model.
        """
        names = [field.name for field in fields(cls)]
        arrays = read_arrays(path, names, "renders", "make them with the step render")
        renders = cls(**{name: arrays[name] for name in names})
        if str(renders.head) != head.coefficients_hash:
            raise InvalidRequestError(f"{path} was made with another head model; make it again with the step render.")
        return renders


def make_renders(rig_files: Sequence[Path], people: Sequence[str]) -> KnownRenders:
    """Render people, about half a second a picture on one core.

    Args:
        rig_files: Files of `data.repose.prepare` that hold the people's photos, made with the head model of the
            package.
        people: Names (`p0001`), in order; those without a rig are left out.

    Raises:
        InvalidRequestError: None of them has a rig.
    """
    layers = HeadLayers.build(HeadModel.load())
    found: dict[str, tuple[RigSet, int]] = {}
    for path in rig_files:
        rigs = RigSet.load(path, layers)
        ids = read_arrays(path, ("ids",), "rigs", "make it again with `fantasyid data rigs`")["ids"]
        owners = [str(name).rsplit("_", 1)[0] for name in ids]
        own_yaw = euler_degrees(rigs.rotation)[0].abs()
        for index in own_yaw.argsort().tolist():
            found.setdefault(owners[index], (rigs, index))
    chosen = [name for name in people if name in found]
    if not chosen:
        raise InvalidRequestError(f"None of the {len(people)} people has a rig in {', '.join(map(str, rig_files))}.")
    numbers = {name: number for number, name in enumerate(people)}
    parts = [_render_person(layers, *found[name], numbers[name]) for name in tqdm(chosen, desc="rendering")]
    identity = torch.stack([rigs.identity[index] for rigs, index in (found[name] for name in chosen)])
    vertices = layers.head.neutral(identity)
    return KnownRenders(
        frames=np.concatenate([frames for frames, _, _ in parts]),
        person=np.repeat(np.arange(len(chosen)), len(YAWS_DEG) + 4),
        expression=np.concatenate([names for _, names, _ in parts]),
        plain=np.tile(np.arange(len(YAWS_DEG) + 4) >= len(YAWS_DEG), len(chosen)),
        angles_deg=np.concatenate([angles for _, _, angles in parts]),
        vertices=vertices.numpy(),
        names=np.array(chosen),
        head=np.array(layers.head.coefficients_hash),
    )


def _render_person(
    layers: HeadLayers, rigs: RigSet, index: int, number: int
) -> tuple[NDArray[np.uint8], NDArray[np.str_], NDArray[np.float32]]:
    """Frames (10,H,W,3), names of the expressions (10,) and angles (10,3)."""
    rng = np.random.default_rng([_SEED, number])
    order = rng.permutation(len(_EXPRESSIONS))
    performed = [*(_EXPRESSIONS[k] for k in order), _OPEN, _CLOSED, _OPEN, _CLOSED]
    spread = len(YAWS_DEG)
    count = len(performed)
    target = np.zeros((count, 3), np.float32)
    target[:, 0] = (*YAWS_DEG, -20.0, -20.0, 20.0, 20.0)
    target[:spread, 1] = rng.uniform(-_MAX_PITCH_DEG, _MAX_PITCH_DEG, spread)
    target[:spread, 2] = rng.uniform(-_MAX_ROLL_DEG, _MAX_ROLL_DEG, spread)
    light = np.zeros((count, 3), np.float32)
    light[:spread] = rng.normal(0, 0.15, (spread, 3))
    colours = np.array(list(COLOURS.values()), np.float32)[rng.integers(0, len(COLOURS), count)] / 255
    rotation = rotation_matrix(*torch.from_numpy(target).unbind(-1))
    turn = rotation @ rigs.rotation[index].mT
    rig = torch.full((count,), index)
    scene = Scene(
        rig=rig,
        texture=rigs.image[rig].float() / 255,
        identity=rigs.identity[rig],
        expression=torch.stack([_activate(layers, rigs.expression[index], *item[1:]) for item in performed])[:, None],
        angles_deg=torch.stack(euler_degrees(turn), -1)[:, None],
        zoom=torch.ones(count, 1),
        shift=torch.zeros(count, 1, 2),
        light=torch.from_numpy(light),
        gain=torch.ones(count, 3),
        background=torch.from_numpy(colours)[:, :, None, None],
    )
    with torch.no_grad():
        frames = render(layers, rigs, scene, supersample=1).frames[:, 0]
    pixels = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels, np.array([name for name, _, _ in performed]), target


def _activate(layers: HeadLayers, own: Tensor, share: float, at_least: dict[str, float]) -> Tensor:
    expression = own * share
    for name, amount in at_least.items():
        column = layers.head.expression_names.index(name)
        expression[column] = expression[column].clamp(min=amount)
    return expression
