"""What `fantasyid data prepare` can be told: how clips are measured, and which of them are kept."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasureConfig(_Fields):
    """How clips are cut and measured; another value means measuring anew, into another dataset."""

    num_frames: int = Field(default=49, ge=2)
    """Frames of a clip."""
    fps: float = Field(default=8, gt=0)
    """Frames per second of a clip; slower videos are left out."""
    height: int = Field(default=480, ge=16)
    """Of the model's videos: with `width` the shape of the part of the picture that a clip shows."""
    width: int = Field(default=720, ge=16)
    """Of the model's videos."""
    shot_contrast: float = Field(default=3.0, gt=0)
    """How many times as much as around it the picture must change to be a cut."""
    shot_change: float = Field(default=15.0, gt=0)
    """The least change in colour, of 255, that can be a cut."""
    edge_frames: int = Field(default=2, ge=0)
    """Frames at both ends of a shot that are not used: blends of two shots."""
    longest_shot_s: float = Field(default=30.0, gt=0)
    """Longer shots are measured in parts."""
    clips_per_shot: int = Field(default=3, ge=1)
    """At most; they share no frame."""
    text_frames: int = Field(default=5, ge=1)
    """Frames of a clip in which text is looked for."""
    detect_every: int = Field(default=8, ge=1)
    """From how many frames a detector looks for faces in one; in the others known faces are followed."""
    views: int = Field(default=6, ge=1)
    """Pictures of the person from different sides, at most (paper 3.2: six)."""
    view_confidence: Share = 0.9
    """How surely a frame shows a face whose view is taken."""
    view_sharpness: Share = 0.3
    """Least sharpness of a view, in parts of the shot's median."""
    view_separation_deg: float = Field(default=2.0, ge=0)
    """Two views are at least so far apart in viewing direction; turning the picture is no other view."""
    view_height: int = Field(default=512, ge=64)
    """Larger pictures of views are made so high."""
    unit_size: int = Field(default=64, ge=1)
    """Videos measured at a time: what a killed run repeats."""


class KeepConfig(_Fields):
    """Which clips are kept. Other values decide anew from the same measurements."""

    min_side: int = Field(default=480, ge=16)
    """Pixels of the shorter side of what a clip shows."""
    text_score: Share = 0.9
    """How surely text is read that counts: leaves and windows are read as letters, too, at 0.5."""
    text_letters: int = Field(default=3, ge=1)
    """Least letters of it."""
    text_frames: int = Field(default=2, ge=1)
    """Frames in which text at one place makes it a subtitle; a passing sign is none."""
    text_area: Share = 0.02
    """Part of any one frame that such text may cover wherever it stands."""
    confidence: Share = 0.9
    """The reader's confidence that counts as sure."""
    face_share: Share = 0.95
    """Frames in which the face must be seen, and in which surely."""
    face_height: float = Field(default=64, ge=0)
    """Pixels from brows to chin, in the middle of the clip's frames."""
    face_part: Share = 0.04
    """The same as a part of the picture's height."""
    face_outside: Share = 0.05
    """Part of a face that may lie beyond what the clip shows."""
    other_area: Share = 0.25
    """Area of another face, in parts of the person's, above which it counts."""
    other_frames: Share = 0.5
    """Frames in which a smaller face may be seen."""
    person_change: float = Field(default=0.7, ge=0, le=2)
    """How unlike itself (one minus cosine of embeddings) the face may become. By the built-in network two photos of one
    person, years apart, were nearer in 18 of 18 held-out pairs, and those of two people farther in 84 %."""
    min_views: int = Field(default=1, ge=1)
    """Views that must have been found."""
    face_motion: float = Field(default=0.002, ge=0)
    """How far the landmarks move from frame to frame at least, in heights of the face."""
    darkest: float = Field(default=16, ge=0, le=255)
    """Mean brightness."""
    brightest: float = Field(default=235, ge=0, le=255)
    """Mean brightness."""
    duplicate_bits: int = Field(default=10, ge=0, le=64)
    """Of 64 in which each of three picture hashes of two clips may differ if they are to be one."""
    duplicate_deg: float = Field(default=3, ge=0)
    """How far the head's yaw and pitch may differ in the same three frames."""
    captions: Literal["required", "measured"] = "required"
    """Whether clips without a caption are left out, or get one of what was measured."""
    held_out: Share = 0.01
    """Part of the films whose clips are kept apart, for the loss on people who are not trained on."""


class PrepareConfig(_Fields):
    """A preset of `configs/data`."""

    measure: MeasureConfig = MeasureConfig()
    keep: KeepConfig = KeepConfig()
