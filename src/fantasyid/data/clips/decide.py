"""From what was measured to the clips that are kept and those that are dropped, with reasons."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fantasyid.data.clips.captioner import measured_caption
from fantasyid.data.clips.config import KeepConfig
from fantasyid.data.clips.filters import duplicates, judge
from fantasyid.data.dataset.rows import Candidate, Clip, Dropped, Verdict


@dataclass(frozen=True)
class Decision:
    """What becomes of all candidates.

    Attributes:
        clips: Kept, in the order of their ids: hashes, so an order that is shuffled once and for ever.
        dropped: The others, in the same order.
    """

    clips: tuple[Clip, ...]
    dropped: tuple[Dropped, ...]


def decide(candidates: Sequence[tuple[int, Candidate]], keep: KeepConfig) -> Decision:
    """Keep or drop every candidate.

    Args:
        candidates: Each with the number of its part.
        keep: The rules.
    """
    dropped: list[Dropped] = []
    left: list[tuple[int, Candidate]] = []
    known: set[str] = set()
    for part, candidate in sorted(candidates, key=lambda pair: (pair[1].clip_id, pair[1].path)):
        verdicts = judge(candidate, keep)
        if not verdicts and keep.captions == "required" and not candidate.captions:
            verdicts = (Verdict(reason="no caption", measured=0, limit=1),)
        if not verdicts and candidate.clip_id in known:
            verdicts = (_duplicate(candidate.clip_id),)  # the same file twice
        if verdicts:
            dropped.append(_dropped(candidate, verdicts))
        else:
            known.add(candidate.clip_id)
            left.append((part, candidate))
    twice = duplicates([candidate for _, candidate in left], keep)
    dropped += [
        _dropped(candidate, (_duplicate(twice[candidate.clip_id]),))
        for _, candidate in left
        if candidate.clip_id in twice
    ]
    kept = [(part, candidate) for part, candidate in left if candidate.clip_id not in twice]
    people = _people([candidate for _, candidate in kept], keep.person_change)
    clips = tuple(
        Clip(
            **candidate.model_dump(),
            part=part,
            caption=candidate.captions[0] if candidate.captions else measured_caption(candidate),
            caption_from="source" if candidate.captions else "measured",
            person=person,
            split="val" if _share_of(candidate.film) < keep.held_out else "train",
        )
        for (part, candidate), person in zip(kept, people, strict=True)
    )
    return Decision(clips, tuple(sorted(dropped, key=lambda row: (row.clip_id, row.path))))


def _people(candidates: Sequence[Candidate], nearest: float) -> list[str]:
    """Who is seen: in each film, clips whose embedding is near to that of somebody's first clip are theirs."""
    first_clips: dict[str, list[Candidate]] = {}
    names = []
    for candidate in candidates:
        of_film = first_clips.setdefault(candidate.film, [])
        apart = [_apart(candidate, other) for other in of_film]
        number = int(np.argmin(apart)) if apart and min(apart) <= nearest else len(of_film)
        if number == len(of_film):
            of_film.append(candidate)
        names.append(f"{candidate.film}#{number}")
    return names


def _apart(first: Candidate, second: Candidate) -> float:
    """One minus the cosine of two clips' embeddings; the largest there is where one has none."""
    if not first.embedding or not second.embedding:
        return 2.0
    return 1 - float(np.dot(first.embedding, second.embedding))


def _share_of(film: str) -> float:
    """A number from 0 to 1 that depends on the film's name alone."""
    return int.from_bytes(hashlib.blake2b(film.encode(), digest_size=8).digest()) / 2**64


def _duplicate(clip_id: str) -> Verdict:
    return Verdict(reason="duplicate", measured=0, limit=0, note=f"of {clip_id}")


def _dropped(candidate: Candidate, verdicts: tuple[Verdict, ...]) -> Dropped:
    return Dropped(
        clip_id=candidate.clip_id,
        path=candidate.path,
        shot=candidate.shot,
        reason=verdicts[0].reason,
        verdicts=verdicts,
    )
