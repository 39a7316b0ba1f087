"""Pictures of heads: the right size, the right way round, and the head where the photo has it."""

import numpy as np
import pytest
import torch

from fantasyid.geometry.head_model import PART_NAMES
from fantasyid.geometry.pictures import overlay, part_colours, turntable
from fantasyid.geometry.projection import project, rotation_matrix

PAPER = 247  # 0.97 of 255


def covered_columns(picture):
    return np.flatnonzero((picture < PAPER).any(axis=(0, 2)))


def test_turntable_is_a_row_of_whole_heads_on_paper(head):
    picture = turntable(head.mean, head.triangles, part_colours(head), (-60.0, 0.0), height=100)
    assert picture.shape == (100, 180, 3)
    assert picture.dtype == np.uint8
    assert (picture[:3] == PAPER).all()
    assert (picture[-3:] == PAPER).all()
    for view in (picture[:, :90], picture[:, 90:]):
        assert 0.3 < (view < PAPER).any(axis=2).mean() < 0.7


def test_positive_yaw_looks_to_the_right_of_the_picture(head):
    # The eyes lie before the middle of the skull: with the head turned right they are right of the picture's middle.
    colours = torch.zeros_like(head.mean)
    eyes = (head.parts == PART_NAMES.index("eye_left")) | (head.parts == PART_NAMES.index("eye_right"))
    colours[eyes, 0] = 1.0
    for yaw, side in ((-60.0, -1), (60.0, 1)):
        view = turntable(head.mean, head.triangles, colours, [yaw], height=120).astype(int)
        red = np.argwhere(view[..., 0] > view[..., 1] + 30)[:, 1]
        assert red.size > 3
        assert (side * (red - 53.5) > 0).all()


def test_colours_are_those_of_the_parts(head):
    colours = part_colours(head)
    assert colours.shape == head.mean.shape
    eye, tongue, neck = (colours[head.parts == PART_NAMES.index(name)] for name in ("eye_left", "tongue", "neck"))
    assert eye.min() > neck.max()
    assert tongue[0, 0] > tongue[0, 1] + 0.2


@pytest.mark.parametrize("size", [(300, 200), (800, 600)])
def test_overlay_puts_the_head_where_the_anchors_are(head, size):
    height, width = size
    rotation = rotation_matrix(*torch.tensor([[20.0], [5.0], [-10.0]]))
    scale, place = width / 45, torch.tensor([[0.4 * width, 0.5 * height]])
    marks = head.landmarks478[[33, 263, 1, 61, 291]]
    anchors = head.mean[marks], project(head.mean[None], rotation, torch.tensor([scale]), place)[0, marks, :2]
    photo = np.full((height, width, 3), 30, np.uint8)
    picture = overlay(photo, head.mean, head.triangles, part_colours(head), rotation[0], anchors)
    assert picture.shape == ((300, 200, 3) if height == 300 else (640, 480, 3))

    drawn = (picture > 40).any(axis=2)
    pixels = project(head.mean[None], rotation, torch.tensor([scale]), place)[0, :, :2] * (picture.shape[0] / height)
    (left, top), (right, bottom) = pixels.amin(0).tolist(), pixels.amax(0).tolist()
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert columns[0] == pytest.approx(left, abs=2)
    assert columns[-1] == pytest.approx(right, abs=2)
    assert rows[0] == pytest.approx(top, abs=2)
    assert rows[-1] == pytest.approx(bottom, abs=2)
    assert (picture[~drawn] == 30).mean() > 0.98  # the photo itself elsewhere
    assert picture[drawn].max() < 180  # shows through: skin alone would be brighter
