"""Prompt obedience: of two opposite prompts, does the video that was asked for more of something show more of it?

Definition: of each person and seed, whether the number measured of the video of the one prompt is above that of the
other; a video in which no face is found did not do what was asked. The mean over people and seeds.
Unit: share of the pairs of videos. Range: 0 to 1, higher is better; a video that follows nothing has 0.5 by chance, and
a still copy of the photo 0.
Source: our own; no number of the paper tells whether the head turns the way it was asked to.
"""

from collections.abc import Sequence

from fantasyid.evaluation.metrics.interface import Measured
from fantasyid.evaluation.run import RunItem
from fantasyid.evaluation.run_config import Opposites


def obeyed(pair: Opposites, items: Sequence[RunItem]) -> list[Measured[float | None]]:
    """Tell of every pair of videos whether the prompts were obeyed.

    Args:
        pair: The prompts.
        items: Judged videos of one system; a video without its opposite, or whose number could not be measured, tells
            nothing.

    Returns:
        1 or 0 of each pair.
    """
    number = {
        (item.person, item.seed, item.prompt_key): item.measured[pair.measure].value
        for item in items
        if item.measured[pair.measure].failure is None
    }
    found: list[Measured[float | None]] = []
    for person, seed in dict.fromkeys((item.person, item.seed) for item in items):
        videos = (person, seed, pair.higher), (person, seed, pair.lower)
        if all(video in number for video in videos):
            more, less = (number[video] for video in videos)
            shown = isinstance(more, float) and isinstance(less, float) and more > less
            found.append(Measured(person, pair.higher, float(shown)))
    return found
