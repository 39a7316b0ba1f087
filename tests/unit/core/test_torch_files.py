import pickle
import shutil
from pathlib import Path

import pytest
import torch

from fantasyid.core.errors import CorruptWeightsError
from fantasyid.core.torch_files import load_torch_file


def test_tensors_and_plain_containers_are_read(tmp_path: Path) -> None:
    torch.save({"module": {"weight": torch.arange(3)}, "step": 7}, tmp_path / "weights.pt")
    content = load_torch_file(tmp_path / "weights.pt")
    assert torch.equal(content["module"]["weight"], torch.arange(3))
    assert content["step"] == 7


def test_files_that_would_run_code_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"weight": torch.arange(1000)}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps({"weight": shutil.rmtree}, protocol=2))
    torch.save({"weight": shutil.rmtree}, tmp_path / "function.pt")
    for name in ("cut", "text", "empty", "pickled", "function"):
        with pytest.raises(CorruptWeightsError, match=rf"{name}\.pt is no readable PyTorch file"):
            load_torch_file(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("archive", [True, False])
def test_files_of_both_forms_come_back_as_torch_reads_them(tmp_path: Path, archive: bool) -> None:
    layer, shared = torch.nn.Linear(3, 2), torch.arange(6.0)
    types = (torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.float64)
    saved = {
        "state": layer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "views": [shared, shared[2:], shared.view(2, 3).t(), torch.zeros(0, 3)],
        "types": {str(dtype): torch.arange(3).to(dtype) for dtype in types},
        "rest": ("text", 1e-4, None, {3: {"step": 7}}, torch.float16, shared.shape),
    }
    path = tmp_path / "weights.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=archive)
    content, expected = load_torch_file(path), torch.load(path, weights_only=True)
    assert list(content["state"]) == list(expected["state"])
    for read, wanted in (
        *zip(content["views"], expected["views"], strict=True),
        *((content[group][key], expected[group][key]) for group in ("state", "types") for key in expected[group]),
        (content["parameter"], expected["parameter"].detach()),
    ):
        assert read.dtype == wanted.dtype
        assert read.stride() == wanted.stride()
        assert torch.equal(read, wanted)
    assert content["rest"] == ("text", 1e-4, None, {3: {"step": 7}}, torch.float16, (6,))
    content["views"][0][2] = 99.0
    assert content["views"][1][0] == content["views"][2][2, 0] == 99.0


@pytest.mark.parametrize("archive", [True, False])
def test_no_cut_file_and_no_flipped_number_is_read(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.arange(40)}, path, _use_new_zipfile_serialization=archive)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptWeightsError, match=r"weights\.pt is no readable PyTorch file"):
            load_torch_file(path)
    place = whole.index(torch.arange(40).numpy().tobytes()) + 80
    path.write_bytes(whole[:place] + b"\x80" + whole[place + 1 :])
    if archive:  # The older form has no checksums.
        with pytest.raises(CorruptWeightsError, match="CRC"):
            load_torch_file(path)


def test_a_tensor_alone_has_no_names(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(CorruptWeightsError, match="holds a Tensor"):
        load_torch_file(tmp_path / "tensor.pt")
