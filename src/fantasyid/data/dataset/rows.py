"""What is known of clips: the rows of a dataset's tables."""

from typing import Literal

from fantasyid.data.dataset.tables import Row


class Source(Row):
    """A video file that clips are taken from, as its publisher lists it."""

    path: str
    """In the folder of videos, with slashes."""
    size_bytes: int
    """Of the file, to see that it was exchanged."""
    licence: str
    """Under what terms it may be used; goes into the dataset and on into what is trained on it."""
    captions: tuple[str, ...] = ()
    """What others say is seen, best first."""
    film: str
    """What the file was cut from. Clips of one film may show one person, so they stay on one side of a split."""
    cut: tuple[int, ...] | None = None
    """First frame, and the one after the last, that belong to it; None is all of them."""
    crop: tuple[int, ...] | None = None
    """The part of the picture that belongs to it, xyxy pixels, without borders and marks; None is all of it."""
    annotations: str = "{}"
    """What else its publisher says, as a JSON object."""


Fault = Literal["", "unreadable", "too slow", "short shot"]
"""Why nothing could be measured."""


class ReadText(Row):
    """A line of text in a frame of a clip."""

    frame: int
    """Number of the frame among the clip's."""
    box: tuple[float, ...]
    """xyxy, in parts of the picture's width and height."""
    score: float
    """How surely it was read, 0 to 1."""
    text: str


class View(Row):
    """A picture of the person, from one side; it lies in the part's shard of pictures under its key."""

    key: str
    frame: int
    """Number of the frame in the video."""
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    confidence: float
    sharpness: float
    error_cm: float
    """How far the head that was read is from what is seen of the face."""


class Candidate(Row):
    """A clip with all that was measured of it, whether it is kept or not; or a video or shot in which there is none."""

    clip_id: str
    """Hash of the video's content, the frames and the crop; the order of clips is that of their ids."""
    path: str
    """Of the video."""
    sha256: str
    """Of the video's bytes."""
    licence: str
    film: str
    captions: tuple[str, ...]
    annotations: str
    fault: Fault = ""
    detail: str = ""
    """What a reader said of the fault."""
    fps: float = 0.0
    """Of the video."""
    height: int = 0
    """Of the part of its picture that belongs to the source, as the width; pixels below are of that part."""
    width: int = 0
    picture: tuple[int, ...] = ()
    """That part, xyxy pixels; empty is all."""
    shot: tuple[int, ...] = ()
    """First frame, and the one after the last, that belong to one shot."""
    frames: tuple[int, ...] = ()
    """Numbers of the clip's frames in the video."""
    crop: tuple[int, ...] = ()
    """What the clip shows, xyxy pixels."""
    texts: tuple[ReadText, ...] = ()
    confidence: tuple[float, ...] = ()
    """How surely each frame shows the person's face, 0 to 1; 0 where it was not seen."""
    face_height: float = 0.0
    """Median of the frames that show it, pixels."""
    face_outside: float = 0.0
    """The largest part of the face's box that lies beyond the crop in a frame."""
    other_area: float = 0.0
    """Mean area of the largest other face, in parts of the person's."""
    other_frames: float = 0.0
    """Part of the frames that show it."""
    person_change: float = 0.0
    """How far the face gets from the one most like all, one minus cosine."""
    embedding: tuple[float, ...] = ()
    """Mean of the face's, unit length."""
    yaw_deg: tuple[float, ...] = ()
    """Of each frame that shows the face, as the next two."""
    pitch_deg: tuple[float, ...] = ()
    roll_deg: tuple[float, ...] = ()
    views: tuple[View, ...] = ()
    view_spread_deg: float = 0.0
    """Largest angle between two views."""
    face_motion: float = 0.0
    """Mean way of the landmarks from frame to frame, in heights of the face."""
    picture_motion: float = 0.0
    """Median way of the picture's points from frame to frame, in heights of the picture."""
    luma: float = 0.0
    """Mean brightness, 0 to 255."""
    sharpness: float = 0.0
    """Median of the face's, see `clips.faces`."""
    hashes: tuple[str, ...] = ()
    """Perceptual hash of the first, middle and last frame: 16 hexadecimal digits each."""


class Verdict(Row):
    """A rule that a candidate does not meet."""

    reason: str
    """In a few words, such as `subtitle`."""
    measured: float
    limit: float
    """What it may be at most or must be at least."""
    note: str = ""
    """What a number alone does not say."""


class Dropped(Row):
    """A candidate that is not kept, with every rule that it does not meet."""

    clip_id: str
    path: str
    shot: tuple[int, ...]
    reason: str
    """The first of the verdicts'."""
    verdicts: tuple[Verdict, ...]


class Clip(Candidate):
    """A candidate that is kept."""

    part: int
    """Number of the part that holds its pictures and tracks."""
    caption: str
    caption_from: Literal["source", "measured"]
    person: str
    """Film and number of the person in it: nobody is recognised from one film in another."""
    split: Literal["train", "val"]


class EncodedClip(Row):
    """A clip in an encoding; what it is encoded to lies in the shards of its number."""

    clip_id: str
    shard: int
    split: Literal["train", "val"]
    views: int
    """Of the person, of which each has a reference and face tokens."""
    caption: str
    """As it was encoded."""
    caption_cut: bool
    """Whether the caption was longer than the model takes, and lost its last sentences."""
