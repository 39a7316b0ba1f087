"""Draw what training clips show: a person, real or mixed, a performance, and another view of them as reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.captions import worded
from fantasyid.data.repose.backdrops import backdrop
from fantasyid.data.repose.mixing import mix
from fantasyid.data.repose.programs import Performance, perform
from fantasyid.data.repose.render import Scene
from fantasyid.data.repose.rig import CANVAS, HeadLayers, RigSet
from fantasyid.geometry.projection import euler_degrees

MIXED_SHARE = 0.75
_MATCH_CANDIDATES = 24
_CHEEKS = ((0.39, 0.61), (0.375, 0.625))  # rows and columns of the canvas, in shares, where skin is compared


@dataclass(frozen=True)
class Draw:
    """B clips and their references.

    Attributes:
        target: The clips, T frames.
        reference: One other view of each person, 1 frame; never the clip's first frame.
        photo: (B,) True where the reference is the untouched photo, to be cut from its canvas.
        identity: (B, K) the known head shape.
        captions: B sentences.
    """

    target: Scene
    reference: Scene
    photo: Tensor
    identity: Tensor
    captions: list[str]


class SceneSampler:
    """Draws clips from a set of rigs; the same seed draws the same clips."""

    def __init__(self, layers: HeadLayers, rigs: RigSet, seed: int) -> None:
        self.layers, self.rigs = layers, rigs
        self.rng = np.random.default_rng(seed)
        weight = rigs.weight.double().cpu().numpy()
        self.weight = weight / weight.sum()
        self.sex, self.decade = rigs.sex.cpu().numpy(), rigs.decade.cpu().numpy()
        self.person, self.other = rigs.person.cpu().numpy(), rigs.other.cpu().numpy()
        rows, columns = (slice(round(low * CANVAS), round(high * CANVAS)) for low, high in _CHEEKS)
        middle = rigs.image[:, :, rows, columns].float().mean((2, 3))
        self.skin = middle.cpu().numpy()
        self.pose_deg = torch.stack(euler_degrees(rigs.rotation), -1).double().cpu().numpy()
        self.index = {name: k for k, name in enumerate(layers.head.expression_names)}

    def draw(self, batch: int, frames: int) -> Draw:
        """Draw `batch` clips of `frames` frames, 7 or more."""
        rng, device = self.rng, self.rigs.image.device
        weight = self.weight / self.weight.sum()
        base = rng.choice(len(self.rigs), batch, p=weight)
        second = np.where(rng.uniform(size=batch) < 0.6, self.other[base], base)
        donor = np.array([self._donor(index) for index in base])
        share = np.where(rng.uniform(size=batch) < MIXED_SHARE, rng.uniform(0.4, 0.8, batch), 0.0)

        def tensor(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(device)

        shares = tensor(share.astype(np.float32))
        texture, identity = mix(self.layers, self.rigs, tensor(base), tensor(donor), shares)
        other_texture, _ = mix(self.layers, self.rigs, tensor(second), tensor(donor), shares)
        performances = [perform(rng, frames).seen_from(self.pose_deg[index]) for index in base]
        sentences = []
        lights, words = self._lights(batch, described=True)
        backgrounds, places = self._backgrounds(base)
        for k, performance in enumerate(performances):
            decade = int(self.decade[base[k]]) if share[k] == 0 else 0
            sentences.append(worded(rng, int(self.sex[base[k]]), decade, performance.phrases, places[k], words[k]))
        target = self._scene(base, texture, identity, performances, lights, backgrounds)
        poses = [self._reference_pose() for _ in range(batch)]
        lights, _ = self._lights(batch, described=False)
        backgrounds, _ = self._backgrounds(second)
        reference = self._scene(second, other_texture, identity, poses, lights, backgrounds)
        photo = tensor((share == 0) & (rng.uniform(size=batch) < 0.7))
        return Draw(target, reference, photo, identity, sentences)

    def _donor(self, base: int) -> int:
        """Someone of the same sex with a similar skin colour in the photo."""
        eligible = np.flatnonzero((self.sex == self.sex[base]) & (self.person != self.person[base]))
        if not len(eligible):
            raise InvalidRequestError(f"Photo {base} has nobody else of its sex to be mixed with; add another person.")
        candidates = self.rng.choice(eligible, _MATCH_CANDIDATES)
        distance = np.linalg.norm(self.skin[candidates] - self.skin[base], axis=1)
        return int(candidates[np.argsort(distance)[self.rng.integers(3)]])

    def _reference_pose(self) -> Performance:
        """A still view of its own, often the photo's."""
        rng = self.rng
        angles = rng.normal(0, [8.0, 4.0, 1.5], (1, 3)) * (rng.uniform() < 0.6)
        own = np.array([1.0 if rng.uniform() < 0.6 else rng.uniform(0, 1)])
        expression = {"jawOpen": np.array([rng.uniform(0.1, 0.4)])} if rng.uniform() < 0.12 else {}
        zoom = rng.normal(1, 0.03, 1).clip(0.9, 1.1)
        return Performance((), angles.clip(-20, 20), expression, own, zoom, rng.normal(0, 0.01, (1, 2)))

    def _scene(
        self,
        rig: NDArray[np.int64],
        texture: Tensor,
        identity: Tensor,
        performances: Sequence[Performance],
        lights: tuple[Tensor, Tensor],
        background: Tensor,
    ) -> Scene:
        rigs, device = self.rigs, texture.device
        own = np.stack([performance.own for performance in performances])
        added = np.zeros((*own.shape, len(self.index)))
        for k, performance in enumerate(performances):
            for name, curve in performance.expression.items():
                added[k, :, self.index[name]] = curve

        def tensor(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array.astype(np.float32)).to(device)

        where = torch.from_numpy(rig).to(device)
        expression = torch.maximum(rigs.expression[where][:, None] * tensor(own)[..., None], tensor(added))
        angles = tensor(np.stack([performance.angles_deg for performance in performances]))
        zoom = tensor(np.stack([performance.zoom for performance in performances]))
        shift = tensor(np.stack([performance.shift for performance in performances]))
        return Scene(where, texture, identity, expression, angles, zoom, shift, *lights, background)

    def _lights(self, batch: int, described: bool) -> tuple[tuple[Tensor, Tensor], list[str]]:
        """Light direction times strength, colour gain, and words for light strong enough to mention."""
        rng, device = self.rng, self.rigs.image.device
        direction = rng.normal(0, [1.0, 0.5, 0.0], (batch, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
        strength = rng.uniform(0, 0.42, batch) * (rng.uniform(size=batch) < 0.5)
        light = direction * strength[:, None]
        words = [f"lit from the {'left' if x < 0 else 'right'}" if abs(x) > 0.24 else "" for x in light[:, 0]]
        gain = rng.normal(1, 0.05, (batch, 1)) * rng.normal(1, 0.02, (batch, 3))
        moved = (torch.from_numpy(array.astype(np.float32)).to(device) for array in (light, gain))
        return (next(moved), next(moved)), words if described else [""] * batch

    def _backgrounds(self, rig: NDArray[np.int64]) -> tuple[Tensor, list[str]]:
        """The photo's own background painted over, without words, or a new one with words."""
        device = self.rigs.image.device
        pictures = self.rigs.backdrop[torch.from_numpy(rig).to(device)].float() / 255
        words = [""] * len(rig)
        for k in range(len(rig)):
            if self.rng.uniform() < 0.6:
                picture, words[k] = backdrop(self.rng, pictures.shape[-1])
                pictures[k] = torch.from_numpy(picture).to(device).permute(2, 0, 1).float() / 255
        return pictures, words
