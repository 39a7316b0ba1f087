"""The face crop of the authors' released checkpoint: five points laid on the FFHQ template, 512 pixels, grey outside.

Nothing here is cleverer than the crop that checkpoint was trained with: the photo is first shrunk to 1024 pixels, the
two eyes, nose tip and mouth corners are brought onto the template by the similarity with the least median of squares
(so a nose that a turn of the head moves aside does not tilt the crop), and pixels are sampled bilinearly.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CROP_SIZE = 512
LONGEST_SIDE = 1024
# facexlib's template, in pixels of the crop: the subject's right eye (the picture's left) first.
FFHQ_TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)
_GREY = (132, 133, 135)


def ffhq_crop(photo: NDArray[np.uint8], points: Tensor) -> NDArray[np.uint8]:
    """Cut the face out of a photo.

    Args:
        photo: RGB (H,W,3).
        points: (5,2) pixels as `fantasyid.face.align.five_points` gives them; not all in one place.

    Returns:
        RGB (512,512,3).
    """
    height, width = photo.shape[:2]
    source = points.double().cpu().numpy()
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        size = (int(width * LONGEST_SIDE / longest), int(height * LONGEST_SIDE / longest))
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_LANCZOS4), dtype=np.uint8)
        source = source * (size[0] / width, size[1] / height)
    affine, _ = cv2.estimateAffinePartial2D(source, np.array(FFHQ_TEMPLATE), method=cv2.LMEDS)
    crop = cv2.warpAffine(photo, affine, (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_CONSTANT, borderValue=_GREY)
    return np.asarray(crop, dtype=np.uint8)
