"""DECA with FLAME as a backend: the right crop, the right part of the code, and our conventions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import SimilarityTransform, estimate_transform, warp
from torch import Tensor, nn

from fantasyid.conditioning.identity import read_identity
from fantasyid.core.errors import ExtremeProfileError, MissingWeightsError
from fantasyid.face.align import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS
from fantasyid.face.reader import FaceReader
from fantasyid.face.reconstruct_deca import Crop, DecaFiles, DecaReconstructor
from fantasyid.face.registry import reader_backends
from fantasyid.geometry.flame import JOINT_NAMES, FlameModel
from fantasyid.geometry.head_model import LANDMARKS_478_TO_68, HeadModel
from fantasyid.models.deca_encoder import DecaEncoder
from tests.flame_files import NUM_VERTICES, deca_state, write_deca, write_flame_2020
from tests.tiny import seeded
from tests.unit.face.faces import average_face_model, head_landmarks, plausible_landmarks, portrait

CAMERA = (5.0, 0.01, -0.02)


@pytest.fixture(scope="module")
def flame(tmp_path_factory: pytest.TempPathFactory) -> FlameModel:
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    write_flame_2020(path)
    return FlameModel.load(path)


@pytest.fixture(scope="module")
def encoder() -> DecaEncoder:
    encoder: DecaEncoder = seeded(DecaEncoder)
    return encoder.eval()


def random_code(yaw_deg: float = 20.0) -> Tensor:
    """Numbers as DECA gives them, for a head turned to the right of the picture, with an open mouth."""
    code = torch.rand(236, generator=torch.Generator().manual_seed(2)) * 2 - 1
    code[200:209] = torch.tensor([0.0, math.radians(yaw_deg), 0.0, 0.3, 0.0, 0.0, *CAMERA])
    return code


@pytest.fixture
def sees(encoder: DecaEncoder, monkeypatch: pytest.MonkeyPatch):
    """Let the encoder see one code in every crop: its last layer becomes a constant."""

    def see(code: Tensor) -> DecaEncoder:
        constant = nn.Linear(1024, 236)
        nn.init.zeros_(constant.weight)
        constant.bias = nn.Parameter(code)
        monkeypatch.setitem(encoder.layers._modules, "2", constant)
        return encoder

    return see


def face_landmarks(centre: tuple[float, float] = (150.0, 130.0)) -> Tensor:
    return torch.nn.functional.pad(plausible_landmarks(110, centre)[0], (0, 1))


def photo(width: int = 320, height: int = 240) -> np.ndarray:
    return np.asarray(Image.fromarray(portrait()).resize((width, height)))


def deca_frame(landmarks: Tensor) -> tuple[np.ndarray, int]:
    """Centre and side of DECA's crop, in whole pixels as DECA counts them."""
    points = landmarks[list(LANDMARKS_478_TO_68), :2].double().numpy() - 0.5
    (left, top), (right, bottom) = points.min(0), points.max(0)
    side = int((right - left + bottom - top) / 2 * 1.1 * 1.25)
    return np.array([right - (right - left) / 2, bottom - (bottom - top) / 2]), side


def deca_transform(landmarks: Tensor) -> SimilarityTransform:
    (x, y), side = deca_frame(landmarks)
    low, high = -side / 2, side / 2
    source = np.array([[x + low, y + low], [x + low, y + high], [x + high, y + low]])
    return estimate_transform("similarity", source, np.array([[0, 0], [0, 223], [223, 0]]))


@pytest.mark.parametrize("centre", [(150.0, 130.0), (20.0, 10.0)])
def test_face_crop_is_decas_own(encoder: DecaEncoder, flame: FlameModel, centre: tuple[float, float]) -> None:
    landmarks = face_landmarks(centre)
    theirs = warp(photo() / 255.0, deca_transform(landmarks).inverse, output_shape=(224, 224))
    crop = torch.from_numpy(theirs.transpose(2, 0, 1)).float()[None]
    seen = DecaReconstructor(encoder, flame).reconstruct(photo(), landmarks).expression
    torch.testing.assert_close(seen, encoder(crop).expression[0], atol=1e-6, rtol=0)
    elsewhere = DecaReconstructor(encoder, flame).reconstruct(photo(), face_landmarks((150.5, 130))).expression
    assert (seen - elsewhere).abs().max() > 1e-5


