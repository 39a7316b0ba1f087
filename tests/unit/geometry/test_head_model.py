from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.geometry.head_model import PART_NAMES, HeadModel

PACKAGED = Path(str(files("fantasyid") / "weights" / "head_model.npz"))


def displacement(head, **activations):
    expression = torch.tensor([[activations.get(name, 0.0) for name in head.expression_names]])
    return head.shape(torch.zeros(1, len(head.identity_basis)), expression)[0] - head.mean


def of_part(head, *names):
    return torch.isin(head.parts, torch.tensor([PART_NAMES.index(name) for name in names], dtype=torch.uint8))


def test_file_is_small_and_free_of_pickle():
    assert PACKAGED.stat().st_size <= 5 * 2**20
    with np.load(PACKAGED, allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_sizes_and_every_part_is_there(head):
    assert 4500 < len(head.mean) < 6500
    assert len(head.expression_names) == 52
    assert head.expression_names == tuple(sorted(head.expression_names))
    assert {"jawOpen", "mouthSmileLeft", "eyeLookInRight", "tongueOut"} < set(head.expression_names)
    counts = torch.bincount(head.parts.long(), minlength=len(PART_NAMES))
    assert (counts > 50).all()
    assert counts[0] > 2000
    assert head.uv.min() >= 0
    assert head.uv.max() <= 1


def test_units_axes_and_origin(head):
    eyes = [head.mean[of_part(head, name)] for name in ("eye_left", "eye_right")]
    left, right = ((eye.amax(0) + eye.amin(0)) / 2 for eye in eyes)
    assert torch.allclose(left + right, torch.zeros(3), atol=1e-4)
    assert 5.5 < left[0] - right[0] < 7  # cm; the subject's left eye is on the right of the picture
    nose, chin = head.mean[head.landmarks478[4]], head.mean[head.landmarks478[152]]
    assert nose[2] > 2
    assert nose[2] == pytest.approx(float(head.mean[of_part(head, "face"), 2].max()), abs=0.5)
    assert -13 < chin[1] < -8


def test_triangles_face_outwards(head):
    for component in range(6):
        triangles = head.triangles[torch.from_numpy(head.topology.components)[head.triangles[:, 0]] == component]
        corners = head.mean[triangles] - head.mean[triangles].flatten(0, 1).mean(0)
        volume = torch.einsum("td,td->t", corners[:, 0], torch.linalg.cross(corners[:, 1], corners[:, 2])).sum()
        assert volume > 0


def test_mirror_is_an_involution_that_mirrors_positions_and_parts(head):
    assert (head.mirror[head.mirror] == torch.arange(len(head.mean))).all()
    torch.testing.assert_close(head.mean[head.mirror], head.mean * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4, rtol=0)
    swapped = head.parts[head.mirror]
    skin = of_part(head, "face", "ears", "mouth_interior")
    assert (swapped[skin] == head.parts[skin]).float().mean() > 0.98
    assert (swapped[of_part(head, "eye_left")] == PART_NAMES.index("eye_right")).all()


def test_landmarks_lie_on_skin_irises_on_eyes_and_are_symmetric(head):
    assert (head.landmarks478 >= 0).all()
    part = head.parts[head.landmarks478]
    assert (part[:468] == PART_NAMES.index("face")).float().mean() > 0.95
    assert (part[468:473] == PART_NAMES.index("eye_right")).all()
    assert (part[473:] == PART_NAMES.index("eye_left")).all()
    for right, left in ((33, 263), (61, 291), (234, 454), (468, 473)):
        assert head.mirror[head.landmarks478[right]] == head.landmarks478[left]
    assert head.landmark_spread.median() < 0.3
    assert head.landmarks68.unique().numel() == 68


def test_modes_are_symmetric_or_antisymmetric_and_hold_no_shift(head):
    flipped = head.identity_basis[:, head.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    norm = head.identity_basis.flatten(1).norm(dim=1)
    same = (head.identity_basis - flipped).flatten(1).norm(dim=1)
    opposite = (head.identity_basis + flipped).flatten(1).norm(dim=1)
    assert (torch.minimum(same, opposite) / norm).max() < 1e-3
    assert ((same < opposite).sum()) > 30
    face = of_part(head, "face")
    assert head.identity_basis[:, face].mean(1).norm(dim=1).max() < 0.05


def test_jaw_open_lowers_chin_and_lower_teeth_only(head):
    moved = displacement(head, jawOpen=1.0)
    assert moved[head.landmarks478[152], 1] < -1
    assert moved[of_part(head, "teeth_lower"), 1].mean() < -1
    assert moved[of_part(head, "teeth_upper")].abs().max() < 1e-3


def test_smile_left_lifts_the_subjects_left_corner(head):
    moved = displacement(head, mouthSmileLeft=1.0)
    left, right = moved[head.landmarks478[291]], moved[head.landmarks478[61]]
    assert head.mean[head.landmarks478[291], 0] > 0
    assert left[0] > 0.3
    assert left[1] > 0.3
    assert right.norm() < 0.1


def test_blink_closes_the_lids(head):
    upper, lower = head.landmarks478[[386, 159]], head.landmarks478[[374, 145]]
    closed = head.mean + displacement(head, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    gap_open = (head.mean[upper] - head.mean[lower])[:, 1]
    gap_closed = (closed[upper] - closed[lower])[:, 1]
    assert (gap_closed < 0.35 * gap_open).all()


def test_shape_is_linear_and_batched(head):
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(2, len(head.identity_basis), generator=generator)
    expression = torch.rand(2, 52, generator=generator)
    vertices = head.shape(identity, expression)
    expected = head.mean + torch.einsum("k,knd->nd", identity[1], head.identity_basis)
    expected = expected + torch.einsum("e,end->nd", expression[1], head.expression_basis)
    torch.testing.assert_close(vertices[1], expected, atol=1e-4, rtol=0)


def test_saving_again_gives_the_same_file(head, tmp_path):
    head.save(tmp_path / "a.npz")
    HeadModel.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"none\.npz"):
        HeadModel.load(tmp_path / "none.npz")


@pytest.mark.parametrize("name", ["mean", "triangles", "identity_steps", "expression_names", "version"])
def test_altered_array_is_refused(tmp_path, name):
    with np.load(PACKAGED) as archive:
        arrays = dict(archive)
    changed = arrays[name].copy()
    changed.reshape(-1)[0] = "other" if changed.dtype.kind == "U" else changed.reshape(-1)[0] + 1
    arrays[name] = changed
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(CorruptWeightsError, match=r"bad\.npz"):
        HeadModel.load(tmp_path / "bad.npz")


def test_truncated_file_is_refused(tmp_path):
    (tmp_path / "cut.npz").write_bytes(PACKAGED.read_bytes()[:200_000])
    with pytest.raises(CorruptWeightsError, match=r"cut\.npz"):
        HeadModel.load(tmp_path / "cut.npz")


def test_arrays_that_do_not_fit_together_are_refused(head, tmp_path):
    from dataclasses import replace

    bad = {
        "mirror": head.mirror + 1,
        "landmarks68": head.landmarks68[:67],
        "mean": torch.full_like(head.mean, torch.nan),
        "parts": head.parts + 5,
        "expression_names": head.expression_names[1:],
    }
    for name, value in bad.items():
        replace(head, **{name: value}).save(tmp_path / "odd.npz")
        with pytest.raises(CorruptWeightsError, match=name.split("_")[0]):
            HeadModel.load(tmp_path / "odd.npz")


def test_mouth_interior_is_the_whole_bag_behind_the_lips(head):
    bag = of_part(head, "mouth_interior")
    lips = head.mean[head.landmarks478[[13, 14]]]
    assert head.mean[bag, 2].max() < lips[:, 2].min()
    x, y, z = head.mean.unbind(1)
    skin = of_part(head, "face", "scalp", "ears", "neck", "mouth_interior")
    inside = skin & (x.abs() < 3) & (y > -10) & (y < -3) & (z > -8) & (z < 0)
    assert inside.sum() > 50
    assert bag[inside].all()
