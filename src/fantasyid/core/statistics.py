"""Statistics of repeated measurements, for what is trained and for what is judged."""

import numpy as np
from numpy.typing import NDArray


def scatter_within(values: NDArray[np.float64], person: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance of what one person's pictures disagree about.

    Args:
        values: (A,K).
        person: (A,) person of each; pictures of people with a single one do not enter.

    Returns:
        (K,K).
    """
    count = np.bincount(person)
    means = np.stack([np.bincount(person, column) for column in values.T], 1) / np.maximum(count, 1)[:, None]
    apart = values - means[person]
    scatter: NDArray[np.float64] = apart.T @ apart / (count[count > 0] - 1).sum()
    return scatter
