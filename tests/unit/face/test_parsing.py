import shutil
from pathlib import Path

import pytest
import torch

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.face.parsing import NOT_FACE, BiSeNetParser, parsing_file, whiten
from fantasyid.models.face_parsing import PART_NAMES, FaceParsingModel
from tests.tiny import noise
from tests.unit.models.parsing_state import published_shapes, published_state


@pytest.fixture(scope="module")
def model() -> FaceParsingModel:
    return FaceParsingModel.from_published(published_state(width=4), width=4)


def test_all_but_the_face_becomes_white(model: FaceParsingModel) -> None:
    crops = noise(2, 3, 64, 64).clamp(-0.9, 0.9)
    # A network that sees one part where some output of the random one is above zero, and background elsewhere.
    above = model(crops) > 0
    channel = int((above.float().mean(dim=(0, 2, 3)) - 0.5).abs().argmin())
    here = above[:, channel : channel + 1]
    assert 0.05 < here.float().mean() < 0.95
    for part in PART_NAMES[1:]:
        weights = torch.zeros_like(model.to_parts.weight)
        weights[PART_NAMES.index(part)] = model.to_parts.weight[channel]
        chosen = FaceParsingModel(width=4).eval()
        chosen.load_state_dict({**model.state_dict(), "to_parts.weight": weights})
        expected = torch.ones_like(crops) if part in NOT_FACE else torch.where(here, crops, 1.0)
        assert torch.equal(whiten(crops, BiSeNetParser(chosen)), expected), part


def test_ears_neck_clothes_and_hats_are_no_face() -> None:
    assert sorted(PART_NAMES.index(name) for name in NOT_FACE) == [0, 7, 8, 9, 14, 15, 16, 18]


def test_published_file_is_read(tmp_path: Path) -> None:
    shapes = published_shapes()
    path = tmp_path / "parsing_bisenet.pth"
    torch.save({key: torch.ones(torch.Size(shape)) for key, shape in shapes.items()}, path)
    crops = noise(1, 3, 32, 32)
    assert BiSeNetParser.load(path).is_face(crops).shape == (1, 1, 32, 32)


def test_missing_and_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"parsing_bisenet\.pth is missing.*53 MB.*facexlib.*MIT"):
        BiSeNetParser.load()
    path = tmp_path / ".cache" / "fantasyid" / "parsing_bisenet.pth"
    path.parent.mkdir(parents=True)
    torch.save({"conv_out.conv.conv.weight": shutil.rmtree}, path)
    assert parsing_file() == path
    with pytest.raises(CorruptWeightsError, match="no readable PyTorch file"):
        BiSeNetParser.load()
    torch.save({"classifier.weight": torch.zeros(2)}, path)
    with pytest.raises(CorruptWeightsError, match="BiSeNet"):
        BiSeNetParser.load()
