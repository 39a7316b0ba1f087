"""Every metric on videos whose answer is known, and against a computation of its own."""

import pkgutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from skimage.data import astronaut
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import cosine_similarity

from fantasyid.core.errors import InvalidRequestError
from fantasyid.evaluation import metrics
from fantasyid.evaluation.identity import FaceTrack, Judge
from fantasyid.evaluation.metrics.copy_paste import CopyPaste, light
from fantasyid.evaluation.metrics.face_frechet_distance import MOST_FRAMES, FaceFrechetDistance, frechet_distance
from fantasyid.evaluation.metrics.interface import Measured, value_of_one
from fantasyid.evaluation.metrics.registry import all_metrics, metric_of
from fantasyid.evaluation.reader.measures import face_vertices
from fantasyid.evaluation.seen import Instruments, Reference, SeenHeads, SeenVideo
from fantasyid.face.types import DetectedFace
from tests.unit.evaluation.seen_videos import BLACK, UNASKED, person, seen

PHOTO = astronaut()[0:256, 96:352]
FACE = DetectedFace(box=(0.0, 0.0, 64.0, 64.0), score=1.0)
RNG = np.random.default_rng(5)
PLACE = frozenset({"pose", "expression", "light"})
NEED_TWO_FRAMES = {
    *("structure_spread", "expression_range", "yaw_range", "pitch_range", "roll_range", "inter_frame_similarity"),
    *("face_motion", "face_motion_per_second", "face_motion_without_camera", "jitter", "flicker"),
}
OF_SETS = {"copy_paste_pose", "copy_paste_expression", "copy_paste_light"}
OF_GIVEN_NETWORKS = {metric.definition.key for metric in all_metrics() if metric.definition.network}


# What the registry holds


def test_every_file_has_metrics_and_says_what_they_are() -> None:
    files = {file.name for file in pkgutil.iter_modules(metrics.__path__)} - {"interface", "registry"}
    modules = {type(metric).__module__.rpartition(".")[2] for metric in all_metrics()}
    assert modules == files
    for metric in all_metrics():
        text = __import__(type(metric).__module__, fromlist=["x"]).__doc__
        for word in ("Definition:", "Unit:", "Range:", "Source:"):
            assert word in text, f"{metric.definition.key} does not say its {word}"


def test_a_new_file_is_a_new_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(metrics.__path__[0], "jitter.py").read_text()
    (tmp_path / "shaking.py").write_text(text.replace('"jitter"', '"shaking"'))
    all_metrics.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
        assert metric_of("shaking").definition.unit == "face widths per frame²"
    all_metrics.cache_clear()
    with pytest.raises(InvalidRequestError, match=r"no metric 'shaking'; there are .*jitter"):
        metric_of("shaking")


def test_the_recognisers_name_is_part_of_its_numbers() -> None:
    assert metric_of("reference_similarity").definition.title("arcface glintr100") == "RS (arcface glintr100)"
    assert metric_of("face_motion").definition.title("arcface glintr100") == "FM, face widths per frame"


# Known videos, seen by the built-in instruments


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    return Instruments.load(Judge.builtin())


