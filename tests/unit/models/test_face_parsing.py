import pytest
import torch

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.models.face_parsing import PART_NAMES, FaceParsingModel
from tests.tiny import noise
from tests.unit.models.parsing_state import published_state


def test_logits_are_those_of_facexlib() -> None:
    model = FaceParsingModel.from_published(published_state())
    images = torch.sin(torch.arange(3 * 64 * 64, dtype=torch.float64) * 0.011).float().reshape(1, 3, 64, 64)
    logits = model(images)
    assert logits.shape == (1, 19, 64, 64)
    expected = torch.tensor([4622.566, -2700.729, 733.858, 1245.248, -3203.592, 5108.518])
    torch.testing.assert_close(logits[0, :6, 20, 33], expected, atol=0.1, rtol=1e-4)
    assert logits.abs().mean().item() == pytest.approx(7097.644, rel=1e-4)
    counts = logits.argmax(dim=1).flatten().bincount(minlength=19)
    assert counts[[11, 13, 15]].tolist() == pytest.approx([1, 1963, 2132], abs=2)


def test_there_are_names_for_all_parts() -> None:
    assert len(PART_NAMES) == len(set(PART_NAMES)) == 19
    assert [PART_NAMES.index(name) for name in ("background", "skin", "nose", "cloth", "hair", "hat")] == [
        *(0, 1, 10, 16, 17, 18)
    ]


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_another_checkpoint_is_refused(change: str) -> None:
    state = published_state(width=4)
    if change == "missing":
        del state["cp.arm32.bn_atten.bias"]
    elif change == "unknown":
        state["cp.arm8.conv.conv.weight"] = torch.zeros(1)
    else:
        state["conv_out.conv_out.weight"] = torch.zeros(11, 16, 1, 1)
    with pytest.raises(CorruptWeightsError, match="BiSeNet"):
        FaceParsingModel.from_published(state, width=4)


def test_every_parameter_gets_a_gradient() -> None:
    model = FaceParsingModel(width=8)
    model(noise(2, 3, 96, 64)).square().mean().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_faces_do_not_see_each_other() -> None:
    model = FaceParsingModel.from_published(published_state(width=4), width=4)
    images = noise(2, 3, 64, 96)
    torch.testing.assert_close(model(images)[1:], model(images[1:]), rtol=1e-4, atol=1e-3)
