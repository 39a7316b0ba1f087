"""Vertices that are no head are refused with what is wrong; every head we make passes."""

import pytest
import torch
from torch import Tensor

from fantasyid.core.errors import ImpossibleHeadError
from fantasyid.geometry.edit_table import EDIT_NAMES
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.head_check import check_heads
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import rotation_matrix


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def turned(vertices: Tensor, yaw: float = 0, pitch: float = 0, roll: float = 0) -> Tensor:
    return vertices @ rotation_matrix(*torch.tensor([yaw, pitch, roll])).T


def test_people_and_edited_heads_pass(head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(0)
    coefficients = 4 * torch.randn(40, len(head.identity_basis), generator=generator)
    check_heads(head.shape(coefficients, torch.zeros(40, len(head.expression_basis))), head.mean)
    editor = HeadEditor(head)
    for strength in (-1.0, 1.0):
        edited = editor.edit(head.mean, head.topology.hash, dict.fromkeys(EDIT_NAMES, strength))
        check_heads(edited[None], head.mean)
    check_heads(turned(head.mean, yaw=20, pitch=15)[None], head.mean)
    check_heads(head.mean[None], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: 0 * v, "lie in one point"),
        (lambda v: v / 100, r"0\.0\d+ times as large .*, so it is in metres; multiply its vertices by 100\."),
        (lambda v: v * 10, r"so it is in millimetres; multiply its vertices by 0\.1\."),
        (lambda v: v * 1e6, r"e\+05|1e\+06 times as large as a head"),
        (lambda v: v * float("nan"), "not finite"),
        (lambda v: torch.where(torch.arange(len(v))[:, None] == 7, float("inf"), v), "not finite"),
        (lambda v: v + torch.tensor([0.0, 150.0, 0.0]), r"1\d\d cm from where heads lie; move its .*, -1\d\d, "),
    ],
)
def test_what_is_no_head_is_refused(head: HeadModel, change, message: str) -> None:
    for mean_head in (head.mean, None):
        with pytest.raises(ImpossibleHeadError, match=message):
            check_heads(torch.stack([head.mean, change(head.mean)]), mean_head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: turned(v, pitch=-90), "turned by 90 degrees, as if it lay on its back"),
        (lambda v: turned(v, yaw=180), "turned by 180 degrees"),
        (lambda v: turned(v, roll=180), "turned by 180 degrees"),
        (lambda v: turned(v, yaw=60), "turned by 60 degrees"),
        (lambda v: v.flip(0), "no head of this mesh"),
        (lambda v: v[:, [1, 0, 2]], "no head of this mesh|turned by"),
        (lambda v: 7 * torch.randn(v.shape, generator=torch.Generator().manual_seed(0)), "no head of this mesh"),
    ],
)
def test_direction_and_order_are_those_of_the_mean_head(head: HeadModel, change, message: str) -> None:
    with pytest.raises(ImpossibleHeadError, match=message):
        check_heads(change(head.mean)[None], head.mean)
