"""Every kind of photo of issue 2, section 4, has a defined result: a reading, or one clear sentence."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.errors import (
    ExtremeProfileError,
    FaceChoiceError,
    FaceTooSmallError,
    FantasyIDError,
    IncompleteFaceError,
    NoFaceError,
    UnreadablePhotoError,
)
from fantasyid.face.reader import FaceReader
from fantasyid.face.types import DetectedFace, FaceReading, HeadPose, ReconstructedHead
from fantasyid.geometry.head_model import HeadModel
from tests.unit.face.faces import PORTRAIT_BOX, average_face_model, head_landmarks, portrait, resized


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def reader(head: HeadModel) -> FaceReader:
    return FaceReader(average_face_model(head_landmarks(head)))


def two_faces() -> np.ndarray:
    """The smaller face on the left, the larger on the right."""
    small = np.full((300, 240, 3), 90, np.uint8)
    small[30:270] = resized(portrait(), 240)
    return np.hstack([small, portrait()])


class TurnedHead:
    """A backend that finds every head turned by so much."""

    def __init__(self, head: HeadModel, yaw_deg: float) -> None:
        self.head, self.yaw_deg = head, yaw_deg

    def reconstruct(self, photo: np.ndarray, landmarks: torch.Tensor) -> ReconstructedHead:
        pose = HeadPose(self.yaw_deg, 0.0, 0.0)
        return ReconstructedHead(self.head.mean, self.head.topology.hash, pose, torch.zeros(52), 0.0)


class Seeing(TurnedHead):
    """The same, and it keeps what it was given."""

    def reconstruct(self, photo: np.ndarray, landmarks: torch.Tensor) -> ReconstructedHead:
        self.photo, self.landmarks = photo, landmarks
        return super().reconstruct(photo, landmarks)


def assert_is_portrait(reading: FaceReading, tolerance: float = 8) -> None:
    assert reading.num_faces == 1
    assert reading.face.box == pytest.approx(PORTRAIT_BOX, abs=tolerance)
    middle = reading.landmarks[:, :2].numpy()
    assert (middle.min(axis=0) + middle.max(axis=0)) / 2 == pytest.approx([142, 122], abs=tolerance)


def test_reading_of_a_frontal_photo(reader: FaceReader, head: HeadModel) -> None:
    reading = reader.read(portrait())
    assert_is_portrait(reading)
    assert reading.face_index == 0
    assert reading.landmarks.shape == (478, 3)
    assert reading.head.vertices.shape == head.mean.shape
    assert reading.head.topology_hash == head.topology.hash
    assert reading.head.expression.shape == (len(head.expression_names),)
    # This network sees the average head from the front, so that is what comes out.
    assert (reading.head.vertices - head.mean).norm(dim=1).max() < 1e-4
    assert abs(reading.head.pose.yaw_deg) < 1e-3
    assert reading.head.error_cm < 0.02
    assert reading.confidence == pytest.approx(1.0, abs=1e-3)


def test_path_pil_image_and_array_are_read_alike(reader: FaceReader, tmp_path: Path) -> None:
    Image.fromarray(portrait()).save(tmp_path / "photo.png")
    readings = [reader.read(p) for p in (tmp_path / "photo.png", Image.fromarray(portrait()), portrait())]
    assert all((reading.landmarks == readings[0].landmarks).all() for reading in readings)
    assert all((reading.head.vertices == readings[0].head.vertices).all() for reading in readings)


def test_largest_of_several_faces_is_read_and_the_reading_tells(reader: FaceReader) -> None:
    reading = reader.read(two_faces())
    assert reading.num_faces == 2
    assert reading.face_index == 0
    assert reading.face.box[0] > 240
    assert reading.landmarks[:, 0].min() > 240
    assert reading.faces[1].box[2] < 240


def test_another_face_can_be_chosen(reader: FaceReader) -> None:
    reading = reader.read(two_faces(), face_index=1)
    assert reading.face_index == 1
    assert reading.landmarks[:, 0].max() < 240


@pytest.mark.parametrize("face_index", [2, -1])
def test_choosing_a_face_that_is_not_there(reader: FaceReader, face_index: int) -> None:
    with pytest.raises(FaceChoiceError, match=f"no face {face_index} .* there are 2 faces: choose 0 to 1"):
        reader.read(two_faces(), face_index)


def test_choosing_the_second_of_one_face(reader: FaceReader) -> None:
    with pytest.raises(FaceChoiceError, match="there is 1 face: choose 0"):
        reader.read(portrait(), face_index=1)


@pytest.mark.parametrize("photo", [chelsea(), np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)])
def test_photo_without_a_face(reader: FaceReader, photo: np.ndarray) -> None:
    with pytest.raises(NoFaceError, match=rf"{photo.shape[1]}x{photo.shape[0]} pixels\); use one .* from the front"):
        reader.read(photo)


def test_choosing_a_face_where_there_is_none(reader: FaceReader) -> None:
    with pytest.raises(NoFaceError):
        reader.read(chelsea(), face_index=0)


@pytest.mark.parametrize(("side", "accepted"), [(110, False), (140, False), (170, True)])
def test_face_below_48_pixels_is_refused_with_its_size(reader: FaceReader, side: int, accepted: bool) -> None:
    # The average face in the crop of a box of 90 pixels at 300 is 102 pixels high.
    photo = resized(portrait(), side)
    if accepted:
        assert reader.read(photo).num_faces == 1
        return
    with pytest.raises(FaceTooSmallError, match=r"is (3|4)\d pixels high and at least 48 are needed"):
        reader.read(photo)


def test_face_too_small_to_be_found(reader: FaceReader) -> None:
    with pytest.raises(NoFaceError, match="48 pixels"):
        reader.read(resized(portrait(), 80))


@pytest.mark.parametrize("yaw_deg", [-60.0, 55.0])
def test_strong_profile_is_refused_with_its_angle(head: HeadModel, yaw_deg: float) -> None:
    network = average_face_model(head_landmarks(head))
    reader = FaceReader(network, reconstructor=TurnedHead(head, yaw_deg))
    with pytest.raises(
        ExtremeProfileError, match=rf"turned {abs(yaw_deg):.0f} degrees .* at most 45 .* from the front"
    ):
        reader.read(portrait())
    turned = FaceReader(network, reconstructor=TurnedHead(head, yaw_deg / 1.5)).read(portrait())
    assert turned.head.pose.yaw_deg == yaw_deg / 1.5


@pytest.mark.parametrize(("quarters", "roll_deg"), [(0, 0), (1, 90), (2, -180), (3, -90)])
def test_a_head_is_reconstructed_from_an_upright_photo(head: HeadModel, quarters: int, roll_deg: float) -> None:
    """DECA's crop is not levelled, so it would see a face on its side."""
    wide = np.hstack([portrait(), np.full((300, 40, 3), 90, np.uint8)])
    seeing = Seeing(head, 5.0)
    reader = FaceReader(average_face_model(head_landmarks(head)), reconstructor=seeing)
    reading = reader.read(np.ascontiguousarray(np.rot90(wide, quarters)))
    assert np.array_equal(seeing.photo, wide)
    middle = (seeing.landmarks.amin(dim=0) + seeing.landmarks.amax(dim=0))[:2] / 2
    assert middle.tolist() == pytest.approx([142, 122], abs=8)
    assert seeing.landmarks[152, 1] > seeing.landmarks[10, 1] + 60
    assert reading.head.pose == HeadPose(5.0, 0.0, roll_deg)
    assert torch.equal(seeing.landmarks[:, 2], reading.landmarks[:, 2])


