"""What the face reader minimises."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fantasyid.data.face_views import FaceViews
from fantasyid.data.repose.rig import CANVAS, RigSet
from fantasyid.face.align import READER_SCALE, reader_transform, restore_points
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.projection import rotation_matrix
from fantasyid.models.face_reader import FaceCropReading, FaceReaderModel
from fantasyid.training.objectives.reader import ReaderObjective, _Crops, _join, degrade, mean_landmarks
from tests.tiny import noise, seeded

PEOPLE, BATCH = 9, 16
TERMS = ("xy_percent", "identity_cm", "expression_cm", "pose_deg", "confidence")
UNIT = CANVAS / 256  # canvas pixels of what a byte of the ramps counts


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def rigs(head: HeadModel) -> RigSet:
    """Ten photos of eight people, the first two with two photos each; red and green say where in the photo one is."""
    person = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
    count = len(person)
    points = (
        head.mean[head.landmarks478] * torch.tensor([7.0, -7.0, -7.0]) * UNIT + torch.tensor([128.0, 120.0, 0.0]) * UNIT
    )
    across = (torch.arange(CANVAS) / UNIT).expand(CANVAS, CANVAS)
    image = torch.stack([across, across.T, torch.zeros(CANVAS, CANVAS)]).repeat(count, 1, 1, 1)
    image[:, 2] = 20.0 * torch.arange(count)[:, None, None]
    yaw = torch.linspace(-8, 8, count)
    names = ("alpha", "backdrop", "scale", "translation", "sex", "decade", "weight", "residual")
    names += ("grid_depth", "grid_normal", "grid_triangle", "grid_weights")
    return RigSet(
        image=image.byte(),
        person=person,
        other=torch.tensor([1, 0, 3, 2, 4, 5, 6, 7, 8, 9]),
        landmarks=points.repeat(count, 1, 1),
        identity=noise(8, len(head.identity_basis), seed=1)[person],
        expression=0.3 * noise(count, len(head.expression_names), seed=2).abs(),
        rotation=rotation_matrix(yaw, 0 * yaw, 0 * yaw),
        **{name: torch.zeros(count, 1) for name in names},
    )


@pytest.fixture(scope="module")
def views(head: HeadModel) -> FaceViews:
    return FaceViews(
        crops=(255 * noise(PEOPLE, 4, 3, 128, 128, seed=3).sigmoid()).byte(),
        landmarks=noise(PEOPLE, 4, 478, 3, seed=4).sigmoid().half(),
        identity=noise(PEOPLE, len(head.identity_basis), seed=5),
        expression=0.3 * noise(PEOPLE, 4, len(head.expression_names), seed=6).abs().half(),
        pose_deg=10 * noise(PEOPLE, 4, 3, seed=7).half(),
    )


@dataclass(frozen=True)
class Recording(ReaderObjective):
    """The objective, keeping the crops it drew."""

    drawn: list[_Crops] = field(default_factory=list)

    def _rendered(self, count: int) -> _Crops:
        self.drawn[:] = [super()._rendered(count)]
        return self.drawn[0]

    def _real(self, count: int) -> _Crops:
        self.drawn[1:] = [super()._real(count)]
        return self.drawn[1]


class Knowing(nn.Module):
    """Stands where the network does and answers with what is known, but for the errors it is given."""

    device = torch.device("cpu")

    def __init__(self, goal: Recording, **errors: float) -> None:
        super().__init__()
        self.goal, self.errors = goal, errors

    def forward(self, pictures: Tensor) -> FaceCropReading:
        crops = _join(*self.goal.drawn)
        faces, others = len(crops.pictures), len(pictures) - len(crops.pictures)

        def answer(name: str) -> Tensor:
            known = getattr(crops, name)
            return torch.cat([known + self.errors.get(name, 0.0), known.new_zeros(others, *known.shape[1:])])

        sure = 20.0 + self.errors.get("confidence", 0.0)
        confidence = torch.cat([torch.full((faces,), sure), torch.full((others,), -sure)])
        names = ("landmarks", "identity", "expression", "pose_deg")
        return FaceCropReading(**{name: answer(name) for name in names}, confidence=confidence)


@pytest.fixture
def goal(views: FaceViews, rigs: RigSet, head: HeadModel) -> Recording:
    torch.manual_seed(0)
    return Recording(views, rigs, head, BATCH, np.random.default_rng(0))


def test_true_answers_cost_nothing(goal: Recording) -> None:
    losses = goal(Knowing(goal))
    for name in TERMS:
        assert losses[name] < 2e-4, name
    assert losses["rank1"] == 1
    assert losses["loss"] == pytest.approx(goal.contrast_weight * float(losses["contrast"]), abs=2e-3)


@pytest.mark.parametrize(
    ("wrong", "error", "term"),
    [
        ("landmarks", 0.02, "xy_percent"),
        ("identity", 0.5, "identity_cm"),
        ("expression", 0.2, "expression_cm"),
        ("pose_deg", 3.0, "pose_deg"),
        ("confidence", -40.0, "confidence"),
    ],
)
def test_each_term_sees_its_own_error_only(goal: Recording, wrong: str, error: float, term: str) -> None:
    right, losses = goal(Knowing(goal)), goal(Knowing(goal, **{wrong: error}))
    for name in TERMS:
        assert (losses[name] > right[name] + 1e-2) == (name == term), name
    assert losses["loss"] > right["loss"]
    if wrong == "landmarks":
        assert losses["xy_percent"] == pytest.approx(2, rel=1e-3)
    if wrong == "pose_deg":
        assert losses["pose_deg"] == pytest.approx(3, rel=1e-3)


def test_fitted_answers_count_less_than_known_ones(goal: Recording, rigs: RigSet) -> None:
    """A quarter of the crops are photos; if only their shape is wrong, the error weighs 0.3 of its share."""
    assert goal._is_real(8, 4).tolist() == [False, False, True, True] * 2
    moved = replace(rigs, identity=rigs.identity + 0.5)

    class Unmoved(Knowing):
        def forward(self, pictures: Tensor) -> FaceCropReading:
            reading, real = super().forward(pictures), self.goal._is_real(BATCH, 4)
            identity = reading.identity.clone()
            identity[:BATCH][real] -= 0.5
            return replace(reading, identity=identity)

    partly = replace(goal, rigs=moved)
    wrong = partly(Unmoved(partly))["identity_cm"]
    everywhere = goal(Knowing(goal, identity=0.5))["identity_cm"]
    assert float(wrong / everywhere) == pytest.approx(0.3 * 4 / (12 + 0.3 * 4), rel=0.01)


def test_halves_show_the_same_people(goal: Recording, rigs: RigSet) -> None:
    rendered, real = goal._rendered(8), goal._real(12)
    assert torch.equal(*rendered.identity.chunk(2))
    assert not torch.equal(*rendered.pictures.chunk(2))
    assert torch.equal(*real.identity.chunk(2))
    photo = (real.pictures[:, 2].mean((1, 2)) * 255 / 20).round().long()
    assert torch.equal(rigs.other[photo[:6]], photo[6:])
    assert (photo[:3] < 4).all()  # half of them have two photos
    assert torch.equal(real.identity, rigs.identity[photo])
    joined = _join(rendered, real)
    assert torch.equal(*joined.identity.chunk(2))
    assert torch.equal(joined.identity[:4], rendered.identity[:4])
    assert torch.equal(joined.identity[4:10], real.identity[:6])


def test_photos_are_cut_where_their_landmarks_say(goal: Recording) -> None:
    """Red and green at a crop's middle say where in the photo it is."""
    goal._rendered(2)
    real = goal._real(12)
    middle = real.pictures[:, :2, 63:65, 63:65].mean((2, 3)) * 255 * UNIT
    step = (real.pictures[:, 0, 64, 96] - real.pictures[:, 0, 64, 32]) * 255 * UNIT / 0.5  # red per crop, along u
    nose = goal.rigs.landmarks[0, 1, :2]
    for crop in range(12):
        offset = real.landmarks[crop, 1, :2] - 0.5
        assert (middle[crop] + step[crop] * offset - nose).norm() < 10 * UNIT  # exact but for the crop's tilt


