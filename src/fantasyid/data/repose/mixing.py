"""Two photos make a third person, who does not exist: B's face on A's photo through the common mesh."""

import torch
from torch import Tensor

from fantasyid.data.repose.render import fitted_vertices, look_up
from fantasyid.data.repose.rig import CANVAS, HeadLayers, RigSet, blur
from fantasyid.geometry.raster import interpolate, rasterise


def mix(layers: HeadLayers, rigs: RigSet, base: Tensor, donor: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the donor's face onto the base photo.

    Args:
        layers: Head model and its drawing order.
        rigs: The photos.
        base: (B,) photo that gives hair, clothes and light.
        donor: (B,) photo that gives the face.
        share: (B,) in [0, 1], the donor's share of texture and shape; 0 leaves the base as it is.

    Returns:
        (B, 3, CANVAS, CANVAS) texture in [0, 1] and (B, K) identity coefficients.
    """
    _, base_pixels = fitted_vertices(layers, rigs, base)
    _, donor_pixels = fitted_vertices(layers, rigs, donor)
    index, weights = rasterise(base_pixels, layers.drawn, CANVAS, CANVAS)
    attributes = torch.cat([donor_pixels[..., :2], layers.softness.expand(len(base), -1)[..., None]], -1)
    attributes_map = interpolate(attributes, layers.drawn, index, weights)
    own = rigs.image[base].float() / 255
    theirs = look_up(rigs.image[donor].float() / 255, attributes_map[..., :2]).permute(0, 3, 1, 2)
    core = (attributes_map[..., 2] > 0.99).float()[:, None]
    amount = core.sum((2, 3), keepdim=True).clamp(min=1)

    def statistics(picture: Tensor) -> tuple[Tensor, Tensor]:
        mean = (picture * core).sum((2, 3), keepdim=True) / amount
        spread = (((picture - mean) ** 2 * core).sum((2, 3), keepdim=True) / amount).sqrt()
        return mean, spread

    (own_mean, own_spread), (their_mean, their_spread) = statistics(own), statistics(theirs)
    matched = (theirs - their_mean) * (own_spread / (their_spread + 1e-4)).clamp(0.7, 1.4) + own_mean
    border = attributes_map[..., 2][:, None].clamp(0, 1)
    opacity = blur(border * border * (3 - 2 * border), 3.0 * CANVAS / 256) * border * share[:, None, None, None]
    texture = own * (1 - opacity) + matched.clamp(0, 1) * opacity
    identity = torch.lerp(rigs.identity[base], rigs.identity[donor], share[:, None])
    return texture, identity
