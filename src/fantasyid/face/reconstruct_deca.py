"""The paper's 3D head (3.3): DECA's encoder and FLAME, from files that the user brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import Tensor

from fantasyid.core.errors import MissingWeightsError
from fantasyid.face.align import five_points
from fantasyid.face.pose import pose_of_rotation
from fantasyid.face.types import ReconstructedHead
from fantasyid.geometry.flame import DEFAULT_FOLDER, JOINT_NAMES, FlameModel, PosedHeads, axis_angle_matrix
from fantasyid.geometry.flame import REMEDY as FLAME_REMEDY
from fantasyid.geometry.head_model import LANDMARKS_478_TO_68
from fantasyid.models.deca_encoder import CROP_SIZE, DecaCode, DecaEncoder
from fantasyid.models.deca_encoder import REMEDY as DECA_REMEDY

Crop = Literal["face", "squeeze"]

CM_PER_METRE = 100.0
# DECA's frame around 68 landmarks: a square of 1.1 times the mean of their box's sides, widened by 1.25.
_BOX_SCALE, _FRAME_SCALE = 1.1, 1.25


@dataclass(frozen=True)
class DecaFiles:
    """Where the user's files are.

    Attributes:
        flame: FLAME 2020's `generic_model.pkl`: DECA's coefficients belong to its bases, not to those of 2023.
        deca: `deca_model.tar`.
    """

    flame: Path
    deca: Path

    @classmethod
    def in_folder(cls, folder: Path = DEFAULT_FOLDER) -> DecaFiles:
        """Both files in one folder, under the names they are published with; whether they exist is not asked."""
        folder = Path(folder).expanduser()
        return cls(flame=folder / "generic_model.pkl", deca=folder / "deca_model.tar")

    def check(self, parts: Sequence[Literal["flame", "deca"]] = ("flame", "deca")) -> None:
        """Refuse, in one message, whatever is not there.

        Args:
            parts: Which of the files to look for.

        Raises:
            MissingWeightsError: A file is not there; the error says of each where to get it and on which terms.
        """
        remedies = {"flame": (self.flame, FLAME_REMEDY), "deca": (self.deca, DECA_REMEDY)}
        wanted = [remedies[part] for part in parts]
        problems = [f"There is no file {path}; {remedy}" for path, remedy in wanted if not path.is_file()]
        if problems:
            raise MissingWeightsError(". ".join(problems))


class DecaReconstructor:
    """Reads FLAME's coefficients from the photo in one pass and keeps the shape alone.

    Heads are FLAME's: its mesh of 5023 vertices and its origin inside the head, scaled from metres to cm.

    Args:
        encoder: DECA's encoder.
        flame: FLAME 2020.
        crop: What the encoder sees. `"face"`: the square around the landmarks that DECA was trained on, black where the
            photo ends. `"squeeze"`: the whole photo pressed into a square, as the authors of the released checkpoint
            did for its point clouds; right only where a face fills a square photo.
        keep_expression_and_pose: Leave the head as the photo shows it instead of neutral. The clouds that the released
            checkpoint was made with are like this.
    """

    def __init__(
        self,
        encoder: DecaEncoder,
        flame: FlameModel,
        crop: Crop = "face",
        keep_expression_and_pose: bool = False,
    ) -> None:
        self._encoder = encoder
        self._flame = flame
        self._crop = crop
        self._keep = keep_expression_and_pose
        self._topology_hash = flame.topology.hash

    @classmethod
    def load(
        cls, files: DecaFiles | None = None, crop: Crop | None = None, keep_expression_and_pose: bool = False
    ) -> DecaReconstructor:
        """Read the files.

        Args:
            files: Where they are; None takes `~/.cache/fantasyid/deca`.
            crop: As in the class; None takes the authors' `"squeeze"` where expression and pose are kept, as in their
                clouds, and else `"face"`.
            keep_expression_and_pose: As in the class.

        Raises:
            MissingWeightsError: A file is not there; the error says where to get it and on which terms.
            CorruptWeightsError: A file is damaged or something else.
        """
        files = DecaFiles.in_folder() if files is None else files
        if crop is None:
            crop = "squeeze" if keep_expression_and_pose else "face"
        files.check()
        flame = FlameModel.load(files.flame)
        return cls(DecaEncoder.load(files.deca), flame, crop, keep_expression_and_pose)

    def reconstruct(self, photo: NDArray[np.uint8], landmarks: Tensor) -> ReconstructedHead:
        """Reconstruct the head.

        Args:
            photo: RGB (H,W,3).
            landmarks: (478,3) pixels of the photo.

        Returns:
            The head in cm, neutral unless the class was told otherwise; the pose and expression in the photo. Its
            `error_cm` is the mean distance, across the line of sight, of FLAME's eyeballs from the landmarks' eyes.
        """
        frame = self._frame(photo, landmarks)
        code, posed = self._read(frame)
        vertices = posed.vertices if self._keep else self._flame.shaped(code.shape)
        return ReconstructedHead(
            vertices=vertices[0] * CM_PER_METRE,
            topology_hash=self._topology_hash,
            pose=pose_of_rotation(axis_angle_matrix(code.pose[0, :3])),
            expression=code.expression[0],
            error_cm=_eye_error_cm(frame, code, posed, landmarks),
        )

    def _frame(self, photo: NDArray[np.uint8], landmarks: Tensor) -> _Frame:
        return _squeezed(photo) if self._crop == "squeeze" else _face_frame(photo, landmarks)

    @torch.no_grad()
    def _read(self, frame: _Frame) -> tuple[DecaCode, PosedHeads]:
        code = self._encoder(frame.picture)
        rotations = code.pose.new_zeros(1, len(JOINT_NAMES), 3)
        rotations[:, JOINT_NAMES.index("root")] = code.pose[:, :3]
        rotations[:, JOINT_NAMES.index("jaw")] = code.pose[:, 3:]
        return code, self._flame.posed(code.shape, code.expression, rotations)


@dataclass(frozen=True, eq=False)
class _Frame:
    """What the encoder sees (1, 3, 224, 224), and where its left upper corner and extent (x, y) are in the photo."""

    picture: Tensor
    corner: Tensor
    extent: Tensor


def _squeezed(photo: NDArray[np.uint8]) -> _Frame:
    small = np.asarray(Image.fromarray(photo).resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BILINEAR))
    height, width = photo.shape[:2]
    picture = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
    return _Frame(picture, torch.zeros(2), torch.tensor([float(width), float(height)]))


def _face_frame(photo: NDArray[np.uint8], landmarks: Tensor) -> _Frame:
    """DECA's own frame. It counts whole pixels where we count their edges, hence the halves."""
    points = landmarks[list(LANDMARKS_478_TO_68), :2].double().cpu().numpy() - 0.5
    low, high = points.min(0), points.max(0)
    side = int((high - low).mean() * _BOX_SCALE * _FRAME_SCALE)
    steps = np.arange(CROP_SIZE) * side / (CROP_SIZE - 1) - side / 2
    centre = (low + high) / 2
    rows, columns = np.meshgrid(centre[1] + steps, centre[0] + steps, indexing="ij")
    picture = np.stack(
        [
            map_coordinates(photo[..., channel], (rows, columns), np.float64, order=1, mode="grid-constant")
            for channel in range(3)
        ]
    )
    corner = torch.from_numpy(centre - side / 2 + 0.5).float()
    extent = torch.full((2,), side * CROP_SIZE / (CROP_SIZE - 1))
    return _Frame(torch.from_numpy(picture / 255).float()[None], corner, extent)


def _eye_error_cm(frame: _Frame, code: DecaCode, posed: PosedHeads, landmarks: Tensor) -> float:
    eyes = posed.joints[0, [JOINT_NAMES.index("eye_right"), JOINT_NAMES.index("eye_left")], :2]
    seen = (five_points(landmarks[None, :, :2])[0, :2].cpu() - frame.corner) / frame.extent * 2 - 1
    scale, shift = code.camera[0, 0], code.camera[0, 1:]
    flipped = seen * seen.new_tensor([1.0, -1.0])
    return float((flipped / scale - shift - eyes).norm(dim=1).mean()) * CM_PER_METRE
