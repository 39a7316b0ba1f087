"""Portrait photos -> one file of rigs for `repose.render`.

Needs the extra `build` (MediaPipe's person segmentation). DIR holds `manifest.csv` (with sex, age_decade, tier, source
and yaw_deg) and `landmarks.npz`, see `core.portraits`, and the photos. Takes about 0.35 s a photo on one core. Photos
that cannot be re-posed well are left out and counted by reason.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.core.errors import InvalidRequestError, UnreadablePhotoError
from fantasyid.core.id_files import read_ids
from fantasyid.core.old_commands import tell_new_command
from fantasyid.core.optional import require
from fantasyid.core.portraits import SEX_CODES, read_landmarks, read_portraits
from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN
from fantasyid.face.align import portrait_transform, transform_points, warp
from fantasyid.geometry.fitting import fit_landmarks
from fantasyid.geometry.head_model import HeadModel

MAX_YAW_DEG = 25.0
MAX_FIT_ERROR_CM = 0.15
MAX_OUTSIDE = 0.1  # share of the portrait frame that lies beyond the photo's edge
_UNIT = CANVAS / 256  # canvas pixels in which blurs below are given


def prepare(
    portraits: Path,
    out: Path,
    split: str,
    limit: int | None = None,
    leave_out: Path | None = None,
    only: Path | None = None,
) -> Counter[str]:
    """Write the rigs of a split; returns how many photos were left out, by reason.

    Raises:
        FantasyIDError: There is no photo to take, one cannot be read, or MediaPipe is not installed.
    """
    unwanted = set() if leave_out is None else read_ids(leave_out)
    wanted = None if only is None else read_ids(only)
    asked = read_portraits(portraits / "manifest.csv", ("sex", "age_decade", "tier", "source", "yaw_deg"))
    chosen = [portrait for portrait in asked if portrait.split == split and portrait.person not in unwanted]
    chosen = [portrait for portrait in chosen if wanted is None or portrait.person in wanted][:limit]
    if not chosen:
        raise InvalidRequestError(
            f"{portraits / 'manifest.csv'} has no photo of the split {split} and the people asked for; ask for others."
        )
    landmarks = read_landmarks(portraits / "landmarks.npz", chosen)
    head, segment = HeadModel.load(), _segmenter()
    left_out: Counter[str] = Counter()
    people: dict[str, list[dict[str, Any]]] = {}
    for row, points in zip((portrait.model_dump() for portrait in chosen), landmarks, strict=True):
        if abs(float(row["yaw_deg"])) > MAX_YAW_DEG:
            left_out["turned too far"] += 1
            continue
        canvas = _canvas(portraits / row["file"], points, segment)
        if canvas is None:
            left_out["frame beyond the photo's edge"] += 1
            continue
        people.setdefault(row["person"], []).append(canvas | {"row": row})
    photos: list[dict[str, Any]] = []
    for person, theirs in enumerate(people.values()):
        fit = fit_landmarks(head, np.stack([photo["landmarks"] for photo in theirs]))
        kept = [k for k in range(len(theirs)) if fit.error_cm[k] <= MAX_FIT_ERROR_CM]
        left_out["poor fit"] += len(theirs) - len(kept)
        for place, k in enumerate(kept):
            fitted = {
                "identity": fit.identity,
                "expression": fit.expression[k],
                "scale": fit.scale[k],
                "rotation": fit.rotation[k],
                "translation": fit.translation[k],
            }
            arrays = {name: np.asarray(value, np.float32) for name, value in fitted.items()}
            other = len(photos) + (len(kept) - 1 - 2 * place)
            photos.append(theirs[k] | arrays | {"person": person, "other": other})
    if not photos:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise InvalidRequestError(f"No photo of {portraits} can be re-posed ({reasons}); add other photos.")
    _save(out, photos, head)
    return +left_out


def _canvas(path: Path, landmarks: NDArray[np.float32], segment: Any) -> dict[str, Any] | None:
    """Cut the canvas of one photo and separate person and background in it; None where too much is not in the photo.

    What the canvas shows beyond the photo's edge is the photo mirrored there.
    """
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise UnreadablePhotoError(
            f"{path} cannot be read as an image; restore it or take its row out of the manifest."
        )
    points = torch.from_numpy(landmarks)[None]
    frame = portrait_transform(points[..., :2])
    if _outside(frame, bgr.shape[1], bgr.shape[0]) > MAX_OUTSIDE:
        return None
    margin = max(bgr.shape[:2]) // 2
    mirrored = cv2.copyMakeBorder(bgr, margin, margin, margin, margin, cv2.BORDER_REFLECT)
    photo = torch.from_numpy(mirrored[..., ::-1].transpose(2, 0, 1).copy())[None].float()
    centre = frame[:, :, 2] + frame[:, :, :2].sum(-1) / 2
    linear = frame[:, :, :2] * CANVAS_MARGIN
    canvas_frame = torch.cat([linear, (centre - linear.sum(-1) / 2)[..., None]], -1)
    on_mirrored = torch.cat([linear, canvas_frame[..., 2:] + margin], -1)
    canvas = warp(photo, on_mirrored, CANVAS)[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    on_canvas = transform_points(points, canvas_frame, CANVAS)[0].numpy() - np.array([0.5, 0.5, 0], np.float32)
    mask = np.clip((segment(canvas) - 0.35) / 0.4, 0, 1).astype(np.float32)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.0 * _UNIT)
    alpha = (mask * 255).astype(np.uint8)
    return {"image": canvas, "alpha": alpha, "backdrop": _behind(canvas, mask), "landmarks": on_canvas}


def _outside(frame: Tensor, width: int, height: int) -> float:
    """Share of the crop `frame` (1, 2, 3) that lies outside a photo."""
    line = torch.linspace(0, 1, 41)
    v, u = torch.meshgrid(line, line, indexing="ij")
    x, y = (torch.stack([u, v, torch.ones_like(u)], -1) @ frame[0].T).unbind(-1)
    return float(((x < 0) | (x > width) | (y < 0) | (y > height)).float().mean())


def _behind(canvas: NDArray[np.uint8], mask: NDArray[np.float32], size: int = 64) -> NDArray[np.uint8]:
    """The background at low resolution, with the person painted away."""
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    person = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) > 0.03
    hole = cv2.dilate(person.astype(np.uint8), np.ones((5, 5)))
    if hole.all():
        hole[0] = 0
    painted = cv2.inpaint(small, hole, 4, cv2.INPAINT_TELEA)
    return np.asarray(cv2.GaussianBlur(painted, (0, 0), 1.3), np.uint8)


def _segmenter() -> Any:
    """A function from (H, W, 3) uint8 RGB to the person's probability (H, W)."""
    mediapipe = require("mediapipe", "build", "separate people from backgrounds")
    model = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    return lambda picture: model.process(picture).segmentation_mask


