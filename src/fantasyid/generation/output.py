"""What a generation leaves on disk: the video, the record to make it again, and a contact sheet.

Kept apart from the pipeline because it needs a video encoder and the pipeline does not.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from fantasyid.core.credentials import SigningKey, check_signable, sign_file
from fantasyid.core.errors import FantasyIDError, UnwritableOutputError
from fantasyid.core.output_files import write_together
from fantasyid.core.provenance import add_mark, add_xmp, container_metadata, xmp_packet
from fantasyid.core.video import VIDEO_SUFFIXES, write_video
from fantasyid.generation.output_paths import GenerationPaths
from fantasyid.generation.record import GenerationRecord
from fantasyid.generation.text_drawing import draw_text, wrap_text

_SHEET_FRAMES = 8
_SHEET_COLUMNS = 4
_TILE_WIDTH = 200
_GAP = 8
_MARGIN = 24
_SHEET_COMMENT = b"FantasyID contact sheet"
_INK, _GREY, _PAPER = (32, 32, 32), (112, 112, 112), (250, 250, 248)


def save_generation(
    paths: GenerationPaths,
    frames: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8] | None,
    metadata: GenerationRecord,
    *,
    overwrite: bool = False,
    signing_key: SigningKey | None = None,
) -> None:
    """Write the video, the record and the contact sheet, all three or none.

    Args:
        paths: Where to; a video without one of `core.video.VIDEO_SUFFIXES` is a folder of .png pictures.
        frames: RGB (T, H, W, 3), unmarked; the mark is added here if `metadata.provenance_mark`.
        reference: RGB (H, W, 3), the face as the model saw it; None without a photo.
        metadata: What made the frames; its size and length must be those of `frames`, and it says how fast they play.
        overwrite: Whether files that are there may be replaced; a folder never is.
        signing_key: Signs video, pictures and sheet, after all else was written; None leaves credentials out.

    Raises:
        InvalidRequestError: The path or the frame size cannot be used, or a signed video not be in that format.
        UnwritableOutputError: The files could not be written; it says where the frames are instead.
    """
    kept, model = metadata, metadata.model_dump(include={"weights_sha256", "lora_sha256"}, exclude_defaults=True)
    if signing_key is not None:
        check_signable(paths.video)
        kept = metadata.model_copy(update={"signing_key_sha256": signing_key.public_sha256})
    request = metadata.request
    stated = (request.num_frames, request.height, request.width, 3)
    assert stated == frames.shape, f"the record says {stated}, the frames are {frames.shape}"
    marked = add_mark(frames) if metadata.provenance_mark else frames
    try:
        with write_together(paths.all, overwrite=overwrite) as made:
            video, record, sheet = made
            _write_frames(video, marked, metadata)
            record.write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8")
            picture, xmp = contact_sheet(marked, reference, metadata), None
            if metadata.provenance_mark:
                picture, xmp = Image.fromarray(add_mark(np.asarray(picture)[None])[0]), xmp_packet()
            picture.save(sheet, quality=92, subsampling=0, comment=_SHEET_COMMENT, xmp=xmp)
            if signing_key is not None:
                for file in (sheet, *(sorted(video.iterdir()) if video.is_dir() else (video,))):
                    sign_file(file, signing_key, model)
    except Exception as error:  # whatever it is, making the frames took long
        where = _keep_frames(marked, metadata)
        if isinstance(error, FantasyIDError | OSError):
            raise UnwritableOutputError(f"{error} {where}") from error
        raise RuntimeError(f"{type(error).__name__}: {error}. {where}") from error


def _write_frames(video: Path, frames: npt.NDArray[np.uint8], metadata: GenerationRecord) -> None:
    """A video file, or a folder of pictures, with the words of where it comes from unless it carries no mark."""
    fps, has_words = metadata.request.fps, metadata.provenance_mark
    tags = container_metadata(metadata.lora_names) if has_words else {}
    assert fps is not None, "the record does not say how fast the frames play"
    if video.suffix.lower() in VIDEO_SUFFIXES:
        write_video(video, frames, fps, tags)
        if has_words and video.suffix.lower() == ".mp4":
            add_xmp(video)
        return
    words = PngInfo()
    if has_words:
        words.add_itxt("XML:com.adobe.xmp", xmp_packet())
        words.add_itxt("Comment", tags["comment"])
    _write_pictures(video, frames, words)


def _write_pictures(folder: Path, frames: npt.NDArray[np.uint8], words: PngInfo | None = None) -> None:
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:04d}.png", pnginfo=words)


def _keep_frames(frames: npt.NDArray[np.uint8], metadata: GenerationRecord) -> str:
    """Put the frames of a video that cannot be written in the first place that takes them, and say where."""
    for place in (tempfile.gettempdir(), Path.home()):
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="fantasyid-frames-", dir=place))
            _write_pictures(folder, frames)
            (folder / "record.json").write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        pictures = f"{len(frames)} pictures for {metadata.request.fps:g} a second"
        return f"The frames, {pictures}, and their record are in {folder}."
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
    asked = record.request
    ways = (("reference", asked.use_reference), ("tokens", asked.use_identity_tokens))
    identity = " + ".join(name for name, used in ways if used)
    settings = (
        f"{' + '.join((asked.model.name, *record.lora_names))}  ·  seed {asked.seed}  ·  "
        f"{asked.num_inference_steps} steps  ·  "
        f"guidance {asked.guidance_scale:g}  ·  identity {identity or 'off'}"
        f"{f' x {asked.identity_scale:g}' if asked.use_identity_tokens else ''}  ·  "
        f"{asked.width}x{asked.height}, {asked.num_frames} frames at {asked.fps:g}/s  ·  "
        f"AI-generated, FantasyID {record.versions.fantasyid}"
    )
    lines = [(line, _INK, 20) for line in wrap_text(asked.prompt, 20, width)]
    lines += [(line, _GREY, 14) for line in wrap_text(settings, 14, width)]
    page = Image.new("RGB", (width, 16 + sum(round(1.4 * size) for _, _, size in lines)), _PAPER)
    draw = ImageDraw.Draw(page)
    top = 16
    for line, ink, size in lines:
        draw_text(draw, (0, top), line, size, ink)
        top += round(1.4 * size)
    return page