def test_other_pictures_never_show_a_centred_face(goal: Recording) -> None:
    pictures = goal._other_pictures(80)
    exact = reader_transform(goal.rigs.landmarks[:1, :, :2] + 0.5)
    face_centre = exact[0, :, 2] + exact[0, :, :2].sum(-1) / 2
    face_side = float(exact[0, :, 0].norm())
    pieces = 0
    for picture in pictures:
        where = (picture[:2] * 255 + 0.5) * UNIT
        # Along u and v from the inner half, which a crop at the border shows too.
        along_u, along_v = (where[:, 64, 96] - where[:, 64, 64]) * 4, (where[:, 96, 64] - where[:, 64, 64]) * 4
        side = float(torch.maximum(along_u.norm(), along_v.norm()))
        distance = float((where[:, 63:65, 63:65].mean((1, 2)) - face_centre).norm())
        is_piece = side < 0.38 * face_side
        pieces += is_piece
        assert is_piece or distance > 0.43 * side
    assert 20 < pieces < 70
    assert READER_SCALE * 0.38 < 1  # a piece is smaller than the face


def test_a_person_drawn_twice_is_nobody_else(goal: Recording) -> None:
    people = noise(30, len(goal.head.identity_basis), seed=8)
    known = people.repeat(4, 1)  # each twice in either half
    loss, rank1 = goal._contrast(known.requires_grad_(), known.detach())
    assert loss < 0.3
    assert rank1 == 1
    caricature, _ = goal._contrast(3 * known.detach(), known.detach())
    assert caricature == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    assert known.grad is not None
    assert known.grad.isfinite().all()
    shifted = torch.cat([known.detach()[:60], known.detach()[60:].roll(1, 0)])
    assert goal._contrast(shifted, known.detach())[0] > 3


