"""The calibration error: how far confidences are from what they promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10


def calibration_error(
    confidence: Sequence[float] | np.ndarray, outcome: Sequence[float] | np.ndarray, bins: int = BINS
) -> float:
    """Returns the expected calibration error (Naeini et al. 2015, Guo et al. arXiv 1706.04599).

    Answers are grouped by their confidence into bins of equal width. In each, mean confidence and mean outcome should
    be the same; their distance is averaged, weighted by how many answers the bin holds.

    Args:
        confidence: One value in [0, 1] an answer.
        outcome: What it promised, in [0, 1]: whether the thing was there, or the IoU that was reached.
        bins: How many bins.

    Returns:
        In [0, 1]; 0 is perfect, and 0 also where there is no answer.

    Example:
        Four answers said 0.9 and three were right; one said 0.2 and was wrong: (4 · |0.9 - 0.75| + |0.2 - 0|) / 5.

        >>> round(calibration_error([0.9, 0.9, 0.9, 0.9, 0.2], [1, 1, 1, 0, 0]), 4)
        0.16
    """
    said, came = np.asarray(confidence, float), np.asarray(outcome, float)
    if not len(said):
        return 0.0
    bin_of = np.minimum((said * bins).astype(int), bins - 1)  # a confidence of 1 belongs to the last bin
    counts = np.bincount(bin_of)
    # A bin's distance of means, weighted by its count, is the distance of its sums.
    gaps = np.abs(np.bincount(bin_of, said - came))
    return float(gaps.sum() / counts.sum())