@pytest.mark.parametrize(("confidence", "is_face"), [(-6.0, False), (-0.1, False), (0.1, True)])
def test_what_the_network_does_not_take_for_a_face_is_none(head: HeadModel, confidence: float, is_face: bool) -> None:
    reader = FaceReader(average_face_model(head_landmarks(head), confidence))
    if is_face:
        assert reader.read(portrait()).confidence == pytest.approx(0.525, abs=1e-3)
        return
    for face_index in (None, 0):
        with pytest.raises(NoFaceError, match=r"300x300 pixels\); use one"):
            reader.read(portrait(), face_index)


def test_only_the_chosen_face_is_read(head: HeadModel) -> None:
    """A group's photo costs what one face costs."""
    network = average_face_model(head_landmarks(head))
    crops: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: crops.append(len(inputs[0])))
    reader = FaceReader(network)
    costs = []
    for photo, face_index in ((portrait(), None), (two_faces(), None), (two_faces(), 1)):
        crops.clear()
        reader.read(photo, face_index)
        costs.append(sum(crops))
    assert costs[0] == costs[1] == costs[2]


class Boxes:
    """A detector that finds faces where it is told."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.faces = tuple(DetectedFace(box, 1.0) for box in boxes)

    def detect(self, photo: np.ndarray) -> tuple[DetectedFace, ...]:
        return self.faces


def test_the_largest_face_that_the_network_confirms_is_read() -> None:
    photo = np.full((300, 900, 3), 128, np.uint8)
    photo[:, 600:] = portrait()
    wall, face = (100.0, 60.0, 300.0, 260.0), (697.0, 77.0, 787.0, 167.0)
    reader = FaceReader(load_component(MINI_FOLDER, "face_reader_model"), Boxes(wall, face))
    assert reader.read(photo).face_index == 1
    assert reader.read(photo, 1).face_index == 1
    with pytest.raises(NoFaceError, match="found as face 0 of the photo is none on a closer look"):
        reader.read(photo, 0)


@pytest.mark.parametrize("quarters", range(4))
def test_photo_that_ends_inside_the_face_is_refused(reader: FaceReader, quarters: int) -> None:
    # The average face's landmarks span 71 to 173 pixels of the portrait's height.
    cut = np.ascontiguousarray(np.rot90(portrait()[:158], quarters))
    edge = ("lower", "right", "upper", "left")[quarters]
    with pytest.raises(IncompleteFaceError, match=rf"1\d% of it lie beyond the {edge} edge; use a photo that shows"):
        reader.read(cut)


@pytest.mark.parametrize(
    ("rows", "columns", "edges"),
    [
        (slice(0, 300), slice(0, 300), None),
        (slice(66, 300), slice(0, 300), "upper edge"),
        (slice(66, 180), slice(90, 300), "left and upper and lower edge"),
    ],
)
def test_photo_that_ends_close_around_the_face_is_warned_of(
    reader: FaceReader, rows: slice, columns: slice, edges: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    reader.read(np.ascontiguousarray(portrait()[rows, columns]))
    if edges is None:
        assert caplog.text == ""
    else:
        assert f"ends close to the face at the {edges};" in caplog.text


def test_face_of_a_large_photo_is_read_as_in_a_small_one(reader: FaceReader) -> None:
    large = np.full((1200, 1600, 3), 90, np.uint8)
    large[700:1000, 900:1200] = portrait()
    here, there = reader.read(portrait()), reader.read(large)
    moved = there.landmarks - torch.tensor([900.0, 700.0, 0.0])
    assert (moved - here.landmarks).abs().max() < 12
    assert (there.head.vertices - here.head.vertices).norm(dim=1).max() < 1e-4


def test_grey_cmyk_and_16_bit_photos(reader: FaceReader, tmp_path: Path) -> None:
    image = Image.fromarray(portrait())
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "print.jpg")
    cv2.imwrite(str(tmp_path / "deep.png"), portrait()[:, :, ::-1].astype(np.uint16) * 257)
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep-grey.png")
    for name in ("grey.jpg", "print.jpg", "deep.png", "deep-grey.png"):
        assert_is_portrait(reader.read(tmp_path / name))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_of_every_exif_orientation(reader: FaceReader, tmp_path: Path, orientation: int) -> None:
    # The inverse of each orientation's correction; 6 and 8 undo each other, the rest undo themselves.
    stored = portrait()
    if orientation in (2, 3, 7, 6):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (5, 6, 7, 8):
        stored = stored.transpose(1, 0, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert_is_portrait(reader.read(tmp_path / "turned.png"))


def test_truncated_and_non_image_files(reader: FaceReader, tmp_path: Path) -> None:
    Image.fromarray(portrait()).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-1500])
    (tmp_path / "text.jpg").write_text("not a picture")
    for name in ("cut.jpg", "text.jpg", "missing.jpg"):
        with pytest.raises(UnreadablePhotoError, match=name):
            reader.read(tmp_path / name)


def test_every_refusal_is_one_sentence_that_ends_in_a_remedy(reader: FaceReader, tmp_path: Path) -> None:
    for photo, face_index in ((chelsea(), None), (portrait(), 4), (resized(portrait(), 140), None), (tmp_path, None)):
        with pytest.raises(FantasyIDError) as caught:
            reader.read(photo, face_index)
        message = str(caught.value)
        assert message.endswith(".")
        assert ";" in message
        assert "\n" not in message
