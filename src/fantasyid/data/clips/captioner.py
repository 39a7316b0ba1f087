"""A caption for a clip that nobody described, of what was measured of it."""

import numpy as np

from fantasyid.data.captions import caption, subject
from fantasyid.data.dataset.rows import Candidate

# Degrees by which a head must have turned between the first and the last third, or be turned all the time, to be told.
_TURN_DEG, _ASIDE_DEG = 10.0, 20.0
# What a rise of an angle is called, and what a fall.
_CHANGES = {
    "yaw_deg": ("turns the head to the right", "turns the head to the left"),
    "pitch_deg": ("looks down", "looks up"),
    "roll_deg": ("tilts the head to the left", "tilts the head to the right"),
}


def measured_caption(candidate: Candidate) -> str:
    """One sentence, in the wording of the re-posed clips' captions.

    Args:
        candidate: One with a face.
    """
    actions = []
    for name, (rises, falls) in _CHANGES.items():
        angles = np.array(getattr(candidate, name))
        third = max(1, len(angles) // 3)
        change = angles[-third:].mean() - angles[:third].mean()
        if abs(change) >= _TURN_DEG:
            actions.append(rises if change > 0 else falls)
    if not actions:
        yaw = float(np.mean(candidate.yaw_deg))
        still = "faces right" if yaw > 0 else "faces left"
        actions = [still if abs(yaw) >= _ASIDE_DEG else "looks at the camera"]
    return caption(subject(0, 0), actions)
