"""Which candidates are kept: a pure function of what was measured, so that rules change without measuring again."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.spatial import cKDTree

from fantasyid.data.clips.boxes import Box, area, overlap
from fantasyid.data.clips.config import KeepConfig
from fantasyid.data.dataset.rows import Candidate, ReadText, Verdict

_SAME_PLACE = 0.5

Rule = Callable[[Candidate, KeepConfig], Iterable[Verdict]]


def judge(candidate: Candidate, keep: KeepConfig) -> tuple[Verdict, ...]:
    """All rules that a candidate does not meet by itself, in the order of `RULES`; none: it is kept.

    Args:
        candidate: What was measured.
        keep: The rules.
    """
    if candidate.fault:
        return (Verdict(reason=candidate.fault, measured=0, limit=0, note=candidate.detail),)
    return tuple(verdict for rule in RULES for verdict in rule(candidate, keep))


def _small(candidate: Candidate, keep: KeepConfig) -> Iterable[Verdict]:
    left, top, right, bottom = candidate.crop
    yield from _at_least("too small", min(right - left, bottom - top), keep.min_side)


def _subtitle(candidate: Candidate, keep: KeepConfig) -> Iterable[Verdict]:
    sure = [
        text
        for text in candidate.texts
        if text.score >= keep.text_score and sum(letter.isalnum() for letter in text.text) >= keep.text_letters
    ]
    standing, said = _longest_standing(sure)
    if standing >= keep.text_frames:
        yield Verdict(reason="subtitle", measured=standing, limit=keep.text_frames - 1, note=said)
    covered = {frame: sum(area(_box(text)) for text in sure if text.frame == frame) for frame in _frames(sure)}
    yield from _at_most("text", max(covered.values(), default=0.0), keep.text_area)


def _face(candidate: Candidate, keep: KeepConfig) -> Iterable[Verdict]:
    confidence = np.array(candidate.confidence)
    seen, sure = float((confidence > 0).mean()), float((confidence >= keep.confidence).mean())
    if seen == 0:
        yield Verdict(reason="no face", measured=0, limit=keep.face_share)
        return
    yield from _at_least("face lost", seen, keep.face_share)
    if seen >= keep.face_share:
        yield from _at_least("unsure face", sure, keep.face_share)
    yield from _at_least("face too small", candidate.face_height, max(keep.face_height, _part(candidate, keep)))
    yield from _at_most("face cut off", candidate.face_outside, keep.face_outside)
    if not candidate.views or len(candidate.views) < keep.min_views:
        yield Verdict(reason="no view", measured=len(candidate.views), limit=keep.min_views)


def _one_person(candidate: Candidate, keep: KeepConfig) -> Iterable[Verdict]:
    if candidate.other_frames > 0:
        yield from _at_most("several people", candidate.other_area, keep.other_area)
    yield from _at_most("several people for long", candidate.other_frames, keep.other_frames)
    yield from _at_most("person changes", candidate.person_change, keep.person_change)


def _picture(candidate: Candidate, keep: KeepConfig) -> Iterable[Verdict]:
    if any(candidate.confidence):
        yield from _at_least("frozen", candidate.face_motion, keep.face_motion)
    yield from _at_least("too dark", candidate.luma, keep.darkest)
    yield from _at_most("too bright", candidate.luma, keep.brightest)


RULES: tuple[Rule, ...] = (_small, _subtitle, _face, _one_person, _picture)
"""Of single candidates; captions and duplicates are looked at afterwards, among those that are kept."""


def duplicates(candidates: Sequence[Candidate], keep: KeepConfig) -> dict[str, str]:
    """Clips that show what another one shows, as when a video was uploaded twice.

    Pictures alone do not tell: two takes of one speaker differ by as few bits as a video and its smaller copy. So the
    head must move alike, too; and clips of one film are not compared.

    Args:
        candidates: With faces, in the order in which they are preferred.
        keep: The rules.

    Returns:
        Id of each clip to leave out, with that of the one that stays.
    """
    if not candidates:
        return {}
    poses = np.array([_poses(candidate) for candidate in candidates])
    near: dict[int, list[int]] = {}
    for first, second in sorted(cKDTree(poses).query_pairs(keep.duplicate_deg, p=np.inf)):
        near.setdefault(second, []).append(first)
    found: dict[str, str] = {}
    for place, candidate in enumerate(candidates):
        for other in (candidates[index] for index in near.get(place, ())):
            if other.clip_id not in found and other.film != candidate.film and _alike(candidate, other, keep):
                found[candidate.clip_id] = other.clip_id
                break
    return found


def _alike(first: Candidate, second: Candidate, keep: KeepConfig) -> bool:
    bits = [(int(one, 16) ^ int(other, 16)).bit_count() for one, other in zip(first.hashes, second.hashes, strict=True)]
    return max(bits) <= keep.duplicate_bits


def _poses(candidate: Candidate) -> list[float]:
    """Yaw and pitch at the clip's beginning, in its middle and at its end."""
    tracks = (candidate.yaw_deg, candidate.pitch_deg)
    return [track[place] for track in tracks for place in (0, len(track) // 2, -1)]


def _part(candidate: Candidate, keep: KeepConfig) -> float:
    return keep.face_part * (candidate.crop[3] - candidate.crop[1])


def _at_least(reason: str, measured: float, limit: float) -> Iterable[Verdict]:
    if measured < limit:
        yield Verdict(reason=reason, measured=measured, limit=limit)


def _at_most(reason: str, measured: float, limit: float) -> Iterable[Verdict]:
    if measured > limit:
        yield Verdict(reason=reason, measured=measured, limit=limit)


def _frames(texts: Sequence[ReadText]) -> set[int]:
    return {text.frame for text in texts}


def _box(text: ReadText) -> Box:
    left, top, right, bottom = text.box
    return left, top, right, bottom


def _longest_standing(texts: Sequence[ReadText]) -> tuple[int, str]:
    """In how many frames text stands at one place at most, and what it says."""
    best = (0, "")
    for text in texts:
        same = [other for other in texts if overlap(_box(text), _box(other)) >= _SAME_PLACE]
        if len(_frames(same)) > best[0]:
            best = (len(_frames(same)), text.text)
    return best
