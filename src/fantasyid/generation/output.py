"""What a generation leaves on disk: the video, the record to make it again, and a contact sheet.

Kept apart from the pipeline because it needs a video encoder and the pipeline does not.
"""

import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field

from fantasyid import __version__
from fantasyid.core.errors import FantasyIDError, UnwritableOutputError
from fantasyid.core.output_files import write_together
from fantasyid.core.provenance import add_mark, add_xmp, container_metadata, xmp_packet
from fantasyid.core.video import write_video
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.text_drawing import draw_text, wrap_text
from fantasyid.pipelines.acceleration import Acceleration
from fantasyid.pipelines.memory import MemoryPlan

_SHEET_FRAMES = 8
_SHEET_COLUMNS = 4
_TILE_WIDTH = 200
_GAP = 8
_MARGIN = 24
_SHEET_COMMENT = b"FantasyID contact sheet"
_INK, _GREY, _PAPER = (32, 32, 32), (112, 112, 112), (250, 250, 248)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SoftwareVersions(_Record):
    """The software a video was made with."""

    fantasyid: str
    python: str
    torch: str
    diffusers: str

    @classmethod
    def installed(cls) -> "SoftwareVersions":
        """The versions in this environment."""
        return cls(
            fantasyid=__version__,
            python=platform.python_version(),
            torch=version("torch"),
            diffusers=version("diffusers"),
        )


class GenerationRecord(_Record):
    """Everything needed to make a video again, and what it cost."""

    versions: SoftwareVersions
    command: tuple[str, ...]
    """The arguments as typed; empty when called from Python."""
    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: Annotated[int, Field(ge=1)]
    guidance_scale: float
    identity_scale: float
    use_reference: bool
    """Whether the reference face's latent entered the base."""
    use_identity_tokens: bool
    """Whether the identity tokens were injected."""
    height: Annotated[int, Field(ge=2)]
    width: Annotated[int, Field(ge=2)]
    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)]
    model_name: str
    weights_sha256: Sha256
    photo_sha256: Sha256 | None
    """None without a photo, as the next two."""
    face_index: Annotated[int, Field(ge=0)] | None
    """Which of the photo's faces was used."""
    face_box: tuple[float, float, float, float] | None
    """Its box in the photo: x0, y0, x1, y1 in pixels."""
    device: str
    dtype: str
    timings_s: dict[str, float]
    """Seconds of each stage, by name."""
    face_backend: str | None = None
    """What read the photo, a key of `face.registry.READERS`; None: what the model was trained with."""
    head_file_sha256: Sha256 | None = None
    """Of the mesh file whose vertices stood in for those read from the photo."""
    edits: dict[str, float] = {}
    """Edits made on the head, -1..1 by name."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Share of the steps that were guided, from and to."""
    acceleration: Acceleration = Acceleration()
    memory_plan: MemoryPlan = "fast"
    provenance_mark: bool = True
    """Whether the frames carry the invisible mark and the file the words."""


def save_generation(
    out_path: Path,
    frames: npt.NDArray[np.uint8],
    fps: float,
    reference: npt.NDArray[np.uint8] | None,
    metadata: GenerationRecord,
    *,
    overwrite: bool = False,
) -> GenerationPaths:
    """Write the video, FILE.json and FILE.jpg, all three or none.

    Args:
        out_path: Path of the video, ending in one of `core.video.VIDEO_SUFFIXES`.
        frames: RGB (T, H, W, 3), unmarked; the mark is added here if `metadata.provenance_mark`.
        fps: Frames per second.
        reference: RGB (H, W, 3), the face as the model saw it; None without a photo.
        metadata: What made the frames; its size, length and rate must be those of `frames`.
        overwrite: Whether files that are there may be replaced.

    Returns:
        Where the files are.

    Raises:
        InvalidRequestError: The path or the frame size cannot be used.
        UnwritableOutputError: The files could not be written; it says where the frames are instead.
    """
    num_frames, height, width, _ = frames.shape
    stated = (metadata.num_frames, metadata.height, metadata.width, metadata.fps)
    assert stated == (num_frames, height, width, fps), f"the record says {stated}, the frames are {frames.shape}, {fps}"
    paths = GenerationPaths.beside(out_path)
    marked = add_mark(frames) if metadata.provenance_mark else frames
    tags = container_metadata() if metadata.provenance_mark else {}
    try:
        with write_together(paths.all, overwrite=overwrite) as made:
            video, record, sheet = made
            write_video(video, marked, fps, tags)
            record.write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")
            picture, xmp = contact_sheet(marked, reference, metadata), None
            if metadata.provenance_mark:
                picture, xmp = Image.fromarray(add_mark(np.asarray(picture)[None])[0]), xmp_packet()
                if video.suffix.lower() == ".mp4":
                    add_xmp(video)
            picture.save(sheet, quality=92, subsampling=0, comment=_SHEET_COMMENT, xmp=xmp)
    except Exception as error:  # whatever it is, making the frames took long
        kept = _keep_frames(marked, metadata)
        if isinstance(error, FantasyIDError | OSError):
            raise UnwritableOutputError(f"{error} {kept}") from error
        raise RuntimeError(f"{type(error).__name__}: {error}. {kept}") from error
    return paths


