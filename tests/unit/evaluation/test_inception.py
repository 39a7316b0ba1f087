"""The FID of faces, with a tiny network of Inception's interface, and what its weights must be."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.errors import CorruptWeightsError, MissingBackendError, MissingWeightsError
from fantasyid.core.input_files import file_sha256
from fantasyid.evaluation.identity import Judge
from fantasyid.evaluation.inception import Inception
from fantasyid.evaluation.metrics.face_inception_distance import FaceInceptionDistance
from fantasyid.evaluation.metrics.interface import Measured
from fantasyid.evaluation.metrics.registry import metric_of
from fantasyid.evaluation.run_config import RunConfig
from fantasyid.evaluation.seen import Instruments, SeenVideo
from tests.commands import refusal
from tests.unit.evaluation.seen_videos import BLACK, UNASKED, person, tiny_instruments

KEY = "face_inception_distance"
BY_TORCHMETRICS = 1.068460894429471
"""Of the faces below, by FrechetInceptionDistance of torchmetrics 1.9.0 in double precision."""
CONFIG = {
    "people": {"photos": "photos"},
    "prompts": [{"key": "smile", "text": "Smiles."}],
    "seeds": [1],
    "systems": [{"name": "theirs", "videos": {"folder": "videos"}}],
    "compared_with": "theirs",
}


class TinyFeatures(torch.nn.Module):
    """Five features of uint8 pictures (B,3,H,W)."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.from_numpy(np.random.default_rng(1).normal(size=(12, 5)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        seen = torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)
        return torch.tanh(seen @ self.weights)


TINY = Inception(TinyFeatures(), "tiny")


def colours(seed: int, count: int) -> NDArray[np.uint8]:
    """Faces (B,96,96,3), each of four colours."""
    patches = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), np.uint8)
    return patches.repeat(48, axis=1).repeat(48, axis=2)


FACES = [(colours(seed, 1), colours(10 + seed, count)) for seed, count in enumerate((3, 1, 5, 4))]
"""The photo's face and the video's faces, of four videos."""


def video_of(crops: NDArray[np.uint8], inception: Inception | None) -> SeenVideo:
    tiny = tiny_instruments(UNASKED)
    instruments = Instruments(UNASKED, tiny.face_reader, tiny.face_vision, "", inception)
    video = SeenVideo(lambda: [BLACK] * len(crops), 8, instruments, "")
    video.crops = crops
    return video


def number(inception: Inception | None, videos: int = len(FACES)) -> float | None:
    metric = FaceInceptionDistance()
    kept = [
        metric.measure(video_of(crops, inception), person(np.ones(3, np.float32), video_of(photo, inception)))
        for photo, crops in FACES[:videos]
    ]
    return metric.combine([Measured("", "", value) for value in kept])


def test_the_number_equals_torchmetrics_on_the_same_faces() -> None:
    assert number(TINY) == pytest.approx(BY_TORCHMETRICS, rel=1e-5)


def test_torchmetrics_gives_that_number() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid", reason="pip install 'fantasyid[fid]'")
    theirs = fid.FrechetInceptionDistance(feature=TINY.network).set_dtype(torch.float64)
    for photo, crops in FACES:
        theirs.update(torch.from_numpy(photo).permute(0, 3, 1, 2), real=True)
        theirs.update(torch.from_numpy(crops).permute(0, 3, 1, 2), real=False)
    assert theirs.compute().item() == pytest.approx(BY_TORCHMETRICS, rel=1e-6)


def test_two_pictures_and_a_missing_network_have_no_fid() -> None:
    assert number(TINY, videos=1) is None
    assert number(TINY, videos=2) is not None
    assert number(None) is None


def test_without_the_weights_no_table_has_the_column() -> None:
    metric = metric_of(KEY)
    assert metric not in RunConfig.model_validate(CONFIG).metrics()
    assert metric in RunConfig.model_validate({**CONFIG, "inception_weights": "inception.pth"}).metrics()


def test_what_is_kept_knows_that_the_weights_were_given() -> None:
    without, given = (Instruments.load(Judge.builtin(), inception=inception) for inception in (None, TINY))
    assert given.inception is TINY
    assert given.fingerprint != without.fingerprint


# The weights


def test_a_run_says_where_missing_weights_come_from(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(astronaut()[:256, 96:352]).save(tmp_path / "photos" / "a.png")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**CONFIG, "inception_weights": "inception.pth"}))
    said = refusal("evaluate", "run", tmp_path / "run.yaml", "--out", tmp_path / "out")
    assert f"There is no file {tmp_path / 'inception.pth'} with Inception's weights; download weights-incep" in said


def test_other_weights_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    path.write_bytes(b"other")
    with pytest.raises(CorruptWeightsError, match=r"inception\.pth is damaged or holds other weights .*; download"):
        Inception.load(path)
    path.unlink()
    with pytest.raises(MissingWeightsError):
        Inception.load(path)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inception.pth"
    path.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingBackendError, match=r"torch_fidelity is needed to compute the FID .*fantasyid\[fid\]"):
        Inception.load(path, file_sha256(path))


def test_weights_of_the_true_shapes_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason="pip install 'fantasyid[fid]'")
    fid = pytest.importorskip("torchmetrics.image.fid", reason="pip install 'fantasyid[fid]'")

    class Untrained(fid.NoTrainInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: object) -> None:
            pass

    torch.save({}, tmp_path / "none.pth")
    untrained = Untrained("inception-v3-compat", ["2048"], str(tmp_path / "none.pth"))
    torch.save(untrained.state_dict(), tmp_path / "inception.pth")
    inception = Inception.load(tmp_path / "inception.pth", file_sha256(tmp_path / "inception.pth"))
    expected = untrained(torch.from_numpy(FACES[0][1]).permute(0, 3, 1, 2)).numpy()
    assert expected.shape == (3, 2048)
    np.testing.assert_allclose(inception.features(FACES[0][1]), expected, rtol=1e-5)
