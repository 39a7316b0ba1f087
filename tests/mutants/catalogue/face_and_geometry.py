"""The head and its mesh, and reading a face (paper 3.2, 3.3 and 4.5)."""

from tests.mutants.mutation import Mutation

_ALIGN = "tests/unit/face/test_align.py::test_face_transform_brings_the_five_points_to_the_template"
_DECIMATE = "tests/unit/geometry/test_decimate.py::"
_EDITS = "tests/unit/geometry/test_edits.py::test_the_measure_changes_by_the_stated_centimetres"
_FIVE_POINTS = "tests/unit/face/test_pose.py::test_five_points_of_other_people_with_expressions"
_HEAD = "tests/unit/geometry/test_head_model.py::test_shape_is_linear_and_batched"
_NEUTRAL = "tests/unit/face/test_reconstruct_builtin.py::test_the_head_is_the_neutral_one_of_the_mesh"
_POSE = "tests/unit/face/test_pose.py::test_pose_of_a_posed_average_head"
_RINGS = "tests/unit/geometry/test_spirals.py::test_every_ring_goes_once_around_its_centre"
_SPIRALS = "tests/unit/geometry/test_spirals.py::test_spirals_start_at_the_centre_and_go_outwards_without_repeats"

GEOMETRY = (
    Mutation(
        "expressions move the head",
        "geometry/head_model.py",
        "identity @ self.identity_basis.flatten(1) + expression @ self.expression_basis.flatten(1)",
        "identity @ self.identity_basis.flatten(1)",
        _HEAD,
    ),
    Mutation(
        "people have heads of their own",
        "geometry/head_model.py",
        "self.mean + offsets.view(-1, *self.mean.shape)",
        "self.mean + offsets[:1].view(-1, *self.mean.shape)",
        _HEAD,
    ),
    Mutation(
        "spirals run counter-clockwise",
        "geometry/spirals.py",
        "spiral = {centre: None, **dict.fromkeys(rings[centre])}",
        "spiral = {centre: None, **dict.fromkeys(rings[centre][::-1])}",
        _RINGS,
    ),
    Mutation(
        "rings are not shuffled",
        "geometry/spirals.py",
        "ordered = list(spiral)[:length]",
        "ordered = [centre, *sorted(list(spiral)[1:length])]",
        _SPIRALS,
    ),
    Mutation(
        "a ring is ordered along the mesh",
        "geometry/spirals.py",
        "        current = outer\n    ordered",
        "        current = sorted(outer)\n    ordered",
        "tests/unit/geometry/test_decimate.py::test_every_level_has_the_spirals_of_its_mesh",
    ),
    Mutation(
        "an outer ring starts where the inner one does",
        "geometry/spirals.py",
        "for neighbour in ring[start:] + ring[:start]:",
        "for neighbour in sorted(ring):",
        _RINGS,
    ),
    Mutation(
        "a coarse vertex is one of the fine ones",
        "geometry/decimate.py",
        "down_index.append(np.repeat(kept[:, None], 3, axis=1))",
        "down_index.append(np.repeat(np.arange(count)[:, None], 3, axis=1))",
        _DECIMATE + "test_down_then_up_keeps_smooth_functions",
    ),
    Mutation(
        "every level has spirals of its own mesh",
        "geometry/decimate.py",
        "tuple(spiral_indices(level, spiral_length) for level in topologies)",
        "tuple(spiral_indices(level, spiral_length)[::-1] for level in topologies)",
        _DECIMATE + "test_every_level_has_the_spirals_of_its_mesh",
    ),
    Mutation(
        "spirals of a file are not shuffled",
        "geometry/decimate.py",
        'arrays[f"spirals_{n}"].astype(np.int64)',
        'np.sort(arrays[f"spirals_{n}"].astype(np.int64))',
        _DECIMATE + "test_every_level_has_the_spirals_of_its_mesh",
    ),
    Mutation(
        "edits have their strength",
        "geometry/edits.py",
        "vertices + strengths[name] * displacement",
        "vertices + displacement",
        _EDITS,
    ),
    Mutation(
        "edits reach what they move",
        "geometry/edits.py",
        "torch.linalg.solve(kernel(centres), values)",
        "values",
        _EDITS,
    ),
)
FACE = (
    Mutation(
        "faces are turned upright",
        "face/align.py",
        "[a, -b], dim=-1), torch.stack([b, a]",
        "[a, b], dim=-1), torch.stack([-b, a]",
        _ALIGN,
    ),
    Mutation(
        "faces are centred by the template",
        "face/align.py",
        "mean - linear @ target.mean(dim=0)",
        "mean - linear @ target[2]",
        _ALIGN,
    ),
    Mutation(
        "depth of landmarks points away from the viewer",
        "face/pose.py",
        "landmarks.new_tensor([1, -1, -1])",
        "landmarks.new_tensor([1, -1, 1])",
        _POSE,
    ),
    Mutation(
        "poses are rotations",
        "face/pose.py",
        "(left * proper[:, None]) @ right",
        "(left * proper[:, None]) @ right.mT",
        _POSE,
    ),
    Mutation(
        "five points lie in a picture",
        "face/pose.py",
        "points.new_tensor([1, -1])",
        "points.new_tensor([1, 1])",
        _FIVE_POINTS,
    ),
    Mutation(
        "five points tell the third axis",
        "face/pose.py",
        "torch.linalg.cross(across, up)",
        "torch.linalg.cross(up, across)",
        _FIVE_POINTS,
    ),
    Mutation(
        "the head is the neutral one",
        "face/reconstruct_builtin.py",
        "self._head.neutral(identity[None])[0]",
        "self._head.shape(identity[None], expression[None])[0]",
        _NEUTRAL,
    ),
    Mutation(
        "the head is that of the person",
        "face/reconstruct_builtin.py",
        "self._head.neutral(identity[None])[0]",
        "self._head.mean.clone()",
        _NEUTRAL,
    ),
)
