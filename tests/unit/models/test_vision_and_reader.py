"""The face vision net and the face reader."""

from dataclasses import fields

import pytest
import torch

from fantasyid.models.face_reader import FaceCropReading, FaceReaderModel
from fantasyid.models.vision import FaceVisionModel
from tests.tiny import noise, tiny_face_reader_model, tiny_face_vision

READING = [field.name for field in fields(FaceCropReading)]


def test_vision_shapes_and_unit_embedding() -> None:
    images = noise(2, 3, 32, 32)
    before = images.clone()
    seen = tiny_face_vision()(images)
    assert seen.tokens.shape == (2, 4, 4, 32)
    assert seen.embedding.shape == (2, 16)
    torch.testing.assert_close(seen.embedding.norm(dim=-1), torch.ones(2))
    assert torch.equal(images, before)


def test_vision_default_size() -> None:
    with torch.device("meta"):
        model = FaceVisionModel()
        seen = model(torch.empty(2, 3, 96, 96))
    assert seen.tokens.shape == (2, 12, 12, 192)
    assert seen.embedding.shape == (2, 128)
    assert sum(p.numel() for p in model.parameters()) == 3_080_000


def test_vision_tokens_keep_the_layout() -> None:
    model = tiny_face_vision(num_layers=0)
    images = noise(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 8:16, 24:] += 0.1
    difference = (model(changed).tokens - model(images).tokens).abs().sum(dim=-1)[0]
    assert difference.argmax() == 4 * 1 + 3


def test_vision_output_equals_its_steps() -> None:
    """Stem, positions, blocks and norm, each token where its patch is; one learned query pools the embedding."""
    model = tiny_face_vision()
    images = noise(2, 3, 32, 32)
    seen = model(images)
    patches = model.stem(images)
    tokens = torch.stack([patches[:, :, row, column] for row in range(4) for column in range(4)], dim=1)
    tokens = tokens + model.position
    for block in model.blocks:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(seen.tokens[:, row, column], tokens[:, 4 * row + column])
    pooled = model.pool(model.pool_query.expand(2, -1, -1), tokens)[:, 0]
    direction = model.to_embedding(pooled)
    torch.testing.assert_close(seen.embedding, direction / direction.norm(dim=-1, keepdim=True))


def test_vision_rejects_a_patch_size_that_is_no_power_of_two() -> None:
    with pytest.raises(ValueError, match="patch_size 6"):
        tiny_face_vision(patch_size=6)


def test_landmarks_start_at_the_mean_face() -> None:
    model = tiny_face_reader_model()
    images = noise(2, 3, 32, 32)
    before = images.clone()
    offsets = model(images).landmarks
    assert offsets.shape == (2, 478, 3)
    model.mean_landmarks.fill_(0.5)
    torch.testing.assert_close(model(images).landmarks, offsets + 0.5)
    assert torch.equal(images, before)


def test_reading_shapes_and_units() -> None:
    model = tiny_face_reader_model(identity_dim=7, expression_dim=5)
    images = noise(2, 3, 32, 32)
    reading = model(images)
    assert reading.identity.shape == (2, 7)
    assert reading.expression.shape == (2, 5)
    assert reading.confidence.shape == (2,)
    torch.nn.init.constant_(model.to_expression.bias, -3.0)
    assert (model(images).expression > 0).all()
    torch.nn.init.zeros_(model.to_pose.weight)
    model.to_pose.bias.data = torch.tensor([1.0, -0.5, 0.25])
    assert model(images).pose_deg.tolist() == [[20.0, -10.0, 5.0]] * 2


def test_a_reading_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = tiny_face_reader_model(head_dropout=0.0)
    images = noise(3, 3, 32, 32)
    together, alone = model.train()(images), model.eval()(images[:1])
    for name in READING:
        torch.testing.assert_close(getattr(together, name)[:1], getattr(alone, name))


def test_landmarks_depend_on_where_the_face_is() -> None:
    model = tiny_face_reader_model()
    images = torch.full((1, 3, 32, 32), -1.0)
    images[..., 4:12, 4:12] = noise(1, 3, 8, 8)
    moved = images.roll((16, 16), dims=(2, 3))
    assert (model(moved).landmarks - model(images).landmarks).abs().max() > 1e-3
    assert (model(moved).confidence - model(images).confidence).abs().max() > 1e-3


def test_face_reader_model_default_size() -> None:
    with torch.device("meta"):
        model = FaceReaderModel().eval()
        assert model(torch.empty(2, 3, 128, 128)).landmarks.shape == (2, 478, 3)
    assert sum(p.numel() for p in model.parameters()) == 5_264_862


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_face_reader_model])
def test_every_parameter_gets_a_gradient(build) -> None:
    model = build()
    out = model(noise(2, 3, 32, 32))
    sum((getattr(out, field.name) ** 3).sum() for field in fields(out)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_face_reader_model])
def test_bfloat16(build) -> None:
    out = build().to(torch.bfloat16)(noise(2, 3, 32, 32).bfloat16())
    for field in fields(out):
        assert getattr(out, field.name).dtype == torch.bfloat16
        assert getattr(out, field.name).isfinite().all()


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_face_reader_model])
def test_save_and_load(build, tmp_path) -> None:
    model = build()
    if hasattr(model, "mean_landmarks"):
        model.mean_landmarks.copy_(noise(478, 3))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for (name, a), (_, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