def test_squeezed_crop_is_the_whole_photo_whatever_the_landmarks(encoder: DecaEncoder, flame: FlameModel) -> None:
    pixels = np.asarray(Image.fromarray(photo()).resize((224, 224), Image.Resampling.BILINEAR))
    code = encoder(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
    reconstructor = DecaReconstructor(encoder, flame, crop="squeeze", keep_expression_and_pose=True)
    assert torch.equal(reconstructor.reconstruct(photo(), face_landmarks()).expression, code.expression[0])
    here, elsewhere = (
        reconstructor.reconstruct(photo(), face_landmarks(centre)) for centre in ((150.0, 130.0), (90.0, 90.0))
    )
    assert torch.equal(here.vertices, elsewhere.vertices)


def test_head_is_neutral_unless_told_otherwise(sees, flame: FlameModel) -> None:
    code = random_code()
    encoder = sees(code)
    neutral = DecaReconstructor(encoder, flame).reconstruct(photo(), face_landmarks())
    torch.testing.assert_close(neutral.vertices, flame.shaped(code[None, :100])[0] * 100)
    assert neutral.topology_hash == flame.topology.hash

    rotations = torch.zeros(1, 5, 3)
    rotations[:, [JOINT_NAMES.index("root"), JOINT_NAMES.index("jaw")]] = code[200:206].view(1, 2, 3)
    posed = flame.posed(code[None, :100], code[None, 150:200], rotations).vertices[0]
    kept = DecaReconstructor(encoder, flame, keep_expression_and_pose=True)
    head = kept.reconstruct(photo(), face_landmarks())
    assert torch.equal(head.vertices, posed * 100)
    assert (head.vertices - neutral.vertices).abs().mean() > 0.5
    for reading in (neutral, head):
        torch.testing.assert_close(reading.expression, code[150:200])


def test_pose_follows_our_signs(sees, flame: FlameModel) -> None:
    for angle, name in enumerate(("pitch_deg", "yaw_deg", "roll_deg")):
        code = random_code(0.0)
        code[200 + angle] = math.radians(25)
        pose = DecaReconstructor(sees(code), flame).reconstruct(photo(), face_landmarks()).pose
        for other in ("pitch_deg", "yaw_deg", "roll_deg"):
            assert getattr(pose, other) == pytest.approx(25 if other == name else 0, abs=1e-3)


@pytest.mark.parametrize("crop", ["face", "squeeze"])
def test_error_is_the_distance_from_eyes_to_eyes(sees, flame: FlameModel, crop: Crop) -> None:
    code = random_code()
    rotations = torch.zeros(1, 5, 3)
    rotations[:, [JOINT_NAMES.index("root"), JOINT_NAMES.index("jaw")]] = code[200:206].view(1, 2, 3)
    joints = flame.posed(code[None, :100], code[None, 150:200], rotations).joints[0]
    landmarks = face_landmarks()
    scale, shift_x, shift_y = CAMERA
    inverse = deca_transform(landmarks).inverse
    for name, corners in (("eye_right", RIGHT_EYE_CORNERS), ("eye_left", LEFT_EYE_CORNERS)):
        x, y = joints[JOINT_NAMES.index(name), :2].tolist()
        place = np.array([scale * (x + shift_x) + 1, -scale * (y + shift_y) + 1]) * 112
        seen = place / 224 * np.array([320, 240]) if crop == "squeeze" else inverse(place)[0] + 0.5
        landmarks[list(corners), :2] = torch.tensor(seen, dtype=torch.float32)
    reconstructor = DecaReconstructor(sees(code), flame, crop=crop)
    assert reconstructor.reconstruct(photo(), landmarks).error_cm < 1e-3
    # The frame does not change by the lids, so a camera shifted by 2 cm is 2 cm wrong.
    code[207] += 0.02
    assert DecaReconstructor(sees(code), flame, crop=crop).reconstruct(photo(), landmarks).error_cm == pytest.approx(2)


def test_face_reader_reads_a_photo_with_it(sees, flame: FlameModel) -> None:
    head = HeadModel.load()
    reconstructor = DecaReconstructor(sees(random_code()), flame)
    reader = FaceReader(average_face_model(head_landmarks(head)), reconstructor=reconstructor)
    inputs, reading = read_identity(portrait(), reader)
    assert inputs.vertices.shape == (1, NUM_VERTICES, 3)
    assert inputs.topology_hash == flame.topology.hash != head.topology.hash
    torch.testing.assert_close(inputs.vertices[0], flame.shaped(random_code()[None, :100])[0] * 100)
    assert reading.head.pose.yaw_deg == pytest.approx(20, abs=1e-3)
    sees(random_code(yaw_deg=60.0))
    with pytest.raises(ExtremeProfileError, match="60 degrees"):
        reader.read(portrait())


def test_files_are_loaded_from_their_folder_or_named(tmp_path: Path, flame: FlameModel) -> None:
    files = DecaFiles.in_folder(tmp_path)
    with pytest.raises(MissingWeightsError, match=r"generic_model\.pkl"):
        DecaReconstructor.load(files)
    write_flame_2020(files.flame)
    with pytest.raises(MissingWeightsError, match=r"deca_model\.tar"):
        DecaReconstructor.load(files)
    write_deca(files.deca, deca_state())
    head = DecaReconstructor.load(files).reconstruct(photo(), face_landmarks())
    assert head.topology_hash == flame.topology.hash
    _, neutral = reader_backends("deca", tmp_path)
    _, as_seen = reader_backends("deca", tmp_path, keep_expression_and_pose=True)
    authors = DecaReconstructor.load(files, crop="squeeze", keep_expression_and_pose=True)
    for made, wanted in ((neutral, head), (as_seen, authors.reconstruct(photo(), face_landmarks()))):
        assert made is not None
        assert torch.equal(made.reconstruct(photo(), face_landmarks()).vertices, wanted.vertices)
    files.deca.unlink()
