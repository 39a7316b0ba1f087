"""The identity basis re-estimated on people."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.population import reestimate_identity
from fantasyid.geometry.projection import project, rotation_matrix

PEOPLE, MODES = 24, 12
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def prior() -> HeadModel:
    head = HeadModel.load()
    return replace(head, identity_basis=head.identity_basis[:MODES])


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    """(PEOPLE, MODES): people who differ much in the first mode and little in the others, none of them the mean."""
    identity = 0.2 * torch.randn(PEOPLE, MODES, generator=torch.Generator().manual_seed(0))
    identity[:, 0] += torch.linspace(-3, 3, PEOPLE)
    identity[:, 1] += 1.5
    return identity


@pytest.fixture(scope="module")
def estimated(prior: HeadModel, truth: torch.Tensor) -> HeadModel:
    heads = prior.shape(truth, torch.zeros(PEOPLE, 52))[:, prior.landmarks478]
    rotation = rotation_matrix(*torch.tensor([[5.0], [0.0], [0.0]])).expand(PEOPLE, -1, -1)
    people = project(heads, rotation, torch.full((PEOPLE,), 8.0), torch.full((PEOPLE, 2), 100.0)).numpy()
    return reestimate_identity(prior, list(people[:, None]), np.ones(PEOPLE))


def spread(head: HeadModel) -> torch.Tensor:
    """Standard deviation over the face that the head model's unit Gaussian has, cm."""
    face = head.parts == PART_NAMES.index("face")
    return head.identity_basis[:, face].square().sum((0, 2)).mean().sqrt()


def test_the_mean_head_is_the_mean_of_the_people(prior: HeadModel, truth: torch.Tensor, estimated: HeadModel) -> None:
    face = prior.parts == PART_NAMES.index("face")
    symmetric = (prior.identity_basis[:, prior.mirror] * FLIP * prior.identity_basis).sum((1, 2)) > 0
    middle = torch.where(symmetric, truth.mean(0), 0.0)
    wanted = prior.shape(middle[None], torch.zeros(1, 52))[0, face]
    before = (prior.mean[face] - wanted).norm(dim=1).mean()
    assert (estimated.mean[face] - wanted).norm(dim=1).mean() < 0.75 * before


def test_the_strongest_mode_is_how_the_people_differ_most(prior: HeadModel, estimated: HeadModel) -> None:
    face = prior.parts == PART_NAMES.index("face")
    first, wanted = estimated.identity_basis[0, face].flatten(), prior.identity_basis[0, face].flatten()
    assert torch.nn.functional.cosine_similarity(first, wanted, dim=0).abs() > 0.97
    assert 1.3 < first.norm() / wanted.norm() < 2.3  # a uniform spread of -3 to 3 has a standard deviation of 1.7
    energy = estimated.identity_basis[:, face].square().sum((1, 2))
    assert (energy.diff() <= 0).all()
    assert energy[1:].sum() < 0.5 * prior.identity_basis[1:, face].square().sum()


def test_modes_stay_symmetric_or_antisymmetric_and_the_mean_symmetric(estimated: HeadModel) -> None:
    mirrored = estimated.identity_basis[:, estimated.mirror] * FLIP
    sign = (mirrored * estimated.identity_basis).sum((1, 2)).sign()[:, None, None]
    assert (mirrored - sign * estimated.identity_basis).abs().max() < 1e-4
    assert (estimated.mean[estimated.mirror] * FLIP - estimated.mean).abs().max() < 1e-4


def test_nothing_but_mean_and_basis_changes(prior: HeadModel, estimated: HeadModel) -> None:
    assert estimated.topology.hash == prior.topology.hash
    assert torch.equal(estimated.expression_basis, prior.expression_basis)
    assert estimated.identity_basis.shape == prior.identity_basis.shape


def test_people_who_count_for_nothing_change_nothing(prior: HeadModel, truth: torch.Tensor) -> None:
    heads = prior.shape(truth[:4], torch.zeros(4, 52))[:, prior.landmarks478]
    people = project(heads, torch.eye(3).expand(4, 3, 3), torch.full((4,), 8.0), torch.zeros(4, 2)).numpy()[:, None]
    some = reestimate_identity(prior, list(people[:2]), np.ones(2))
    weighted = reestimate_identity(prior, list(people), np.array([1.0, 1.0, 0.0, 0.0]))
    assert torch.allclose(some.mean, weighted.mean, atol=1e-5)
    assert spread(some) == pytest.approx(float(spread(weighted)), rel=1e-4)
