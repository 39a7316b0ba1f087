import pytest
import torch
from torch import Tensor

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.models.eva_vision import EvaVisionModel
from tests.eva_clip import visual_shapes
from tests.tiny import noise

TINY = {
    "image_size": 12,
    "patch_size": 4,
    "width": 16,
    "num_layers": 4,
    "num_heads": 2,
    "feed_forward_width": 42,
}


def published_state() -> dict[str, Tensor]:
    """The visual tower of a checkpoint as EVA-CLIP names it, its numbers by formula."""
    shapes = visual_shapes(width=16, feed_forward_width=42, num_layers=6, grid=3, patch_size=4, out=5)
    state = {}
    for index, (key, shape) in enumerate(sorted(shapes.items())):
        count = torch.Size(shape).numel()
        values = 0.3 * torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + index)
        if key.endswith(("norm1.weight", "norm2.weight", "_ln.weight")):
            values = values + 1
        state[f"visual.{key}"] = values.float().reshape(shape)
    return state


def test_tokens_are_those_of_the_authors_code() -> None:
    # The numbers come from the hidden state before block 4 of the code that the released checkpoint was made with.
    model = EvaVisionModel.from_eva_clip(published_state(), **TINY)
    images = torch.sin(torch.arange(2 * 3 * 12 * 12, dtype=torch.float64) * 0.11).float().reshape(2, 3, 12, 12)
    tokens = model(images).tokens
    assert tokens.shape == (2, 3, 3, 16)
    expected = torch.tensor([-0.0201, 7.79171, -11.08928, 8.29474, -4.13419, 13.33664, -9.84489, -13.35092])
    found = torch.cat([tokens[0, 0, 0, :4], tokens[1, 2, 1, -4:]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert tokens.abs().mean().item() == pytest.approx(9.08016, abs=1e-4)


def test_rest_of_the_checkpoint_may_be_there_and_is_not_kept() -> None:
    extra = {
        "text.token_embedding.weight": torch.zeros(3, 2),
        "logit_scale": torch.zeros(()),
        "visual.rope.freqs_cos": torch.zeros(9, 8),
        "visual.blocks.0.attn.rope.freqs_sin": torch.zeros(9, 8),
    }
    model = EvaVisionModel.from_eva_clip({**published_state(), **extra}, **TINY)
    assert len(model.blocks) == 4
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_another_checkpoint_is_refused(change: str) -> None:
    state = published_state()
    if change == "missing":
        del state["visual.blocks.3.attn.q_bias"]
    elif change == "unknown":
        state["visual.blocks.0.gamma_1"] = torch.ones(16)
    else:
        state["visual.cls_token"] = torch.ones(1, 1, 8)
    with pytest.raises(CorruptWeightsError, match="EVA02-CLIP"):
        EvaVisionModel.from_eva_clip(state, **TINY)


def test_every_parameter_gets_a_gradient() -> None:
    model = EvaVisionModel(**TINY)
    model(noise(1, 3, 12, 12)).tokens.square().sum().backward()
    # The last block's class token reaches nothing, but the weights are shared with the other tokens.
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_places_are_told_apart_and_stretch_over_the_trained_grid() -> None:
    model = EvaVisionModel(**TINY)
    with torch.no_grad():
        model.position.zero_()
    model.eval()
    grey = torch.zeros(1, 3, 12, 12)
    grey[:, :, :4, :4] = 1
    tokens = model(grey).tokens
    assert (tokens[0, 1, 0] - tokens[0, 0, 1]).abs().max() > 1e-4
    wider = EvaVisionModel(**TINY, pretrained_grid=3)
    wider.load_state_dict(model.state_dict())
    assert (wider(grey).tokens - tokens).abs().max() > 1e-4


def test_bfloat16_is_near_float32_and_rounds_the_picture_once() -> None:
    model = EvaVisionModel.from_eva_clip(published_state(), **TINY)
    normalised: list[Tensor] = []
    model.patch_embedding.register_forward_pre_hook(lambda _, inputs: normalised.append(inputs[0]))
    images = noise(1, 3, 12, 12)
    exact = model(images).tokens
    rough = model.to(torch.bfloat16)(images).tokens
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).norm() < 0.05 * exact.norm()
    assert torch.equal(normalised[1], normalised[0].bfloat16())


def test_true_size_of_the_released_checkpoint() -> None:
    with torch.device("meta"):
        model = EvaVisionModel()
        tokens = model(torch.empty(1, 3, 336, 336)).tokens
    assert tokens.shape == (1, 24, 24, 1024)
    assert sum(p.numel() for p in model.parameters()) == 253_235_488
