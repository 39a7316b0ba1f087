"""Edits of the head: by the stated centimetres, in their region, as mirror images, and nothing pokes through."""

from pathlib import Path

import pytest
import torch

from fantasyid.core.errors import InvalidRequestError, TopologyMismatchError
from fantasyid.geometry.edit_table import EDIT_NAMES, EDITS
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.head_model import PART_NAMES
from fantasyid.geometry.projection import project, rotation_matrix
from fantasyid.geometry.raster import rasterise

ROOT = Path(__file__).parents[3]
FLIP = torch.tensor([-1.0, 1.0, 1.0])
EYES = [PART_NAMES.index(name) for name in ("eye_left", "eye_right")]
MOUTH = [PART_NAMES.index(name) for name in ("mouth_interior", "teeth_upper", "teeth_lower", "tongue")]
edits = pytest.mark.parametrize("edit", EDITS, ids=EDIT_NAMES)


@pytest.fixture(scope="module")
def editor(head):
    return HeadEditor(head)


@pytest.fixture(scope="module")
def person(head):
    identity = torch.randn(1, len(head.identity_basis), generator=torch.Generator().manual_seed(3))
    return head.shape(identity, torch.zeros(1, len(head.expression_names)))[0]


def distance_to_moved(head, edit):
    moved = head.landmarks478[list(edit.moves)]
    return torch.cdist(head.mean, head.mean[torch.cat([moved, head.mirror[moved]])]).amin(dim=1)


def test_zero_is_the_head_itself(head, editor, person):
    for strengths in ({}, dict.fromkeys(EDIT_NAMES, 0.0)):
        assert torch.equal(editor.edit(person, head.topology.hash, strengths), person)


@edits
@pytest.mark.parametrize("strength", [1.0, -1.0, 0.3])
def test_the_measure_changes_by_the_stated_centimetres(head, editor, person, edit, strength):
    edited = editor.edit(person, head.topology.hash, {edit.name: strength})
    change = editor.measure_cm(edited, edit) - editor.measure_cm(person, edit)
    assert change == pytest.approx(strength * edit.change_cm, abs=1e-4)
    assert editor.measure_cm(head.mean, edit) > abs(edit.change_cm)


@edits
def test_both_halves_are_mirror_images(head, editor, edit):
    displacement = editor.displacement(edit.name)
    assert torch.equal(displacement[head.mirror], displacement * FLIP)


@edits
def test_the_rest_stays(head, editor, edit):
    moved = editor.displacement(edit.name).norm(dim=1)
    pins = head.landmarks478[list(edit.pins)]
    assert moved[pins].max() < 1e-5
    assert moved[head.mirror[pins]].max() < 1e-5
    # A wider face takes ears and temples along; the others fade sooner.
    assert moved[distance_to_moved(head, edit) > 3].max() < (0.2 if edit.name == "face-width" else 0.05)
    marks = torch.cat([pins, head.landmarks478[list(edit.moves)]])
    distance = torch.cdist(head.mean, head.mean[torch.cat([marks, head.mirror[marks]])]).amin(dim=1)
    skin = head.parts < PART_NAMES.index("eye_left")  # the others move as one body, whose nearest point may be nearer
    beyond = (distance > edit.reach_cm) & skin
    assert beyond.any()
    assert moved[beyond].max() == 0


def test_edits_compose_in_any_order_and_can_be_taken_back(head, editor, person):
    topology_hash = head.topology.hash
    both = editor.edit(person, topology_hash, {"nose-width": 0.5, "chin-length": -0.4})
    one_by_one = editor.edit(person, topology_hash, {"chin-length": -0.4})
    one_by_one = editor.edit(one_by_one, topology_hash, {"nose-width": 0.5})
    assert torch.allclose(both, one_by_one, atol=1e-5)
    back = editor.edit(both, topology_hash, {"chin-length": 0.4, "nose-width": -0.5})
    assert torch.allclose(back, person, atol=1e-5)


def test_batches_and_dtypes_are_kept(head, editor, person):
    batch = torch.stack([person, head.mean]).half()
    edited = editor.edit(batch, head.topology.hash, {"face-width": 1.0})
    assert edited.shape == batch.shape
    assert edited.dtype == torch.float16
    assert not torch.equal(edited, batch)


@edits
def test_the_surface_neither_folds_nor_tears(head, editor, edit):
    displacement = editor.displacement(edit.name)
    first, second = torch.from_numpy(head.topology.edges).T
    strain = (displacement[first] - displacement[second]).norm(dim=1) / (head.mean[first] - head.mean[second]).norm(
        dim=1
    )
    assert strain.max() < 0.7


@pytest.fixture(scope="module")
def seen_before(head, person):
    return visible_parts(head, person[None])[0]


@edits
def test_nothing_pokes_through(head, editor, person, seen_before, edit):
    heads = [editor.edit(person, head.topology.hash, {edit.name: strength}) for strength in (1.0, -1.0)]
    for seen in visible_parts(head, torch.stack(heads)):
        assert seen[MOUTH].sum() <= seen_before[MOUTH].sum() + 6
        assert torch.allclose(seen[EYES], seen_before[EYES], rtol=0.1, atol=6)


def visible_parts(head, heads):
    """Pixels that show each part of each head, seen from 30 degrees."""
    batch = len(heads)
    rotation = rotation_matrix(torch.full((batch,), 30.0), torch.zeros(batch), torch.zeros(batch))
    pixels = project(heads, rotation, torch.full((batch,), 8.0), torch.full((batch, 2), 70.0))
    index, _ = rasterise(pixels, head.triangles, 140, 140)
    parts = head.parts[head.triangles[index.clamp(min=0), 0]].long()
    shown = [part[visible] for part, visible in zip(parts, index >= 0, strict=True)]
    return torch.stack([torch.bincount(part, minlength=len(PART_NAMES)).float() for part in shown])


@edits
def test_eyes_and_teeth_keep_their_shape(head, editor, edit):
    displacement = editor.displacement(edit.name)
    for name in ("eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue"):
        moved = displacement[head.parts == PART_NAMES.index(name)]
        assert (moved - moved[0]).abs().max() < 1e-6
    eye = displacement[head.parts == PART_NAMES.index("eye_left")][0]
    assert eye[0] == pytest.approx(0.3 if edit.name == "eye-spacing" else 0.0, abs=1e-5)


@pytest.mark.parametrize("strength", [1.01, -2.0, float("nan"), float("inf")])
def test_strengths_out_of_range_are_named(head, editor, strength):
    with pytest.raises(InvalidRequestError, match=f"face-width is {strength:g}; .* between -1 and 1"):
        editor.edit(head.mean, head.topology.hash, {"face-width": strength})


def test_unknown_names_list_those_there_are(head, editor):
    with pytest.raises(InvalidRequestError, match=f"no edit 'ear-size'; there are {', '.join(EDIT_NAMES)}"):
        editor.edit(head.mean, head.topology.hash, {"ear-size": 0.1})


def test_other_meshes_are_refused(head, editor):
    with pytest.raises(TopologyMismatchError, match=head.topology.hash):
        editor.edit(torch.zeros(5023, 3), "0" * 64, {"face-width": 0.1})


@edits
def test_the_documentation_states_what_the_edit_does(edit):
    first, second, _ = edit.measure
    text = (ROOT / "docs" / "editing.md").read_text()
    assert f"| `{edit.name}` | {edit.measured} ({first}, {second}) | {edit.change_cm:+g} cm" in text
