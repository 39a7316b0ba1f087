import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix
from torch.func import jacrev

from fantasyid.core.errors import CorruptWeightsError, MissingWeightsError
from fantasyid.geometry.flame import JOINT_NAMES, FlameModel, axis_angle_matrix
from tests.flame_files import NUM_VERTICES, flame_arrays, write_flame_2020, write_flame_2023, write_flame_npz

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "flame_deca.json").read_text())


@pytest.fixture(scope="module")
def flame(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame_2023(path)
    return FlameModel.load(path)


def code(batch=2):
    """Shape, expression and DECA's six numbers of pose, the last of them zero."""
    rng = np.random.RandomState(1)
    shape, expression, pose = (
        torch.tensor(rng.uniform(-2, 2, (batch, size)), dtype=torch.float32) for size in (100, 50, 6)
    )
    pose[1] = 0
    return shape, expression, pose


def turned(batch, **joints):
    rotations = torch.zeros(batch, len(JOINT_NAMES), 3)
    for name, value in joints.items():
        rotations[:, JOINT_NAMES.index(name)] = value
    return rotations


@pytest.mark.parametrize("write", [write_flame_2020, write_flame_npz])
def test_every_published_form_gives_the_same_model(flame, tmp_path, write):
    write(tmp_path / "flame.npz")
    other = FlameModel.load(tmp_path / "flame.npz")
    for name in FlameModel.__dataclass_fields__:
        ours, theirs = getattr(flame, name), getattr(other, name)
        assert ours == theirs if name == "parents" else torch.equal(ours, theirs)


def test_file_is_split_into_its_parts(flame):
    arrays = flame_arrays()
    np.testing.assert_allclose(flame.shape_basis, arrays["shapedirs"][..., :300], rtol=1e-6)
    np.testing.assert_allclose(flame.expression_basis, arrays["shapedirs"][..., 300:], rtol=1e-6)
    np.testing.assert_allclose(flame.joint_regressor, arrays["J_regressor"].toarray(), rtol=1e-6)
    assert flame.parents == (-1, 0, 1, 1, 1)
    assert flame.topology.num_vertices == NUM_VERTICES


def test_posed_heads_equal_the_authors_code(flame):
    shape, expression, pose = code()
    posed = flame.posed(shape, expression, turned(2, root=pose[:, :3], jaw=pose[:, 3:]))
    expected = torch.tensor(GOLDEN["flame_vertices"])
    torch.testing.assert_close(posed.vertices[:, ::13], expected, atol=1e-6, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 0.05


def test_a_head_without_rotations_is_the_shaped_one(flame):
    shape, expression, _ = code()
    posed = flame.posed(shape, expression, turned(2))
    torch.testing.assert_close(posed.vertices, flame.shaped(shape, expression), atol=1e-6, rtol=0)
    torch.testing.assert_close(posed.joints, flame.joint_regressor @ posed.vertices, atol=1e-6, rtol=0)
    padded = torch.nn.functional.pad(shape, (0, 200))
    torch.testing.assert_close(flame.shaped(padded), flame.shaped(shape, 0 * expression))


def test_root_turns_the_whole_head_about_its_joint(flame):
    shape, expression, _ = code()
    rotation = torch.tensor([0.3, -0.8, 0.2])
    resting = flame.posed(shape, expression, turned(2))
    posed = flame.posed(shape, expression, turned(2, root=rotation))
    centre = resting.joints[:, :1]
    expected = (resting.vertices - centre) @ axis_angle_matrix(rotation).T + centre
    torch.testing.assert_close(posed.vertices, expected, atol=1e-6, rtol=0)


def test_jaw_moves_what_hangs_on_it_and_its_correctives(flame):
    shape, expression, _ = code()
    still = flame.skinning_weights.clone()
    still[::2] = torch.eye(5)[JOINT_NAMES.index("neck")]
    model = FlameModel(**{**vars(flame), "skinning_weights": still, "pose_basis": torch.zeros_like(flame.pose_basis)})
    moved = (
        model.posed(shape, expression, turned(2, jaw=torch.tensor([0.3, 0.0, 0.0]))).vertices
        - model.shaped(shape, expression)
    ).norm(dim=-1)
    assert moved[:, ::2].max() < 1e-6
    assert moved[:, 1::2].mean() > 0.003


def test_axis_angle_is_the_right_hand_rule_and_smooth_at_zero():
    quarter = axis_angle_matrix(torch.tensor([0.0, torch.pi / 2, 0.0]))
    torch.testing.assert_close(quarter @ torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(axis_angle_matrix(torch.zeros(3)), torch.eye(3))
    slope = jacrev(axis_angle_matrix)(torch.zeros(3))
    torch.testing.assert_close(slope[2, 1], torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert slope.isfinite().all()


def test_gradients_reach_all_coefficients(flame):
    inputs = [tensor.requires_grad_() for tensor in (*code()[:2], turned(2, jaw=torch.tensor([0.2, 0.0, 0.1])))]
    flame.posed(*inputs).vertices.square().sum().backward()
    assert all((tensor.grad != 0).any(0).all() for tensor in inputs)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("shapedirs", lambda a: a[..., :150], r"shapedirs is of shape \(120, 3, 150\), not \(120, 3, 400\)"),
        ("weights", lambda a: a[:-1], "weights is of shape"),
        ("posedirs", lambda a: "none", "posedirs is no array"),
        ("posedirs", lambda a: None, "posedirs is missing"),
        ("kintree_table", lambda a: a[:, ::-1], "parents"),
        ("kintree_table", lambda a: a * np.nan, "kintree_table holds no finite numbers"),
        ("f", lambda a: a + 1, "f does not index the 120 vertices"),
        ("f", lambda a: a * 0, "f does not index the 120 vertices"),
        ("f", lambda a: a.astype(float), "f holds no finite numbers of the kind"),
        ("v_template", lambda a: a * np.inf, "v_template holds no finite numbers"),
        ("J_regressor", lambda a: csc_matrix((10**5, 10**5)), "J_regressor is of shape"),
        ("v_template", lambda a: csc_matrix(a), "v_template is no array"),
    ],
)
def test_a_file_that_is_not_flame_is_named_with_its_size_and_the_remedy(tmp_path, name, change, named):
    arrays = flame_arrays()
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({**arrays, name: change(arrays[name])}))
    with pytest.raises(CorruptWeightsError, match=named) as caught:
        FlameModel.load(path)
    for part in (str(path), "https://flame.is.tue.mpg.de", "register", "non-commercial", "CC-BY-4.0"):
        assert part in str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    write_flame_npz(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 255
    np.savez(tmp_path / "objects.npz", v_template=np.array([{}, 1], object))
    objects = (tmp_path / "objects.npz").read_bytes()
    for content in (whole[:5000], bytes(damaged), objects, b"<html>please log in</html>", pickle.dumps([1])):
        path = tmp_path / "flame.pkl"
        path.write_bytes(content)
        with pytest.raises(CorruptWeightsError, match=r"flame\.pkl.*flame\.is\.tue\.mpg\.de"):
            FlameModel.load(path)


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(MissingWeightsError, match=r"generic_model\.pkl; register at https://flame\.is\.tue\.mpg\.de"):
        FlameModel.load(tmp_path / "generic_model.pkl")


@pytest.mark.parametrize("form", ["pickle", "npz"])
def test_a_command_in_the_file_is_not_run(tmp_path, form):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "flame.npz"
    if form == "pickle":
        path.write_bytes(pickle.dumps({**flame_arrays(), "extra": Payload()}))
    else:
        write_flame_npz(path)
        with np.load(path) as archive:
            np.savez(path, **archive, extra=np.array([Payload()], object))
    with pytest.raises(CorruptWeightsError, match=r"refused|allow_pickle=False"):
        FlameModel.load(path)
    assert not (tmp_path / "ran").exists()


def test_model_moves_to_a_device(flame):
    moved = flame.to("meta")
    assert moved.template.device.type == moved.skinning_weights.device.type == "meta"
    assert moved.parents == flame.parents
