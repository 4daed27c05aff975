"""How far a mean over images may be off by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segearth.utils.seeds import rng_for


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[str],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean, drawing whole clusters with replacement.

    Questions about one image share its difficulty, so images are drawn, not questions (the cluster bootstrap; Efron and
    Tibshirani, *An Introduction to the Bootstrap*, 1993). Differences of paired values give the interval of a margin.

    Args:
        values: One value a sample, such as its IoU.
        clusters: One label a sample, such as its image id.
        level: Share of the draws inside the interval, in (0, 1).
        draws: Number of resampled sets.
        seed: Decides every draw.

    Returns:
        Lower and upper end. With a single cluster both are the mean.

    Example:
        >>> bootstrap_interval([0.5, 0.5, 0.5], ["a", "a", "b"])
        (0.5, 0.5)
    """
    _, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(cluster_of, weights=np.asarray(values, dtype=float))
    sizes = np.bincount(cluster_of)
    rng = rng_for(seed)
    means = np.empty(draws)
    for draw in range(draws):
        chosen = rng.integers(0, len(sizes), len(sizes))
        means[draw] = sums[chosen].sum() / sizes[chosen].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
