"""Shrinking the reader's shape where photos of one person disagree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation.reader.measures import coefficients
from fantasyid.face.reader import FaceReader
from fantasyid.face.reconstruct_builtin import Mirror
from fantasyid.geometry.head_model import HeadModel
from fantasyid.models.face_reader import FaceReaderModel
from fantasyid.training.shrink_shape import Shrinkage
from tests.commands import refusal
from tests.unit.face.faces import portrait

PEOPLE = 4000
MIRROR = torch.tensor([1.0, 1.0, -1.0, -1.0])
SHAPE = torch.tensor([1.0, 0.5, 1.0, 0.3])
ERROR = torch.tensor([0.1, 0.5, 1.0, 0.6])


def draw(people: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Shapes of people, two readings of each, and whose they are."""
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(people, 4, generator=generator) * SHAPE + torch.tensor([0.5, 0.0, 0.0, 0.0])
    read = shape.repeat(2, 1) + torch.randn(2 * people, 4, generator=generator) * ERROR
    return shape, read, np.tile(np.arange(people) * 3, 2)


def test_it_is_the_expected_shape() -> None:
    _, read, person = draw(PEOPLE)
    shrinkage = Shrinkage.fit(read, person, MIRROR)
    expected = SHAPE**2 / (SHAPE**2 + ERROR**2)
    torch.testing.assert_close(shrinkage.matrix.float(), expected.diag(), atol=0.05, rtol=0)
    torch.testing.assert_close(shrinkage.centre.float(), torch.tensor([0.5, 0.0, 0.0, 0.0]), atol=0.03, rtol=0)


def test_a_mirrored_reading_becomes_the_mirror_image() -> None:
    _, read, person = draw(40)
    shrinkage = Shrinkage.fit(read, person, MIRROR)
    assert shrinkage.matrix[:2, :2].diag().min() > 0
    assert shrinkage.matrix[:2, 2:].abs().max() < 1e-6
    assert shrinkage.matrix[2:, :2].abs().max() < 1e-6
    assert shrinkage.centre[2:].abs().max() < 1e-6


def test_people_with_one_photo_teach_the_spread_and_nothing_of_the_error() -> None:
    _, read, person = draw(PEOPLE)
    alone = torch.randn(PEOPLE, 4, generator=torch.Generator().manual_seed(1)) * 3
    with_others = Shrinkage.fit(torch.cat([read, alone]), np.concatenate([person, 10**6 + np.arange(PEOPLE)]), MIRROR)
    spread = (2 * (SHAPE**2 + ERROR**2) + 9) / 3  # two thirds of the readings, and the others
    expected = (spread - ERROR**2) / spread
    torch.testing.assert_close(with_others.matrix.diag().float(), expected, atol=0.06, rtol=0)


def test_what_only_differs_between_photos_is_taken_out() -> None:
    _, read, person = draw(200)
    read[:, 1] = torch.randn(400, generator=torch.Generator().manual_seed(2))
    read[200:, 1] = -read[:200, 1]  # less alike than by chance: the spread of people comes out negative
    matrix = Shrinkage.fit(read, person, MIRROR).matrix
    assert matrix[1].abs().max() < 0.02
    assert matrix[0, 0] > 0.9


def test_part_of_the_way() -> None:
    _, read, person = draw(200)
    whole = Shrinkage.fit(read, person, MIRROR)
    assert torch.equal(whole.part_way(0).matrix, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(whole.part_way(1).matrix, whole.matrix)
    half = (whole.matrix + torch.eye(4, dtype=torch.float64)) / 2
    torch.testing.assert_close(whole.part_way(0.5).matrix, half)


def test_too_few_people_are_refused() -> None:
    _, read, person = draw(3)
    with pytest.raises(InvalidRequestError, match="two photos that could be read: 3; 4 coefficients"):
        Shrinkage.fit(read, person, MIRROR)


def test_the_reader_answers_what_the_map_makes_of_its_answers() -> None:
    head = HeadModel.load()
    model = load_component(MINI_FOLDER, "face_reader_model")
    assert isinstance(model, FaceReaderModel)
    mirror = Mirror.of(head).identity
    count = len(mirror)
    read = torch.randn(4 * count, count, generator=torch.Generator().manual_seed(3))
    shrinkage = Shrinkage.fit(read, np.tile(np.arange(2 * count), 2), mirror).part_way(0.5)

    def identity() -> torch.Tensor:
        return coefficients(head, FaceReader(model).read(portrait()).head.vertices[None])[0].double()

    before, pose = identity(), FaceReader(model).read(portrait()).head.pose
    shrinkage.apply(model)
    expected = shrinkage.centre + shrinkage.matrix @ (before - shrinkage.centre)
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(identity(), expected, atol=1e-3, rtol=0)
    assert FaceReader(model).read(portrait()).head.pose == pose


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    lines = ["id,person,file,sex,split,face_x0,face_y0,face_x1,face_y1"]
    for name in ("a1", "a2", "b1"):
        Image.fromarray(portrait()).save(tmp_path / f"{name}.png")
        lines.append(f"{name},{name[0]},{name}.png,female,{'val' if name[0] == 'b' else 'train'},97,77,187,180")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    (tmp_path / "people.txt").write_text("b\n")
    load_component(MINI_FOLDER, "face_reader_model").save_pretrained(tmp_path / "reader")
    given = {"reader": "reader", "manifest": "manifest.csv", "photos": ".", "leave-out": "people.txt", "out": "o"}
    arguments = [word for name, place in given.items() for word in (f"--{name}", tmp_path / place)]
    message = refusal("train", "shrink-shape", *arguments)
    assert "two photos that could be read: 1; 60 coefficients" in message
    assert not (tmp_path / "o").exists()
