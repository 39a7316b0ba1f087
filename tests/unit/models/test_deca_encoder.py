"""DECA's encoder: equal to its authors' code on numbers of our own, and strict about the file."""

import json
import os
from pathlib import Path

import pytest
import torch

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.models.deca_encoder import DecaEncoder, key_table
from tests.flame_files import deca_state, write_deca

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "flame_deca.json").read_text())


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return deca_state()


@pytest.fixture(scope="module")
def encoder(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> DecaEncoder:
    path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
    write_deca(path, state, batch_size=32)
    loaded = DecaEncoder.load(path)
    path.unlink()
    return loaded


def test_codes_equal_the_authors_code(encoder: DecaEncoder) -> None:
    crops = torch.stack([torch.zeros(3, 224, 224), torch.linspace(0, 1, 224).expand(3, 224, 224)])
    code = encoder(crops)
    parts = (code.shape, code.texture, code.expression, code.pose, code.camera, code.light.flatten(1))
    assert [part.shape[1] for part in parts] == [100, 50, 50, 6, 3, 27]
    expected = torch.tensor(GOLDEN["deca_code"])
    torch.testing.assert_close(torch.cat(parts, 1)[:, ::7], expected, atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().mean() > 1


def test_encoder_is_frozen_and_every_number_comes_from_the_file(
    encoder: DecaEncoder, state: dict[str, torch.Tensor]
) -> None:
    loaded = encoder.state_dict()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    for theirs, ours in key_table().items():
        assert torch.equal(loaded[ours], state[theirs])
    assert {key for key in loaded if not key.endswith("num_batches_tracked")} == set(key_table().values())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers.2.bias": None}, r"lacks or has besides \['layers.2.bias'\]"),
        ({"encoder.fc.weight": torch.zeros(1)}, r"lacks or has besides \['encoder.fc.weight'\]"),
        ({"encoder.layer3.5.conv2.weight": torch.zeros(256, 256, 1, 1)}, "layers.5.layer.1.convolution.weight is not"),
        ({"layers.2.bias": [0.0] * 236}, "layers.2.bias is not a tensor of shape"),
        ({"layers.2.bias": torch.zeros(236, dtype=torch.int8)}, "layers.2.bias is not a tensor of shape"),
    ],
)
def test_other_weights_are_refused(
    encoder: DecaEncoder, tmp_path: Path, change: dict[str, torch.Tensor | None], named: str
) -> None:
    # Views of one storage: as large as the real thing to whoever asks for a shape, and smaller in the file.
    shapes = {theirs: encoder.state_dict()[ours].shape for theirs, ours in key_table().items()}
    shared = torch.zeros(max(shape.numel() for shape in shapes.values()))
    small = {theirs: shared[: shape.numel()].view(shape) for theirs, shape in shapes.items()}
    changed = {key: value for key, value in {**small, **change}.items() if value is not None}
    path = tmp_path / "deca_model.tar"
    write_deca(path, changed)
    with pytest.raises(CorruptWeightsError, match=named) as caught:
        DecaEncoder.load(path)
    for part in (f"{path} ({path.stat().st_size} bytes)", "https://github.com/YadiraF/DECA", "non-commercial"):
        assert part in str(caught.value)


def test_unknown_parts_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    write_deca(path, {}, E_expression={})
    with pytest.raises(CorruptWeightsError, match=r"unknown parts \['E_expression'\]"):
        DecaEncoder.load(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CorruptWeightsError, match="it has no E_flame"):
        DecaEncoder.load(path)
    for content in (b"", b"<html>quota exceeded</html>", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(CorruptWeightsError, match=r"no readable PyTorch file .*YadiraF/DECA"):
            DecaEncoder.load(path)


def test_a_command_in_the_file_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "deca_model.tar"
    torch.save({"E_flame": {}, "opt": Payload()}, path)
    with pytest.raises(CorruptWeightsError, match="no readable PyTorch file"):
        DecaEncoder.load(path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"deca_model\.tar; get .*https://github\.com/YadiraF/DECA"):
        DecaEncoder.load(tmp_path / "deca_model.tar")
