"""Whether vertices can be a person's head, asked once wherever vertices enter the model."""

import math

import torch
from torch import Tensor

from fantasyid.core.errors import ImpossibleHeadError

MEAN_RADIUS_CM = 9.0
"""Root mean square distance of a head's vertices from their middle, where no mean head says it: 7.5 on our mesh."""
MAX_SIZE_RATIO = 2.0
"""Between a head and the mean head, either way."""
MAX_SIZE_RATIO_WITHOUT_MEAN = 3.0
MAX_OFFSET_CM = 20.0
MAX_TURN_DEG = 45.0
MAX_DIFFERENCE = 0.5
"""Root mean square difference from the mean head, once laid over it, in its radius; below 0.2 for people."""

_REMEDY = "use the file as `fantasyid edit` or `fantasyid face inspect` wrote it, or bring the mesh into the same frame"


def check_heads(vertices: Tensor, mean_head: Tensor | None) -> None:
    """Refuse vertices that no person's neutral head has.

    Args:
        vertices: (B, N, 3) cm, head space: x to the right of the picture, y up, z to the viewer.
        mean_head: (N, 3) cm, what the vertices are compared with; None where the model has none, as the released
            checkpoint's: then size and place are looked at, and neither direction nor order.

    Raises:
        ImpossibleHeadError: The message says what is wrong and how to mend it.
    """
    heads = vertices.detach().double().cpu()
    if not torch.isfinite(heads).all():
        raise ImpossibleHeadError("The head has vertices that are not finite numbers; write or read it again.")
    mean = None if mean_head is None else mean_head.detach().double().cpu()
    for head in heads:
        _check_size(head, mean)
        _check_place(head, mean)
        if mean is not None:
            _check_shape(head, mean)


def _radius(head: Tensor) -> float:
    """Root mean square distance from the middle."""
    return float((head - head.mean(0)).square().sum(1).mean().sqrt())


def _check_size(head: Tensor, mean: Tensor | None) -> None:
    expected, allowed = MEAN_RADIUS_CM, MAX_SIZE_RATIO_WITHOUT_MEAN
    if mean is not None:
        expected, allowed = _radius(mean), MAX_SIZE_RATIO
    ratio = _radius(head) / expected
    if 1 / allowed <= ratio <= allowed:
        return
    if ratio == 0:
        raise ImpossibleHeadError(f"All vertices of the head lie in one point; {_REMEDY}.")
    for unit, factor in (("metres", 100.0), ("decimetres", 10.0), ("millimetres", 0.1)):
        if 1 / allowed <= ratio * factor <= allowed:
            raise ImpossibleHeadError(
                f"The head is {ratio:.3g} times as large as a head in centimetres, so it is in {unit}; multiply its "
                f"vertices by {factor:g}."
            )
    raise ImpossibleHeadError(f"The head is {ratio:.3g} times as large as a head in centimetres; {_REMEDY}.")


def _check_place(head: Tensor, mean: Tensor | None) -> None:
    middle = torch.zeros(3, dtype=head.dtype) if mean is None else mean.mean(0)
    offset = head.mean(0) - middle
    if float(offset.norm()) > MAX_OFFSET_CM:
        x, y, z = offset.tolist()
        raise ImpossibleHeadError(
            f"The head lies {float(offset.norm()):.3g} cm from where heads lie; move its vertices by "
            f"({-x:.3g}, {-y:.3g}, {-z:.3g}) cm."
        )


def _check_shape(head: Tensor, mean: Tensor) -> None:
    """Lay the head over the mean head by the best rotation and scale (Umeyama 1991), and look at what remains."""
    centred, target = head - head.mean(0), mean - mean.mean(0)
    u, strengths, vh = torch.linalg.svd(target.T @ centred)
    handedness = torch.ones(3, dtype=head.dtype)
    handedness[2] = torch.linalg.det(u @ vh).sign()
    rotation = u @ torch.diag(handedness) @ vh
    scale = float((strengths * handedness).sum() / centred.square().sum())
    difference = _radius(scale * centred @ rotation.T - target) / _radius(mean)
    if difference > MAX_DIFFERENCE:
        raise ImpossibleHeadError(
            f"The vertices are no head of this mesh (they differ from the mean head by {difference:.2f} of its size "
            f"and at most {MAX_DIFFERENCE:g} is a person), as if in another order or mirrored; {_REMEDY}."
        )
    turn_deg = math.degrees(math.acos(min(1.0, max(-1.0, (float(rotation.trace()) - 1) / 2))))
    if turn_deg > MAX_TURN_DEG:
        raise ImpossibleHeadError(
            f"The head is turned by {turn_deg:.0f} degrees, as if it lay on its back or looked away; turn it upright, "
            "facing the viewer (x to the right of the picture, y up, z to the viewer)."
        )