@pytest.fixture(scope="module")
def reference(instruments: Instruments, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    cv2.imwrite(str(path), PHOTO[..., ::-1])
    return Reference.read(path, instruments)


def values(instruments: Instruments, reference: Reference, *frames: NDArray[np.uint8]) -> dict[str, float | None]:
    video = SeenVideo(lambda: frames, 8, instruments, "", PLACE)
    found = {metric.definition.key: value_of_one(metric, video, reference) for metric in all_metrics()}
    for metric in all_metrics():
        value, (low, high) = found[metric.definition.key], metric.definition.bounds
        assert value is None or low <= value <= high + 1e-6, f"{metric.definition.key} is {value}"
    return found


def test_a_frozen_copy_of_the_photo(instruments: Instruments, reference: Reference) -> None:
    found = values(instruments, reference, PHOTO, PHOTO, PHOTO)
    still = NEED_TWO_FRAMES - {"inter_frame_similarity"}
    assert {key: found[key] for key in still} == pytest.approx(dict.fromkeys(still, 0), abs=1e-5)
    assert (found["detection_rate"], found["verification_rate"]) == (1, 1)
    assert found["median_distance"] == pytest.approx(0, abs=1e-6)
    assert found["reference_similarity"] == found["inter_frame_similarity"] == pytest.approx(1)
    assert found["face_frechet_distance"] == pytest.approx(0, abs=1e-5)


def test_a_video_without_a_face(instruments: Instruments, reference: Reference) -> None:
    found = values(instruments, reference, BLACK, BLACK)
    assert {key for key, value in found.items() if value is not None} == {"detection_rate", "verification_rate"}
    assert found["detection_rate"] == found["verification_rate"] == 0


def test_one_frame(instruments: Instruments, reference: Reference) -> None:
    found = values(instruments, reference, PHOTO)
    assert {key for key, value in found.items() if value is None} == NEED_TWO_FRAMES | OF_SETS | OF_GIVEN_NETWORKS


def test_of_two_people_the_larger_counts(instruments: Instruments, reference: Reference) -> None:
    group = np.zeros((256, 400, 3), np.uint8)
    group[:, :256] = PHOTO
    group[64:208, 256:] = cv2.resize(PHOTO[:, ::-1], (144, 144))
    found = values(instruments, reference, group, group)
    assert found["median_distance"] < 0.1
    assert found["structure_spread"] == pytest.approx(0, abs=1e-6)


def test_frames_without_a_face_are_counted_and_not_measured(instruments: Instruments, reference: Reference) -> None:
    found = values(instruments, reference, PHOTO, BLACK[:1].repeat(256, 0).repeat(4, 1), PHOTO)
    assert found["detection_rate"] == found["verification_rate"] == pytest.approx(2 / 3)
    assert found["structure_spread"] == pytest.approx(0, abs=1e-6)
    assert found["jitter"] is found["flicker"] is found["inter_frame_similarity"] is None, "no neighbours"


def test_the_size_of_the_frames_changes_little(instruments: Instruments, reference: Reference) -> None:
    small = [PHOTO[4:, shift : shift + 252] for shift in (0, 4, 0)]
    large = [cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in small]
    first, second = (values(instruments, reference, *frames) for frames in (small, large))
    assert second["face_motion"] == pytest.approx(first["face_motion"], rel=0.1)
    assert second["jitter"] == pytest.approx(first["jitter"], rel=0.2)
    assert second["reference_similarity"] == pytest.approx(first["reference_similarity"], abs=0.05)


# Against a computation of its own


def with_faces(*there: bool) -> SeenVideo:
    faces = tuple(FACE if here else None for here in there)
    return seen([BLACK] * len(faces), UNASKED, FaceTrack(faces, (None,) * len(faces)))


def triples_of(there: tuple[bool, ...]) -> Iterator[tuple[int, int, int]]:
    """Places among the frames with a face of three that follow each other."""
    order = {frame: place for place, frame in enumerate(frame for frame, here in enumerate(there) if here)}
    for frame in range(len(there) - 2):
        if {frame, frame + 1, frame + 2} <= set(order):
            yield order[frame], order[frame + 1], order[frame + 2]


THERE = (True, True, True, True, False, True, True, False, True, True, True)
FOUND = sum(THERE)


def measured(key: str, video: SeenVideo) -> float | None:
    return value_of_one(metric_of(key), video, person(np.ones(3, np.float32)))


def test_structure_spread_equals_its_definition() -> None:
    video, heads = with_faces(*THERE), RNG.normal(size=(FOUND, 7, 3))
    video.heads = SeenHeads(heads, np.zeros((FOUND, 3)), np.zeros((FOUND, 52)))
    squares = [
        (heads[frame, vertex, axis] - heads[:, vertex, axis].mean()) ** 2
        for frame in range(FOUND)
        for vertex in range(7)
        for axis in range(3)
    ]
    assert measured("structure_spread", video) == pytest.approx((sum(squares) / (FOUND * 7)) ** 0.5, abs=1e-5)


def test_pose_ranges_equal_their_definition() -> None:
    video, angles = with_faces(*THERE), RNG.normal(size=(FOUND, 3)) * 20
    video.heads = SeenHeads(np.zeros((FOUND, 1, 3)), angles, np.zeros((FOUND, 52)))
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        ordered = sorted(angles[:, axis])
        low, high = (np.interp(share * (FOUND - 1), range(FOUND), ordered) for share in (0.05, 0.95))
        assert measured(f"{name}_range", video) == pytest.approx(high - low, abs=1e-5)
    video.heads = SeenHeads(np.zeros((2, 1, 3)), np.array([[0, 0, 179.0], [0, 0, -179.0]]), np.zeros((2, 52)))
    assert measured("roll_range", video) == pytest.approx(0.9 * 2), "angles go on beyond a half turn"


def test_expression_range_equals_its_definition() -> None:
    video, expression = with_faces(*THERE), RNG.random((FOUND, 52))
    video.heads = SeenHeads(np.zeros((FOUND, 1, 3)), np.zeros((FOUND, 3)), expression)
    head = video.instruments.head_model
    shapes = head.shape(np_zeros(head, FOUND), torch.from_numpy(expression).float()).double().numpy()
    skin = shapes[:, face_vertices(head).numpy()]
    apart = np.sqrt(np.square(np.linalg.norm(skin - skin.mean(axis=0), axis=2)).mean())
    assert measured("expression_range", video) == pytest.approx(apart, abs=1e-5)


def np_zeros(head: object, count: int) -> object:
    """Identity coefficients (count,K) of the mean head."""
    return head.identity_basis.new_zeros(count, len(head.identity_basis))


def test_jitter_equals_its_definition() -> None:
    video, points = with_faces(*THERE), RNG.normal(size=(FOUND, 478, 3)).astype(np.float32) * 30
    video.landmarks = points
    shaken = []
    for a, b, c in triples_of(THERE):
        width = points[b, :, 0].max() - points[b, :, 0].min()
        halfway = (points[a, :, :2].astype(float) + points[c, :, :2]) / 2
        shaken.append(2 * np.hypot(*(halfway - points[b, :, :2]).T).mean() / width)
    assert len(shaken) == 3
    assert measured("jitter", video) == pytest.approx(sum(shaken) / 3, abs=1e-5)


def test_steady_motion_does_not_jitter_and_a_jump_does() -> None:
    video, face = with_faces(True, True, True, True), RNG.random((478, 3)).astype(np.float32) * 64
    steps = np.array([[0.0], [3.0], [6.0], [9.0]], np.float32)
    video.landmarks = face + steps[..., None] * np.array([1, -0.5, 0], np.float32)
    assert measured("jitter", video) == pytest.approx(0, abs=1e-5)
    jump = with_faces(True, True, True)
    jump.landmarks = face + np.array([0, 5, 0], np.float32)[:, None, None] * np.array([1, 0, 0], np.float32)
    assert measured("jitter", jump) == pytest.approx(10 / np.ptp(face[:, 0]), abs=1e-5)


def test_flicker_equals_its_definition() -> None:
    video, crops = with_faces(*THERE), RNG.integers(0, 256, (FOUND, 96, 96, 3), np.uint8)
    video.crops = crops
    brightness = [(0.299 * crop[..., 0] + 0.587 * crop[..., 1] + 0.114 * crop[..., 2]).mean() / 255 for crop in crops]
    flickers = [abs(brightness[a] + brightness[c] - 2 * brightness[b]) for a, b, c in triples_of(THERE)]
    assert measured("flicker", video) == pytest.approx(sum(flickers) / len(flickers), abs=1e-5)


def test_light_that_grows_does_not_flicker_and_light_that_alternates_does() -> None:
    for levels, expected in (((100, 110, 120, 130), 0), ((100, 110, 100, 110), 20 / 255)):
        video = with_faces(True, True, True, True)
        video.crops = np.array(levels, np.uint8)[:, None, None, None].repeat(96, 1).repeat(96, 2).repeat(3, 3)
        assert measured("flicker", video) == pytest.approx(expected, abs=1e-5)


def test_similarities_equal_sklearns() -> None:
    embeddings, photo, centre = RNG.normal(size=(5, 8)), RNG.normal(size=8), RNG.normal(size=8).astype(np.float32)
    judge = Judge(UNASKED, UNASKED, centre, "plain", "")
    video = seen([BLACK] * 5, judge, FaceTrack((FACE,) * 5, tuple(embeddings.astype(np.float32))))
    reference = person(photo.astype(np.float32))
    to_photo = cosine_similarity(embeddings - centre, [photo - centre]).mean()
    between = np.diag(cosine_similarity(embeddings - centre), 1).mean()
    assert value_of_one(metric_of("reference_similarity"), video, reference) == pytest.approx(to_photo, abs=1e-5)
    assert value_of_one(metric_of("inter_frame_similarity"), video, reference) == pytest.approx(between, abs=1e-5)


# The Frechet distance


@pytest.mark.parametrize(("first", "second"), [(300, 200), (5, 200), (5, 4), (200, 5)])
def test_frechet_distance_equals_the_one_with_a_root_of_matrices(first: int, second: int) -> None:
    """Also where sets are smaller than their features, and covariances have no inverse."""
    x, y = RNG.normal(size=(first, 12)) @ RNG.normal(size=(12, 12)), RNG.normal(1, 2, size=(second, 12))
    s, r = (np.cov(rows, rowvar=False, ddof=0) for rows in (x, y))
    root = np.real(scipy.linalg.sqrtm(scipy.linalg.sqrtm(s) @ r @ scipy.linalg.sqrtm(s)))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + r) - 2 * np.trace(root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_is_of_sets() -> None:
    x, y = RNG.normal(size=(30, 6)), RNG.normal(size=(20, 6))
    assert frechet_distance(x, RNG.permutation(x)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(np.concatenate([x, x]), y) == pytest.approx(frechet_distance(x, y))
    assert frechet_distance(x, x + np.array([3, 0, 0, 0, 4, 0])) == pytest.approx(25), "pictures of another mean"
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))


