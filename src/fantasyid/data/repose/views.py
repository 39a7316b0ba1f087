"""Draw what the face reader learns from: people, real or mixed, in two photos each, in many poses and expressions."""

import numpy as np
import torch
from numpy.typing import NDArray

from fantasyid.data.repose.mixing import mix
from fantasyid.data.repose.programs import Performance
from fantasyid.data.repose.render import Scene
from fantasyid.data.repose.scenes import MIXED_SHARE, SceneSampler

_TWO_PHOTO_SHARE = 0.5
# So many people have a shape that is not their photos', off by a standard deviation in this range, in sigmas: a reader
# that knows a texture again does not know the shape. With three in eight people off by 0.5, a reader erred half as much
# on people whose photos it was trained on as on others.
_CHANGED_SHARE = 0.9
_CHANGE = (0.3, 1.0)
_MAX_TURN_DEG = np.array([22.0, 14.0, 10.0])
# Expressions drawn independently: probability, largest activation, ARKit names that move together.
_EXPRESSIONS: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (0.35, 0.7, ("jawOpen",)),
    (0.35, 0.8, ("mouthSmileLeft", "mouthSmileRight")),
    (0.15, 0.7, ("mouthFrownLeft", "mouthFrownRight")),
    (0.15, 0.7, ("mouthPucker",)),
    (0.10, 0.6, ("mouthFunnel",)),
    (0.10, 0.6, ("mouthStretchLeft", "mouthStretchRight")),
    (0.10, 0.6, ("mouthUpperUpLeft", "mouthUpperUpRight")),
    (0.10, 0.6, ("mouthLowerDownLeft", "mouthLowerDownRight")),
    (0.20, 1.0, ("eyeBlinkLeft", "eyeBlinkRight")),
    (0.15, 0.8, ("eyeSquintLeft", "eyeSquintRight")),
    (0.15, 0.8, ("eyeWideLeft", "eyeWideRight")),
    (0.20, 0.8, ("browInnerUp",)),
    (0.15, 0.8, ("browOuterUpLeft", "browOuterUpRight")),
    (0.20, 0.8, ("browDownLeft", "browDownRight")),
    (0.10, 0.6, ("cheekSquintLeft", "cheekSquintRight")),
    (0.06, 0.6, ("jawLeft",)),
    (0.06, 0.6, ("jawRight",)),
    (0.06, 0.6, ("mouthLeft",)),
    (0.06, 0.6, ("mouthRight",)),
)


class ViewSampler(SceneSampler):
    """Draws people in two photos each; the same seed draws the same people.

    The two photos are two real ones where the parents have two: then nothing but the person is the same in both, and
    mixing two such parents makes many more such people.
    """

    def draw_views(self, people: int, frames: int) -> tuple[Scene, Scene]:
        """Draw `people` people with `frames` independent views in each of their two photos."""
        rng, device = self.rng, self.rigs.image.device
        two = np.flatnonzero(self.other != np.arange(len(self.other)))
        base = rng.choice(len(self.rigs), people, p=self.weight)
        if len(two):
            paired = rng.choice(two, people, p=self.weight[two] / self.weight[two].sum())
            base = np.where(rng.uniform(size=people) < _TWO_PHOTO_SHARE, paired, base)
        donor = np.array([self._donor(index) for index in base])
        share = np.where(rng.uniform(size=people) < MIXED_SHARE, rng.uniform(0.4, 0.8, people), 0.0)
        change = np.where(rng.uniform(size=people) < _CHANGED_SHARE, rng.uniform(*_CHANGE, people), 0.0)
        own = rng.normal(size=(people, self.rigs.identity.shape[1])) * change[:, None]

        def tensor(array: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        scenes = []
        for rig, other in ((base, donor), (self.other[base], self.other[donor])):
            shares = tensor(share.astype(np.float32))
            texture, identity = mix(self.layers, self.rigs, tensor(rig), tensor(other), shares)
            views = [self._view(frames) for _ in range(people)]
            lights, _ = self._lights(people, described=False)
            backgrounds, _ = self._backgrounds(rig)
            shape = identity + tensor(own.astype(np.float32))
            scenes.append(self._scene(rig, texture, shape, views, lights, backgrounds))
        return scenes[0], scenes[1]

    def _view(self, frames: int) -> Performance:
        rng = self.rng
        angles = rng.normal(0, [10.0, 5.0, 3.0], (frames, 3)).clip(-_MAX_TURN_DEG, _MAX_TURN_DEG)
        expression: dict[str, NDArray[np.float64]] = {}
        for probability, largest, names in _EXPRESSIONS:
            level = rng.uniform(0, largest, frames) * (rng.uniform(size=frames) < probability)
            for name in names:
                expression[name] = level * rng.uniform(0.7, 1.0, frames)
        own = np.where(rng.uniform(size=frames) < 0.4, 1.0, rng.uniform(0, 1, frames))
        return Performance((), angles, expression, own, np.ones(frames), np.zeros((frames, 2)))
