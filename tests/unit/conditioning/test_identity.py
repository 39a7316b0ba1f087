import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.conditioning.identity import (
    IdentityInputs,
    IdentityPreparation,
    prepare_identity,
    read_identity,
)
from fantasyid.core.errors import NoFaceError
from fantasyid.core.imaging import to_tensor
from fantasyid.face.align import (
    FACE_TEMPLATE,
    PORTRAIT_SIZE,
    beyond_edge,
    face_transform,
    five_points,
    portrait_transform,
    warp,
)
from fantasyid.face.ffhq import ffhq_crop
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.head_model import HeadModel
from tests.unit.face.faces import average_face_model, head_landmarks, plausible_landmarks, portrait


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(average_face_model(head_landmarks(HeadModel.load())))


def inputs_of_two(dtype: torch.dtype = torch.float32) -> IdentityInputs:
    photos = torch.rand(2, 3, 300, 320, generator=torch.Generator().manual_seed(0)).to(dtype) * 2 - 1
    landmarks = torch.cat([plausible_landmarks(150, (160, 150)), plausible_landmarks(60, (90, 100), roll_deg=15)])
    return prepare_identity(photos, landmarks, torch.ones(2, 60, 3), "mesh")


def test_shapes_and_range() -> None:
    inputs = inputs_of_two()
    assert inputs.reference_image.shape == (2, 3, PORTRAIT_SIZE, PORTRAIT_SIZE)
    assert inputs.face_crop.shape == (2, 3, 96, 96)
    assert inputs.vertices.shape == (2, 60, 3)
    assert inputs.topology_hash == "mesh"
    for crop in (inputs.reference_image, inputs.face_crop):
        assert crop.min() >= -1
        assert crop.max() <= 1


def test_crops_show_the_face_where_the_networks_expect_it() -> None:
    # A black photo with a white square on the nose.
    landmarks = plausible_landmarks(150, (200, 140), roll_deg=-10)
    nose = landmarks[0, 1]
    photo = torch.full((1, 3, 300, 400), -1.0)
    inside = ~beyond_edge(portrait_transform(landmarks), PORTRAIT_SIZE, (300, 400))
    x, y = (int(value) for value in nose)
    photo[..., y - 4 : y + 5, x - 4 : x + 5] = 1
    inputs = prepare_identity(photo, landmarks, torch.zeros(1, 4, 3), "mesh")

    def brightest(crop: torch.Tensor) -> torch.Tensor:
        mass = (crop[0, 0] + 1) / (crop[0, 0] + 1).sum()
        ticks = (torch.arange(len(mass)) + 0.5) / len(mass)
        return torch.stack([(mass.sum(dim=0) * ticks).sum(), (mass.sum(dim=1) * ticks).sum()])

    torch.testing.assert_close(brightest(inputs.face_crop), torch.tensor(FACE_TEMPLATE[2]), atol=0.01, rtol=0)
    torch.testing.assert_close(
        brightest(torch.where(inside, inputs.reference_image, -1.0)), torch.tensor([0.5, 0.585]), atol=0.02, rtol=0
    )


def test_built_in_model_gets_the_pictures_it_was_trained_on() -> None:
    photos = torch.rand(1, 3, 300, 320, generator=torch.Generator().manual_seed(0)) * 2 - 1
    landmarks = plausible_landmarks(150, (160, 150), roll_deg=5)
    inputs = prepare_identity(photos, landmarks, torch.ones(1, 60, 3), "mesh")
    frame = portrait_transform(landmarks)
    outside = beyond_edge(frame, PORTRAIT_SIZE, (300, 320)).expand(-1, 3, -1, -1)
    assert 0 < outside.float().mean() < 0.2
    portrait = warp(photos, frame, PORTRAIT_SIZE)
    assert torch.equal(inputs.reference_image[~outside], portrait[~outside])
    assert inputs.reference_image[outside].abs().max() == 0  # mid-grey, as in training
    assert torch.equal(inputs.face_crop, warp(photos, face_transform(landmarks), 96))


