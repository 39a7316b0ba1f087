"""The face vision net and the landmark net."""

import pytest
import torch

from fantasyid.models.face_reader import FaceLandmarkModel
from fantasyid.models.vision import FaceVisionModel
from tests.tiny import noise, tiny_face_vision, tiny_landmark_model


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
    changed[..., 24:, 24:] += 0.1
    difference = (model(changed).tokens - model(images).tokens).abs().sum(dim=-1)[0]
    assert difference.argmax() == 15


def test_vision_rejects_a_patch_size_that_is_no_power_of_two() -> None:
    with pytest.raises(ValueError, match="patch_size 6"):
        tiny_face_vision(patch_size=6)


def test_landmarks_start_at_the_mean_face() -> None:
    model = tiny_landmark_model()
    images = noise(2, 3, 32, 32)
    offsets = model(images)
    assert offsets.shape == (2, 478, 3)
    model.mean_landmarks.fill_(0.5)
    torch.testing.assert_close(model(images), offsets + 0.5)


def test_landmarks_do_not_depend_on_the_rest_of_the_batch() -> None:
    model = tiny_landmark_model()
    images = noise(3, 3, 32, 32)
    torch.testing.assert_close(model.train()(images)[:1], model.eval()(images[:1]))


def test_landmarks_depend_on_where_the_face_is() -> None:
    model = tiny_landmark_model()
    images = torch.full((1, 3, 32, 32), -1.0)
    images[..., 4:12, 4:12] = noise(1, 3, 8, 8)
    moved = images.roll((16, 16), dims=(2, 3))
    assert (model(moved) - model(images)).abs().max() > 1e-3


def test_landmark_model_default_size() -> None:
    with torch.device("meta"):
        model = FaceLandmarkModel()
        assert model(torch.empty(2, 3, 128, 128)).shape == (2, 478, 3)
    assert sum(p.numel() for p in model.parameters()) == 1_493_642


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_landmark_model])
def test_every_parameter_gets_a_gradient(build) -> None:
    model = build()
    out = model(noise(2, 3, 32, 32))
    loss = out.square().sum() if isinstance(out, torch.Tensor) else (out.tokens**3).sum() + (out.embedding**3).sum()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_landmark_model])
def test_bfloat16(build) -> None:
    out = build().to(torch.bfloat16)(noise(2, 3, 32, 32).bfloat16())
    out = out if isinstance(out, torch.Tensor) else out.embedding
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize("build", [tiny_face_vision, tiny_landmark_model])
def test_save_and_load(build, tmp_path) -> None:
    model = build()
    if hasattr(model, "mean_landmarks"):
        model.mean_landmarks.copy_(noise(478, 3))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for (name, a), (_, b) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