def test_every_parameter_of_the_network_gets_a_gradient(goal: Recording) -> None:
    widths = {"landmark_channels": 8, "landmark_width": 16, "head_channels": 8, "head_width": 32}
    model = seeded(FaceReaderModel, image_size=128, channels=(8, 8, 16, 16, 16), **widths)
    model.mean_landmarks.copy_(mean_landmarks(goal.rigs))
    goal(model)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_places_of_landmarks_tell_shape_too(goal: Recording) -> None:
    widths = {"landmark_channels": 8, "landmark_width": 16, "head_channels": 8, "head_width": 32}
    model = seeded(FaceReaderModel, image_size=128, channels=(8, 8, 16, 16, 16), **widths)
    before = model(noise(1, 3, 128, 128)).identity
    torch.nn.init.constant_(model.landmark_head[0].bias, 3.0)
    assert (model(noise(1, 3, 128, 128)).identity - before).abs().max() > 1e-3


def test_mean_landmarks_are_those_of_the_photos(rigs: RigSet) -> None:
    points = rigs.landmarks[:1] + torch.tensor([0.5, 0.5, 0.0])
    mean = mean_landmarks(rigs)
    assert torch.allclose(restore_points(mean[None], reader_transform(points[..., :2]), 1), points, atol=1e-3)
    assert mean[:, :2].min() > 0
    assert mean[:, :2].max() < 1


def test_degraded_pictures_stay_pictures_and_some_stay_as_they_are() -> None:
    torch.manual_seed(0)
    pictures = noise(64, 3, 32, 32).sigmoid()
    out = degrade(pictures, np.random.default_rng(0))
    assert out.shape == pictures.shape
    assert out.min() >= 0
    assert out.max() <= 1
    changed = (out - pictures).abs().flatten(1).amax(1) > 1e-6
    assert 0.4 < changed.float().mean() < 0.9
    covered = (out == out.roll(1, -1)).all(1).float().mean((1, 2)) > 0.005  # a patch of one colour
    assert 0.1 < covered.float().mean() < 0.4