def test_features_of_a_video_are_those_of_its_frames() -> None:
    metric, video, photo = FaceFrechetDistance(), with_faces(*(True,) * 40), with_faces(True)
    video.crops = RNG.integers(0, 256, (40, 96, 96, 3), np.uint8)
    photo.crops = RNG.integers(0, 256, (1, 96, 96, 3), np.uint8)
    kept = metric.measure(video, person(np.ones(3, np.float32), photo))
    picks = [round(place * 39 / (MOST_FRAMES - 1)) for place in range(MOST_FRAMES)]
    features = []
    for crop in np.concatenate([photo.crops, video.crops[picks]]):
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
        features.append(video.instruments.face_vision(image).tokens.flatten(1, 2)[0].mean(0).detach().double().numpy())
    expected = frechet_distance(np.stack(features[:1]), np.stack(features[1:]))
    assert metric.combine([Measured("", "", kept)]) == pytest.approx(expected, rel=1e-4)


# Copy-paste


def pairs(made: NDArray[np.float64], photo: NDArray[np.float64], prompts: int = 2) -> list[Measured]:
    return [
        Measured(f"p{row}", f"prompt {row % prompts}", (tuple(made[row]), tuple(photo[row])))
        for row in range(len(made))
    ]


COPY_PASTE = metric_of("copy_paste_pose")


