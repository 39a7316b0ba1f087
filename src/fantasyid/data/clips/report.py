"""The page by which a person judges a dataset: what was kept and dropped, and why, with pictures; one file."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from fantasyid.data.clips.decide import Decision
from fantasyid.data.dataset.layout import REMEDY, DatasetFolder, Manifest
from fantasyid.data.dataset.rows import Candidate, Clip, Dropped
from fantasyid.data.dataset.shards import Shard

_SAMPLES_PER_REASON = 8
_SHEETS = 24
_VIEW_HEIGHT = 112
_BINS = 24

_STYLE = """
:root { color-scheme: light dark; --bar: #4477aa; --quiet: #8888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: var(--bar); height: .8rem; display: inline-block; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; max-width: 15rem; }
figure img { max-width: 100%; display: block; } figcaption { font-size: .8rem; overflow-wrap: anywhere; }
.views img { height: 7rem; } .quiet { color: GrayText; font-size: .85rem; }
.clip { margin: 1rem 0; border-top: 1px solid var(--quiet); padding-top: .6rem; }
"""


def report_page(
    folder: DatasetFolder, manifest: Manifest, decision: Decision, candidates: Mapping[str, tuple[int, Candidate]]
) -> str:
    """Write the page.

    Args:
        folder: The dataset, whose parts are there.
        manifest: Its numbers.
        decision: What is kept and what is not.
        candidates: By id, each with the number of its part.

    Returns:
        HTML.
    """
    pictures = _Pictures(folder)
    body = [
        "<h1>Dataset of clips</h1>",
        f"<p>{manifest.kept} of {manifest.candidates} candidates are kept, of {manifest.videos} videos and "
        f"{manifest.people} people.{_absent(manifest)}</p>",
        _reasons(manifest),
        _licences(manifest),
        _histograms(decision.clips),
        _kept_samples(decision.clips, pictures),
        _dropped_samples(decision.dropped, candidates, pictures),
    ]
    head = f'<meta charset="utf-8"><title>Dataset of clips</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


class _Pictures:
    """Pictures of the parts, as HTML."""

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder = folder
        self._shards: dict[int, Shard] = {}

    def show(self, part: int, name: str, what: str, height: int | None = None) -> str:
        """An image of the page, or nothing where the candidate has none."""
        if part not in self._shards:
            self._shards[part] = Shard(self._folder.part(part)["pictures"], REMEDY)
        if name not in self._shards[part].names():
            return ""
        content = self._shards[part].tensor(name).numpy().tobytes()
        if height is not None:
            picture = Image.open(io.BytesIO(content))
            picture.thumbnail((4 * height, height))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=80)
            content = buffer.getvalue()
        return f'<img alt="{escape(what)}" src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'


def _absent(manifest: Manifest) -> str:
    return f" {manifest.absent} videos more are listed and were not there." if manifest.absent else ""


def _reasons(manifest: Manifest) -> str:
    counts = {"kept": manifest.kept, **dict(sorted(manifest.dropped.items(), key=lambda item: -item[1]))}
    most = max(1, *counts.values())
    rows = (
        f'<tr><td>{escape(reason)}</td><td class="number">{count}</td>'
        f'<td><span class="bar" style="width:{24 * count / most:.2f}rem"></span></td></tr>'
        for reason, count in counts.items()
    )
    return f"<h2>What became of the candidates, by the first reason</h2><table>{''.join(rows)}</table>"


def _licences(manifest: Manifest) -> str:
    videos = "".join(
        f'<tr><td>{escape(terms)}</td><td class="number">{count}</td></tr>'
        for terms, count in manifest.licences.items()
    )
    backends = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(terms)}</td></tr>" for name, terms in manifest.backends.items()
    )
    return (
        f"<h2>Licences</h2><h3>Of the kept clips</h3><table>{videos}</table>"
        f"<h3>Of what measured them</h3><table>{backends}</table>"
    )


def _histograms(clips: Sequence[Clip]) -> str:
    if not clips:
        return ""
    values = {
        "yaw of all frames, degrees": [angle for clip in clips for angle in clip.yaw_deg],
        "pitch of all frames, degrees": [angle for clip in clips for angle in clip.pitch_deg],
        "largest angle between two views, degrees": [clip.view_spread_deg for clip in clips],
        "views": [float(len(clip.views)) for clip in clips],
        "height of the face, pixels": [clip.face_height for clip in clips],
        "motion of the face, heights a frame": [clip.face_motion for clip in clips],
        "motion of the picture, heights a frame": [clip.picture_motion for clip in clips],
        "words of the caption": [float(len(clip.caption.split())) for clip in clips],
    }
    drawn = "".join(_histogram(name, numbers) for name, numbers in values.items())
    return f'<h2>The kept clips in numbers</h2><div class="row">{drawn}</div>'


def _histogram(name: str, numbers: Sequence[float]) -> str:
    counts, edges = np.histogram(numbers, bins=_BINS)
    most = max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{place * 10}" y="{60 - 60 * count / most:.1f}" width="9" height="{60 * count / most:.1f}"/>'
        for place, count in enumerate(counts.tolist())
    )
    return (
        f'<figure><svg width="{_BINS * 10}" height="60" fill="var(--bar)">{bars}</svg>'
        f"<figcaption>{escape(name)}: {edges[0]:.3g} to {edges[-1]:.3g}, median {np.median(numbers):.3g}"
        "</figcaption></figure>"
    )


def _dropped_samples(
    dropped: Sequence[Dropped], candidates: Mapping[str, tuple[int, Candidate]], pictures: _Pictures
) -> str:
    by_reason: dict[str, list[Dropped]] = {}
    for row in dropped:
        by_reason.setdefault(row.reason, []).append(row)
    parts = ["<h2>Dropped, some of each reason</h2>" if dropped else ""]
    for reason, rows in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        figures = (
            _figure(
                pictures.show(candidates[row.clip_id][0], f"{row.clip_id}/thumbnail", row.path),
                (row.path, "; ".join(_told(row))),
            )
            for row in rows[:_SAMPLES_PER_REASON]
        )
        parts.append(f'<h3>{escape(reason)} ({len(rows)})</h3><div class="row">{"".join(figures)}</div>')
    return "".join(parts)


def _told(row: Dropped) -> Iterable[str]:
    for verdict in row.verdicts:
        numbers = f" {verdict.measured:.3g}, limit {verdict.limit:.3g}" if verdict.measured != verdict.limit else ""
        yield f"{verdict.reason}{numbers}{f' ({verdict.note})' if verdict.note else ''}"


def _kept_samples(clips: Sequence[Clip], pictures: _Pictures) -> str:
    shown = "".join(_kept(clip, pictures) for clip in clips[:_SHEETS])
    return f"<h2>Kept, the first {min(_SHEETS, len(clips))} of {len(clips)} in their shuffled order</h2>{shown}"


def _kept(clip: Clip, pictures: _Pictures) -> str:
    views = "".join(
        _figure(
            pictures.show(clip.part, f"{view.key}/picture", f"view of frame {view.frame}", _VIEW_HEIGHT),
            (f"{view.yaw_deg:+.0f}°, {view.pitch_deg:+.0f}°{'' if view.frame in _inside(clip) else ', outside'}",),
        )
        for view in clip.views
    )
    middle = _figure(pictures.show(clip.part, f"{clip.clip_id}/thumbnail", "middle frame"), ("middle frame",))
    return (
        f'<div class="clip"><div>{escape(clip.caption)}</div><div class="quiet">{escape(clip.path)}, frames '
        f"{clip.frames[0]} to {clip.frames[-1]}; person {escape(clip.person)}, {clip.split}; caption from the "
        f"{'publisher' if clip.caption_from == 'source' else 'measurements'}</div>"
        f'<div class="row views">{middle}{views}</div></div>'
    )


def _inside(clip: Clip) -> range:
    """Frames of the video that lie within the clip; views from outside it are the better ones."""
    return range(clip.frames[0], clip.frames[-1] + 1)


def _figure(image: str, lines: Iterable[str]) -> str:
    return f"<figure>{image}<figcaption>{'<br>'.join(map(escape, lines))}</figcaption></figure>"
