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


def test_a_tensor_alone_has_no_names(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(CorruptWeightsError, match="holds a Tensor"):
        load_torch_file(tmp_path / "tensor.pt")