def test_copy_paste_equals_a_regression() -> None:
    photo = RNG.normal(size=(30, 3))
    made = 0.4 * photo + RNG.normal(size=(30, 3)) + np.arange(30)[:, None] % 2 * 5
    shares = []
    for column in range(3):
        prompt = np.arange(30)[:, None] % 2
        alone, both = prompt, np.hstack([prompt, photo[:, [column]]])
        errors = [
            np.square(made[:, column] - LinearRegression().fit(x, made[:, column]).predict(x)).sum()
            for x in (alone, both)
        ]
        shares.append(1 - errors[1] / errors[0])
    assert COPY_PASTE.combine(pairs(made, photo)) == pytest.approx(np.mean(shares), abs=1e-5)


def test_copies_follow_the_photo_and_others_do_not() -> None:
    photo = RNG.normal(size=(200, 3))
    assert COPY_PASTE.combine(pairs(photo, photo)) == pytest.approx(1)
    assert COPY_PASTE.combine(pairs(RNG.normal(size=(200, 3)), photo)) < 0.02
    assert COPY_PASTE.combine(pairs(np.ones((200, 3)), photo)) == 0
    assert COPY_PASTE.combine(pairs(photo, np.ones((200, 3)))) is None, "photos that are alike say nothing"
    assert COPY_PASTE.combine(pairs(photo[:2], photo[:2])) is None, "two videos are always on a line"


def test_what_a_prompt_does_not_ask_for_is_no_copy() -> None:
    video, photo = (seen([BLACK], UNASKED, FaceTrack((FACE,), (None,)), asks=frozenset({"light"})) for _ in range(2))
    video.crops = photo.crops = np.full((1, 96, 96, 3), 128, np.uint8)
    reference = person(np.ones(3, np.float32), photo)
    assert COPY_PASTE.measure(video, reference) is None
    made, own = metric_of("copy_paste_light").measure(video, reference)
    assert made == own == pytest.approx((128 / 255, 0, 0))
    nobody = seen([BLACK], UNASKED, FaceTrack((None,), (None,)), asks=PLACE)
    for metric in all_metrics():
        if isinstance(metric, CopyPaste):
            assert metric.measure(nobody, reference) is None


def test_light_from_the_right_and_from_above() -> None:
    video = with_faces(True)
    for columns, rows, expected in (((48, 96), (0, 96), (1, 0)), ((0, 96), (0, 40), (0, 1))):
        crop = np.full((1, 96, 96, 3), 50, np.uint8)
        crop[:, slice(*rows), slice(*columns)] = 150
        video = with_faces(True)
        video.crops = crop
        _, right, up = light(video)[0]
        assert (right, up) == pytest.approx([100 / 200 * way for way in expected], abs=0.05)
