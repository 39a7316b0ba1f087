"""Render what the face reader is trained on: crops of people with known shape, expression, pose and landmarks.

Writes one folder of memory-mapped arrays (see `FaceViews`). About 0.3 MB a person.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.output_files import make_folder
from fantasyid.data.array_files import open_array, write_array
from fantasyid.data.repose.render import Scene, render
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.data.repose.views import ViewSampler
from fantasyid.face.align import READER_SIZE, jittered_reader_transform, tilt_deg, transform_points, warp
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import euler_degrees, rotation_matrix

VIEWS_PER_PHOTO = 3
_FRAME_SIZE = 224
_CHUNK = 24


@dataclass(frozen=True)
class FaceViews:
    """M people in V views each, the first half of the views from one photo, the rest from another where there is one.

    Attributes:
        crops: (M, V, 3, 128, 128) uint8 RGB, cut as the reader's detector or its own first pass might have cut them.
        landmarks: (M, V, 478, 3) float16 in crop units, as `FaceReaderModel` gives them.
        identity: (M, K) float32 head shape.
        expression: (M, V, E) float16.
        pose_deg: (M, V, 3) float16 yaw, pitch and roll in the crop.
    """

    crops: Tensor
    landmarks: Tensor
    identity: Tensor
    expression: Tensor
    pose_deg: Tensor

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def open(cls, folder: Path, device: str) -> "FaceViews":
        """Read rendered views to a device.

        Raises:
            InvalidRequestError: A file is missing or damaged.
        """
        names = [field.name for field in fields(cls)]
        arrays = {name: open_array(folder / f"{name}.npy", "fantasyid data views") for name in names}
        return cls(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


@torch.no_grad()
def crop_views(layers: HeadLayers, rigs: RigSet, scene: Scene) -> FaceViews:
    """Render a scene and cut each frame as a detector might.

    Returns:
        The crops with all that is known about them, V = T.
    """
    drawn = render(layers, rigs, scene, size=_FRAME_SIZE, supersample=1)
    people, views = drawn.frames.shape[:2]
    landmarks = drawn.landmarks.flatten(0, 1)
    affine = jittered_reader_transform(landmarks[..., :2])
    crops = warp(drawn.frames.flatten(0, 1), affine, READER_SIZE)
    turn = rotation_matrix(*scene.angles_deg.flatten(0, 1).unbind(-1))
    rotation = turn @ rigs.rotation[scene.rig].repeat_interleave(views, 0)
    yaw, pitch, roll = euler_degrees(rotation)
    pose = torch.stack([yaw, pitch, roll + tilt_deg(affine)], -1)

    def per_person(values: Tensor) -> Tensor:
        return rearrange(values, "(m v) ... -> m v ...", m=people)

    return FaceViews(
        crops=per_person((crops * 255).round().clamp(0, 255).byte()),
        landmarks=per_person(transform_points(landmarks, affine, 1).half()),
        identity=scene.identity.float(),
        expression=scene.expression.half(),
        pose_deg=per_person(pose.half()),
    )


def render_views(rigs_path: Path, out: Path, people: int, device: str, seed: int) -> None:
    """Render `people` people into the folder `out`; the identities are written last and mark a finished folder."""
    layers = HeadLayers.build(HeadModel.load().to(device))
    rigs = RigSet.load(rigs_path, layers)
    sampler = ViewSampler(layers, rigs, seed)
    torch.manual_seed(seed)
    make_folder(out)
    (out / "identity.npy").unlink(missing_ok=True)  # until all is made anew, this is no finished folder
    maps: dict[str, np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
    identity = []
    for start in tqdm(range(0, people, _CHUNK), desc="rendering", mininterval=5.0):
        count = min(_CHUNK, people - start)
        sides = [crop_views(layers, rigs, scene) for scene in sampler.draw_views(count, VIEWS_PER_PHOTO)]
        identity.append(sides[0].identity.cpu())
        for name in ("crops", "landmarks", "expression", "pose_deg"):
            values = torch.cat([getattr(side, name) for side in sides], 1).cpu().numpy()
            if name not in maps:
                shape = (people, *values.shape[1:])
                maps[name] = np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=values.dtype, shape=shape)
            maps[name][start : start + count] = values
    write_array(out / "identity.npy", torch.cat(identity).numpy())


if __name__ == "__main__":
    tell_new_command("fantasyid.data.face_views", "fantasyid data views")
