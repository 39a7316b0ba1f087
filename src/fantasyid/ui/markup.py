"""The few pieces of HTML that the page writes itself; everything that comes from outside is escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fantasyid.generation.record import GenerationRecord

_PREVIEW_PIXELS = 192
_NEAREST, _FARTHEST = 0.3, 0.9
"""Distances of the highest and the lowest bar: two photos of one person are 0.37 apart (median), two strangers 0.85."""


def notice(text: str, kind: str = "note") -> str:
    """A sentence that a screen reader reads out at once.

    Args:
        text: The sentence; none gives nothing.
        kind: `"error"`, `"warning"` or `"note"`.
    """
    role = "alert" if kind == "error" else "status"
    return f'<p class="fid-notice fid-{kind}" role="{role}">{escape(text)}</p>' if text else ""


def notices(texts: Sequence[str]) -> str:
    """Warnings, one below the other."""
    return "".join(notice(text, "warning") for text in dict.fromkeys(texts))


def progress_bar(what: str, done: int, total: int, seconds_left: float | None) -> str:
    """What is going on, and how far it is.

    Args:
        what: Such as "Generating".
        done: Steps done.
        total: Steps; 0 where there are none to count.
        seconds_left: What the rest will take, if that is known.
    """
    share = f' value="{done}" max="{total}"' if total else ""
    steps = f"step {done} of {total}" if total else ""
    left = "" if seconds_left is None else f"about {_duration(seconds_left)} left"
    facts = " · ".join(part for part in (steps, left) if part)
    return (
        f'<div class="fid-progress"><p><b>{escape(what)}</b> <span>{facts}</span></p>'
        f'<progress aria-label="{escape(what)}"{share}></progress></div>'
    )


def film_strip(frames: NDArray[np.uint8]) -> str:
    """A few frames side by side, inside the page itself.

    Args:
        frames: RGB (K,H,W,3).
    """
    pictures = []
    for number, frame in enumerate(frames):
        picture, buffer = Image.fromarray(frame), io.BytesIO()
        picture.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
        picture.save(buffer, "JPEG", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = f"Frame {number + 1} of {len(frames)} as it looks so far"
        pictures.append(f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">')
    return f'<div class="fid-strip">{"".join(pictures)}</div>'


def facts(record: GenerationRecord) -> str:
    """What made a video, in one line below its prompt."""
    asked = record.request
    seconds = sum(record.timings_s.values())
    size = f"{asked.width}x{asked.height}, {asked.num_frames} frames at {asked.fps:g}/s"
    edits = (
        "" if asked.person is None else ", ".join(f"{name} {value:+g}" for name, value in asked.person.edits.items())
    )
    parts = [
        f"seed {asked.seed}",
        f"{asked.num_inference_steps} steps",
        f"guidance {asked.guidance_scale:g}",
        size,
        edits,
        f"made by {' + '.join((asked.model.name, *record.lora_names))} in {_duration(seconds)}",
        "" if record.signing_key_sha256 is None else f"signed by the key {record.signing_key_sha256[:16]}",
    ]
    line = " · ".join(escape(part) for part in parts if part)
    return f'<div class="fid-facts"><p class="fid-prompt">{escape(asked.prompt)}</p><p>{line}</p></div>'


def likeness(distances: Sequence[float | None], same_person_distance: float) -> str:
    """A bar for each frame, high where the face is like the photo's, and a sentence.

    Args:
        distances: Of each frame's face to the photo's; None where there is no face.
        same_person_distance: Nearer faces are taken for one person.
    """
    bars = []
    for number, distance in enumerate(distances):
        if distance is None:
            kind, height, said = "none", 0.0, "no face found"
        else:
            kind = "same" if distance <= same_person_distance else "other"
            height, said = _height(distance), f"distance {distance:.2f}"
        bars.append(f'<i class="fid-{kind}" style="height:{height:.0f}%" title="Frame {number + 1}: {said}"></i>')
    verified = sum(distance is not None and distance <= same_person_distance for distance in distances)
    sentence = (
        f"A face recogniser that had no part in training takes {verified} of {len(distances)} frames for the person in "
        f"the photo (distance up to {same_person_distance:g})."
    )
    return (
        f'<figure class="fid-likeness"><div class="fid-bars" role="img" aria-label="{escape(sentence)}" '
        f'style="--line:{_height(same_person_distance):.0f}%">{"".join(bars)}</div>'
        f"<figcaption><b>Likeness over time.</b> {escape(sentence)}</figcaption></figure>"
    )


def _height(distance: float) -> float:
    """Of a bar, in percent."""
    return 100 * min(1.0, max(0.0, (_FARTHEST - distance) / (_FARTHEST - _NEAREST)))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