@pytest.mark.parametrize("size", [(128, 192), (192, 128), (64, 96)])
def test_portrait_fills_the_shorter_side_and_the_longer_one_sees_more(size: tuple[int, int]) -> None:
    ramp = torch.linspace(-1, 1, 400)
    photos = torch.stack([ramp.expand(300, 400), ramp[:300, None].expand(300, 400), torch.zeros(300, 400)])[None]
    landmarks = plausible_landmarks(60, (200, 150), roll_deg=5)
    square, wide = (
        prepare_identity(photos, landmarks, torch.ones(1, 4, 3), "mesh", IdentityPreparation("portrait", side, 96))
        for side in ((min(size), min(size)), size)
    )
    assert wide.reference_image.shape == (1, 3, *size)
    top, left = ((length - min(size)) // 2 for length in size)
    middle = wide.reference_image[:, :, top : top + min(size), left : left + min(size)]
    torch.testing.assert_close(middle, square.reference_image, atol=1e-5, rtol=0)
    assert torch.equal(wide.face_crop, square.face_crop)
    assert wide.reference_image.std() > square.reference_image.std()


def test_released_checkpoint_gets_one_aligned_square_stretched_and_shrunk(reader: FaceReader) -> None:
    preparation = IdentityPreparation("ffhq", (96, 144), 48)
    inputs, reading = read_identity(portrait(), reader, None, preparation)
    crop = ffhq_crop(portrait(), five_points(reading.landmarks[None, :, :2])[0])
    stretched = np.asarray(Image.fromarray(crop).resize((144, 96), Image.Resampling.LANCZOS))
    assert torch.equal(inputs.reference_image, to_tensor(stretched))
    assert inputs.face_crop.shape == (1, 3, 48, 48)
    area = torch.nn.functional.interpolate(to_tensor(crop), (48, 48), mode="area")
    assert (inputs.face_crop - area).abs().mean() < 0.03


def test_several_photos_are_prepared_like_each_alone_in_both_styles() -> None:
    photos = torch.rand(2, 3, 300, 320, generator=torch.Generator().manual_seed(0)) * 2 - 1
    landmarks = torch.cat([plausible_landmarks(150, (160, 150)), plausible_landmarks(60, (90, 100), roll_deg=15)])
    for style in ("portrait", "ffhq"):
        preparation = IdentityPreparation(style, (32, 48), 24)
        two = prepare_identity(photos, landmarks, torch.ones(2, 4, 3), "mesh", preparation)
        one = prepare_identity(photos[1:], landmarks[1:], torch.ones(1, 4, 3), "mesh", preparation)
        assert torch.equal(two.reference_image[1:], one.reference_image)
        assert torch.equal(two.face_crop[1:], one.face_crop)


def test_to_moves_every_tensor_and_leaves_the_original() -> None:
    inputs = inputs_of_two()
    half = inputs.to(dtype=torch.bfloat16)
    meta = inputs.to("meta")
    for name in ("reference_image", "face_crop", "vertices"):
        assert getattr(half, name).dtype == torch.bfloat16
        assert getattr(meta, name).device.type == "meta"
        assert getattr(meta, name).dtype == torch.float32
        assert getattr(inputs, name).dtype == torch.float32
    assert half.topology_hash == "mesh"


def test_photo_and_training_row_go_the_same_way(reader: FaceReader) -> None:
    inputs, reading = read_identity(portrait(), reader)
    row = prepare_identity(
        to_tensor(portrait()), reading.landmarks[None, :, :2], reading.head.vertices[None], reading.head.topology_hash
    )
    assert torch.equal(inputs.reference_image, row.reference_image)
    assert torch.equal(inputs.face_crop, row.face_crop)
    assert torch.equal(inputs.vertices, row.vertices)
    assert inputs.topology_hash == HeadModel.load().topology.hash


def test_row_does_not_depend_on_its_batch() -> None:
    two = inputs_of_two()
    photos = torch.rand(2, 3, 300, 320, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = prepare_identity(photos[1:], plausible_landmarks(60, (90, 100), roll_deg=15), torch.ones(1, 60, 3), "mesh")
    assert torch.equal(alone.reference_image[0], two.reference_image[1])
    assert torch.equal(alone.face_crop[0], two.face_crop[1])


def test_chosen_face_is_the_one_in_the_crops(reader: FaceReader) -> None:
    grey = np.repeat(portrait().mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    photo = np.hstack([portrait(), grey])
    chosen = {
        reading.face.box[0] > 300: inputs for inputs, reading in (read_identity(photo, reader, k) for k in (0, 1))
    }
    colour = {side: (inputs.face_crop[:, 0] - inputs.face_crop[:, 2]).abs().mean() for side, inputs in chosen.items()}
    assert colour[True] < 0.01 < 0.1 < colour[False]


def test_reader_errors_reach_the_caller(reader: FaceReader) -> None:
    with pytest.raises(NoFaceError):
        read_identity(np.zeros((200, 200, 3), np.uint8), reader)


def test_training_machines_without_dlib_av_rich_and_typer_can_import_it() -> None:
    missing = "import sys; sys.modules.update(dict.fromkeys(['dlib', 'av', 'rich', 'typer']))"
    code = f"{missing}; import fantasyid.conditioning.identity"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_photo_is_cut_before_it_becomes_a_tensor(reader: FaceReader) -> None:
    large = np.full((4000, 5000, 3), 90, np.uint8)
    large[3700:, 4700:] = portrait()
    inputs, reading = read_identity(large, reader)
    whole = prepare_identity(to_tensor(large), reading.landmarks[None, :, :2], inputs.vertices, "hash")
    # Whole pixels and coordinates of a few thousand leave float32 three digits of a pixel.
    assert (inputs.face_crop - whole.face_crop).abs().max() < 1e-2
    assert (inputs.reference_image - whole.reference_image).abs().max() < 1e-2
