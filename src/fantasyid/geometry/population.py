"""Re-estimate the head model on photos: what unit-Gaussian coefficients describe, and where detectors put landmarks.

Expectation-maximisation of the linear Gaussian model of `fit_landmarks`: fits give every person's coefficients
and how unsure they are; their mean and covariance become the new mean head and basis. What landmarks do not show (the
back of the head) keeps the spread it had. What all fits miss alike is the detector's habit, not anyone's shape: it goes
into the landmarks' offsets, without which it would hide what people differ in.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fantasyid.geometry.fitting import HeadFit, fit_landmarks
from fantasyid.geometry.head_model import PART_NAMES, HeadModel
from fantasyid.geometry.projection import project

_ROUNDS = 4


def reestimate_identity(
    head: HeadModel,
    people: Sequence[NDArray[np.float32]],
    weight: NDArray[np.float64],
    progress: Callable[[Sequence[NDArray[np.float32]]], Sequence[NDArray[np.float32]]] = lambda people: people,
) -> HeadModel:
    """Fit mean, identity basis and landmark offsets to people.

    Args:
        head: A head model whose modes are each symmetric or antisymmetric, as `build_head_model` makes them.
        people: Landmarks of every person, (P, 478, 3) for P photos, as `fit_landmarks` takes them.
        weight: (M,) how much each person counts.
        progress: Wraps the people of each of the rounds, to show how far it is.

    Returns:
        The same head with another mean, basis and offsets, as many modes, strongest first, each symmetric or
        antisymmetric; the origin is again midway between the mean head's eyes.
    """
    share = torch.from_numpy(weight / weight.sum()).double()
    for _ in range(_ROUNDS):
        fits = [fit_landmarks(head, photos) for photos in progress(people)]
        identity = torch.stack([fit.identity for fit in fits]).double()
        unsure = torch.stack([fit.identity_covariance for fit in fits]).double()
        missed = torch.stack([_missed(head, fit, photos) for fit, photos in zip(fits, people, strict=True)])
        offset = head.landmark_offset.double() + torch.einsum("m,mpd->pd", share, missed)
        head = _rebase(replace(head, landmark_offset=offset.float()), identity, unsure, share)
    return head


def _missed(head: HeadModel, fit: HeadFit, photos: NDArray[np.float32]) -> Tensor:
    """(478, 3) cm in head space from the fitted to the given landmarks, mean over the photos of one person."""
    shape = head.landmarks(head.shape(fit.identity.expand(len(photos), -1), fit.expression))
    fitted = project(shape, fit.rotation, fit.scale, fit.translation)[..., :2]
    flat = (torch.from_numpy(photos[..., :2]) - fitted) / fit.scale[:, None, None] * shape.new_tensor([1.0, -1.0])
    turned = torch.nn.functional.pad(flat, (0, 1)) @ fit.rotation
    return torch.where((head.landmarks478 >= 0)[:, None], turned.mean(0), 0.0).double()


def _rebase(head: HeadModel, identity: Tensor, unsure: Tensor, share: Tensor) -> HeadModel:
    """The head whose unit Gaussian is the population of these fits and of their mirror images."""
    basis = head.identity_basis.double()
    mirrored = basis[:, head.mirror] * basis.new_tensor([-1.0, 1.0, 1.0])
    symmetric = (basis * mirrored).sum((1, 2)) > 0
    # The mirror image of a person has the same symmetric coefficients and the opposite antisymmetric ones.
    middle = torch.where(symmetric, share @ identity, 0.0)
    offset = identity - middle
    covariance = torch.einsum("m,mj,mk->jk", share, offset, offset) + torch.einsum("m,mjk->jk", share, unsure)
    covariance = covariance * (symmetric[:, None] == symmetric)
    strength, direction = torch.linalg.eigh(covariance)
    modes = torch.einsum("jk,jnd->knd", direction * strength.sqrt(), basis)
    face = head.parts == PART_NAMES.index("face")
    modes = modes[modes[:, face].square().sum((1, 2)).argsort(descending=True)]
    flat = modes.flatten(1)
    strongest = flat.abs().argmax(1, keepdim=True)
    modes = modes * flat.gather(1, strongest).sign()[..., None]  # the sign of an eigenvector is arbitrary
    mean = head.mean.double() + torch.einsum("k,knd->nd", middle, basis)
    eyes = [mean[head.parts == PART_NAMES.index(name)] for name in ("eye_left", "eye_right")]
    mean = mean - torch.stack([(eye.amax(0) + eye.amin(0)) / 2 for eye in eyes]).mean(0)
    return replace(head, mean=mean.float(), identity_basis=modes.float())
