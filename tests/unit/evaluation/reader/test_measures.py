"""Measures of shapes against numbers worked out by hand or by brute force."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation.reader.measures import (
    Pairs,
    ShapeSignature,
    area_under_curve,
    coefficients,
    face_vertices,
    mean_of,
    median_distance,
    median_of,
    nearest_is_same,
    ratio_of,
    shape_distance,
    shape_line,
)
from fantasyid.geometry.head_model import HeadModel
from tests.tiny import tiny_face_reader_model

PERSON = np.array([0, 0, 1, 1, 2])
LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0], [1.0]])
"""Pictures as points on a line, so that two distances are equal."""
ONCE = np.ones(3, np.int64)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def pairs_on_a_line() -> Pairs:
    return Pairs.of(torch.cdist(LINE, LINE), PERSON)


def test_distance_of_shifted_heads_is_the_shift(head: HeadModel) -> None:
    heads = head.mean + torch.tensor([[[0.0, 0.0, 0.0]], [[0.3, 0.4, 0.0]], [[0.0, 0.0, 1.2]]])
    distance = shape_distance(heads[:1], heads)
    assert distance.shape == (1, 3)
    assert distance[0].tolist() == pytest.approx([0.0, 0.5, 1.2], abs=1e-5)
    assert 500 < face_vertices(head).sum() < len(head.mean)


def test_coefficients_of_a_head_are_those_it_was_made_of(head: HeadModel) -> None:
    identity = torch.randn(3, len(head.identity_basis), generator=torch.Generator().manual_seed(0))
    heads = head.shape(identity, torch.zeros(3, len(head.expression_names)))
    torch.testing.assert_close(coefficients(head, heads), identity, atol=5e-3, rtol=0)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 0, 3), (0, 3, 1)])
def test_area_under_curve_is_the_share_of_comparisons_won(counts: tuple[int, int, int]) -> None:
    """Brute force over drawn people, where pictures of one person drawn twice are no pair of two people."""
    drawn = [(copy, k) for k in range(5) for copy in range(counts[PERSON[k]])]
    own, others = [], []
    for (copy, a), (other_copy, b) in combinations(drawn, 2):
        distance = abs(float(LINE[a] - LINE[b]))
        if PERSON[a] != PERSON[b]:
            others.append(distance)
        elif copy == other_copy and a != b:
            own.append(distance)
    won = [1.0 if near < far else 0.5 if near == far else 0.0 for near in own for far in others]
    value = area_under_curve(pairs_on_a_line())(np.array(counts))
    assert value == pytest.approx(np.mean(won))


def test_no_pair_of_one_kind_is_no_number() -> None:
    pairs = pairs_on_a_line()
    assert area_under_curve(pairs)(np.array([1, 0, 0])) is None
    assert area_under_curve(pairs.where(~pairs.same))(ONCE) is None
    assert median_distance(pairs)(np.array([2, 0, 0])) is None


def test_nearest_picture() -> None:
    # Of picture 0 the nearest is 1 (its own) or 4, both at 1: argmin takes the first. 1 has 4, 2 has 1, 3 has 2 (own).
    statistic = nearest_is_same(torch.cdist(LINE, LINE), PERSON)
    assert statistic(ONCE) == pytest.approx(2 / 4)
    assert statistic(np.array([0, 1, 2])) == pytest.approx(1 / 2)
    assert statistic(np.array([0, 0, 3])) is None, "the person with one picture has no other"


def test_means_and_medians_repeat_people_as_often_as_they_are_drawn() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    assert mean_of(values, PERSON)(np.array([1, 0, 2])) == pytest.approx((1 + 2 + 20) / 4)
    assert median_of(values, PERSON)(np.array([1, 0, 2])) == pytest.approx(6.0)
    assert median_of(values, PERSON)(np.zeros(3, np.int64)) is None
    ratio = ratio_of(mean_of(values, PERSON), median_of(values, PERSON))
    assert ratio(ONCE) == pytest.approx(4.0 / 3.0)
    assert median_distance(pairs_on_a_line())(ONCE) == pytest.approx(np.median([2, 4, 1, 1, 3, 0, 1, 3]))


def test_interval_is_over_people_and_repeatable() -> None:
    person = np.arange(40).repeat(2)
    values = (person % 2).astype(float)
    line = shape_line("half", mean_of(values, person), 40, 0.4, "at least")
    assert line.value == 0.5
    assert line.met is True
    assert line.low is not None
    assert line.high is not None
    # The standard error over 40 people, not over 80 pictures.
    assert line.high - line.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.2)
    assert shape_line("half", mean_of(values, person), 40, 0.4, "at least") == line


def made_readings(seed: int, people: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """Two readings each of people who differ in three modes, wrong above all in a fourth, some of them cautious."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(people, 6)) * [1, 1, 1, 0.1, 0.1, 0.1]
    readings = truth[:, None] + rng.normal(size=(people, 2, 6)) * [0.1, 0.1, 0.1, 2.0, 0.1, 0.1]
    readings *= rng.uniform(0.2, 1.0, (people, 2, 1))
    return torch.from_numpy(readings.reshape(-1, 6) + 0.5), np.arange(people).repeat(2)


def test_signature_disregards_what_photos_of_one_person_disagree_about() -> None:
    signature = ShapeSignature.fit(*made_readings(seed=0))
    identity, person = made_readings(seed=1)
    once = np.ones(60, np.int64)
    plain = area_under_curve(Pairs.of(torch.cdist(identity, identity), person))(once)
    learned = area_under_curve(Pairs.of(signature.distance(identity), person))(once)
    assert plain is not None
    assert learned is not None
    assert plain < 0.8
    assert learned > 0.9


def test_signature_is_the_same_from_its_file(head: HeadModel, tmp_path: Path) -> None:
    identity, person = made_readings(seed=0)
    signature = ShapeSignature.fit(identity, person)
    reader, other = tiny_face_reader_model(), tiny_face_reader_model()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    signature.save(tmp_path / "signature.npz", head, reader)
    distance = ShapeSignature.load(tmp_path / "signature.npz", head, reader).distance(identity)
    torch.testing.assert_close(distance, signature.distance(identity), atol=0, rtol=0)
    assert distance.diagonal().abs().max() < 1e-12
    with pytest.raises(InvalidRequestError, match=r"nothing\.npz .* run the step calibrate first"):
        ShapeSignature.load(tmp_path / "nothing.npz", head, reader)
    with pytest.raises(InvalidRequestError, match="another head model"):
        ShapeSignature.load(tmp_path / "signature.npz", replace(head, identity_basis=2 * head.identity_basis), reader)
    with pytest.raises(InvalidRequestError, match="another face reader; run the step calibrate again"):
        ShapeSignature.load(tmp_path / "signature.npz", head, other)