def _weight(row: dict[str, str]) -> float:
    """Sample women, the varied portraits and the sharp tier more often, against the set's leaning."""
    varied = 2.0 if "interfaces" in row["source"] else 1.0
    return varied * (2.5 if row["tier"] == "1" else 1.0) * (4.0 if row["sex"] == "female" else 1.0)


def _save(out: Path, photos: list[dict[str, Any]], head: HeadModel) -> None:
    fields: dict[str, Any] = {}  # of arrays; a narrower type does not pass through savez
    for name, quality in (("image", 92), ("alpha", 80), ("backdrop", 90)):
        pictures = [photo[name] if photo[name].ndim == 2 else photo[name][..., ::-1] for photo in photos]
        parameters = [cv2.IMWRITE_WEBP_QUALITY, quality]
        encoded = [cv2.imencode(".webp", picture, parameters)[1].reshape(-1) for picture in pictures]
        fields[name] = np.concatenate(encoded)
        fields[f"{name}_end"] = np.cumsum([len(data) for data in encoded])
    for name in ("identity", "expression", "scale", "rotation", "translation", "landmarks"):
        fields[name] = np.stack([photo[name] for photo in photos])
    fields["person"] = np.array([photo["person"] for photo in photos])
    fields["other"] = np.array([photo["other"] for photo in photos])
    fields["sex"] = np.array([SEX_CODES[photo["row"]["sex"]] for photo in photos])
    fields["decade"] = np.array([int(photo["row"]["age_decade"] or 0) for photo in photos])
    fields["weight"] = np.array([_weight(photo["row"]) for photo in photos], np.float32)
    fields["head"] = np.array(head.coefficients_hash)
    fields["ids"] = np.array([photo["row"]["id"] for photo in photos])
    partial = out.with_name(f".{out.name}.partial.npz")
    np.savez(partial, **fields)
    partial.replace(out)


if __name__ == "__main__":
    tell_new_command("fantasyid.data.repose.prepare", "fantasyid data rigs")