def _keep_frames(frames: npt.NDArray[np.uint8], metadata: GenerationRecord) -> str:
    """Put the frames of a video that cannot be written in the first place that takes them, and say where."""
    for place in (tempfile.gettempdir(), Path.home()):
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="fantasyid-frames-", dir=place))
            for index, frame in enumerate(frames):
                Image.fromarray(frame).save(folder / f"{index:04d}.png")
            (folder / "record.json").write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        return f"The frames, {len(frames)} pictures for {metadata.fps:g} a second, and their record are in {folder}."
    return "There was no room for the frames elsewhere either."


def contact_sheet(
    frames: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8] | None, record: GenerationRecord
) -> Image.Image:
    """Draw the reference, eight evenly spaced frames (all, if there are fewer) and a caption on one page.

    Args:
        frames: RGB (T, H, W, 3).
        reference: RGB (H, W, 3), or None: then the frames stand alone.
        record: Gives the caption: prompt and settings.

    Returns:
        An RGB picture: the reference at the left, two rows of four frames, the caption below.
    """
    num_frames, height, width, _ = frames.shape
    picks = np.unique(np.linspace(0, num_frames - 1, _SHEET_FRAMES).round().astype(int))
    tile = (_TILE_WIDTH, round(_TILE_WIDTH * height / width))
    grid_height = 2 * tile[1] + _GAP
    left, face = _MARGIN, None
    if reference is not None:
        face = Image.fromarray(reference)
        face = face.resize((round(grid_height * face.width / face.height), grid_height), Image.Resampling.LANCZOS)
        left += face.width + 2 * _GAP
    page_width = left + _SHEET_COLUMNS * tile[0] + (_SHEET_COLUMNS - 1) * _GAP + _MARGIN
    caption = _caption(record, page_width - 2 * _MARGIN)
    page = Image.new("RGB", (page_width, _MARGIN + grid_height + caption.height + _MARGIN), _PAPER)
    if face is not None:
        page.paste(face, (_MARGIN, _MARGIN))
    for place, index in enumerate(picks):
        row, column = divmod(place, _SHEET_COLUMNS)
        picture = Image.fromarray(frames[index]).resize(tile, Image.Resampling.LANCZOS)
        page.paste(picture, (left + column * (tile[0] + _GAP), _MARGIN + row * (tile[1] + _GAP)))
    page.paste(caption, (_MARGIN, _MARGIN + grid_height))
    return page


def _caption(record: GenerationRecord, width: int) -> Image.Image:
    identity = [
        name for name, used in (("reference", record.use_reference), ("tokens", record.use_identity_tokens)) if used
    ]
    settings = (
        f"{record.model_name}  ·  seed {record.seed}  ·  {record.num_inference_steps} steps  ·  "
        f"guidance {record.guidance_scale:g}  ·  identity {' + '.join(identity) or 'off'}"
        f"{f' x {record.identity_scale:g}' if record.use_identity_tokens else ''}  ·  "
        f"{record.width}x{record.height}, {record.num_frames} frames at {record.fps:g}/s  ·  "
        f"AI-generated, FantasyID {record.versions.fantasyid}"
    )
    lines = [(line, _INK, 20) for line in wrap_text(record.prompt, 20, width)]
    lines += [(line, _GREY, 14) for line in wrap_text(settings, 14, width)]
    page = Image.new("RGB", (width, 16 + sum(round(1.4 * size) for _, _, size in lines)), _PAPER)
    draw = ImageDraw.Draw(page)
    top = 16
    for line, ink, size in lines:
        draw_text(draw, (0, top), line, size, ink)
        top += round(1.4 * size)
    return page
