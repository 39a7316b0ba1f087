"""The named edits of a head: what each one does, by how much, and through which landmarks (paper Figure 4).

Landmarks are MediaPipe's; displacements are in head space: cm, x to the subject's left, y up, z to the viewer. Ranges
are about two standard deviations of adults. Needs no library, so that the command line lists the edits at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fantasyid.core.errors import InvalidRequestError

# Held in place by the edits around them: the lids of the subject's left eye, and the midline of the profile.
EYE = (263, 362, 386, 374, 385, 380, 398, 466)
_BROW = (285, 334, 300)
_LIPS = (0, 17, 13, 14, 270, 321, 291)


@dataclass(frozen=True)
class HeadEdit:
    """One way to change a head.

    Attributes:
        name: As typed, such as `face-width`.
        effect: What positive and negative strengths do.
        change_cm: How much the measure grows at strength 1.
        measured: What is measured, in words.
        measure: Two MediaPipe landmarks and an axis: the first one's coordinate minus the second's.
        moves: Displacement in cm at strength 1 of landmarks on the midline or on the subject's left (x > 0).
        pins: Landmarks of the same half that stay where they are.
        reach_cm: Distance from these landmarks beyond which nothing moves.
    """

    name: str
    effect: str
    change_cm: float
    measured: str
    measure: tuple[int, int, str]
    moves: Mapping[int, tuple[float, float, float]]
    pins: tuple[int, ...]
    reach_cm: float


EDITS = (
    HeadEdit(
        name="face-width",
        effect="wider (+) or narrower (-) between the cheekbones, jaw angles and temples included",
        change_cm=1.2,
        measured="width between the cheekbones",
        measure=(454, 234, "x"),
        moves={
            454: (0.6, 0, 0),
            323: (0.6, 0, 0),
            361: (0.6, 0, 0),
            288: (0.55, 0, 0),
            397: (0.5, 0, 0),
            365: (0.3, 0, 0),
            389: (0.5, 0, 0),
            251: (0.4, 0, 0),
            345: (0.5, 0, 0),
            352: (0.45, 0, 0),
            376: (0.45, 0, 0),
            280: (0.25, 0, 0),
            411: (0.3, 0, 0),
        },
        pins=(*EYE, *_BROW, *_LIPS, 278, 266, 330, 152, 378, 168, 1, 10, 332),
        reach_cm=6.0,
    ),
    HeadEdit(
        name="jaw-sharpness",
        effect="jawline tapered to a firm, pointed chin (+) or broad and rounded (-)",
        change_cm=-1.4,
        measured="width of the jaw beside the chin",
        measure=(379, 150, "x"),
        moves={
            397: (-0.25, 0, 0),
            365: (-0.55, 0.1, 0),
            379: (-0.7, 0.1, 0),
            378: (-0.5, 0, 0.05),
            400: (-0.35, 0, 0.1),
            395: (-0.5, 0, 0.05),
            394: (-0.65, 0.05, 0),
            364: (-0.4, 0, 0),
            430: (-0.3, 0, 0),
            369: (-0.3, 0, 0.1),
            152: (0, -0.1, 0.15),
            175: (0, -0.1, 0.15),
        },
        pins=(*_LIPS, 18, 288, 361, 454, 280, 411, 278, 2),
        reach_cm=4.5,
    ),
    HeadEdit(
        name="chin-length",
        effect="longer (+) or shorter (-) from the lower lip to the tip of the chin",
        change_cm=0.8,
        measured="lower lip to tip of the chin",
        measure=(17, 152, "y"),
        moves={
            152: (0, -0.8, 0),
            175: (0, -0.8, 0),
            199: (0, -0.6, 0),
            200: (0, -0.45, 0),
            428: (0, -0.5, 0),
            369: (0, -0.75, 0),
            377: (0, -0.8, 0),
            400: (0, -0.75, 0),
            378: (0, -0.65, 0),
            379: (0, -0.4, 0),
            395: (0, -0.45, 0),
            365: (0, -0.25, 0),
        },
        pins=(*_LIPS, 18, 288, 361, 434, 432, 280, 2),
        reach_cm=4.5,
    ),
    HeadEdit(
        name="cheekbones",
        effect="cheekbones more (+) or less (-) prominent, to the side and forwards",
        change_cm=0.8,
        measured="width between the cheekbones' fronts",
        measure=(346, 117, "x"),
        moves={346: (0.4, 0, 0.3), 345: (0.3, 0, 0.2), 280: (0.25, 0, 0.25), 352: (0.15, 0, 0.1)},
        pins=(*EYE, *_BROW, *_LIPS, 454, 323, 389, 376, 411, 425, 266, 278, 330),
        reach_cm=3.5,
    ),
    HeadEdit(
        name="nose-width",
        effect="nostrils wider (+) or narrower (-) apart",
        change_cm=0.8,
        measured="width of the nose",
        measure=(278, 48, "x"),
        moves={278: (0.4, 0, 0), 294: (0.4, 0, 0), 358: (0.4, 0, 0), 327: (0.3, 0, 0)},
        pins=(*EYE, *_LIPS, 1, 4, 2, 5, 195, 425, 266, 280),
        reach_cm=2.5,
    ),
    HeadEdit(
        name="nose-length",
        effect="nose longer (+) or shorter (-), its tip lower or higher",
        change_cm=0.6,
        measured="bridge to tip of the nose",
        measure=(168, 1, "y"),
        moves={
            1: (0, -0.6, 0),
            4: (0, -0.6, 0),
            2: (0, -0.5, 0),
            5: (0, -0.45, 0),
            195: (0, -0.3, 0),
            197: (0, -0.15, 0),
            278: (0, -0.45, 0),
            294: (0, -0.45, 0),
            327: (0, -0.45, 0),
        },
        pins=(*EYE, *_LIPS, 6, 168, 425, 266, 330),
        reach_cm=3.0,
    ),
    HeadEdit(
        name="eye-spacing",
        effect="eyes further (+) apart or closer (-) together, with lids and brows",
        change_cm=0.6,
        measured="distance of the eyes",
        measure=(386, 159, "x"),
        moves={
            **dict.fromkeys((*EYE, 253, 256, 387, 373, 384, 381, 390, 388), (0.3, 0, 0)),
            **dict.fromkeys((285, 336, 296, 334, 293), (0.3, 0, 0)),
            300: (0.15, 0, 0),
        },
        pins=(454, 389, 251, 10, 332, 280, 425, 278, 1, 4, 5, 195, 197, 6, 168, 9),
        reach_cm=3.5,
    ),
    HeadEdit(
        name="lip-fullness",
        effect="lips fuller (+) or thinner (-), the mouth as wide as before",
        change_cm=0.5,
        measured="height of the lips",
        measure=(0, 17, "y"),
        moves={
            0: (0, 0.2, 0.12),
            267: (0, 0.2, 0.12),
            269: (0, 0.18, 0.1),
            270: (0, 0.12, 0.06),
            17: (0, -0.3, 0.12),
            314: (0, -0.3, 0.12),
            405: (0, -0.25, 0.1),
            321: (0, -0.15, 0.06),
            13: (0, 0, 0.08),
            14: (0, 0, 0.08),
            312: (0, 0, 0.08),
            317: (0, 0, 0.08),
            311: (0, 0, 0.06),
            402: (0, 0, 0.06),
        },
        pins=(291, 2, 327, 18, 200, 425, 432, 422),
        reach_cm=1.8,
    ),
)
EDIT_NAMES = tuple(edit.name for edit in EDITS)


def check_strengths(strengths: Mapping[str, float]) -> None:
    """Refuse unknown names and strengths out of range.

    Raises:
        InvalidRequestError: The message names the value and what is allowed.
    """
    for name, strength in strengths.items():
        if name not in EDIT_NAMES:
            raise InvalidRequestError(f"There is no edit {name!r}; there are {', '.join(EDIT_NAMES)}.")
        if not -1 <= strength <= 1:
            raise InvalidRequestError(f"The edit {name} is {strength:g}; its strength must lie between -1 and 1.")
