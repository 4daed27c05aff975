"""Pixels that two masks share."""

from __future__ import annotations

from typing import TypedDict

import numpy as np


class PixelCounts(TypedDict):
    """The four counts of a :class:`~segearth.evaluation.records.SampleRecord`."""

    intersection: int
    union: int
    target_area: int
    predicted_area: int


def count_pixels(prediction: np.ndarray, target: np.ndarray) -> PixelCounts:
    """Counts what a :class:`~segearth.evaluation.records.SampleRecord` keeps of two masks.

    Args:
        prediction: Mask of shape ``(H, W)``; non-zero means predicted.
        target: Mask of the same shape; non-zero means target.

    Returns:
        ``intersection``, ``union``, ``target_area`` and ``predicted_area`` in pixels.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> count_pixels(np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]]))
        {'intersection': 1, 'union': 3, 'target_area': 2, 'predicted_area': 2}
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}; they must be equal")
    prediction, target = prediction.astype(bool), target.astype(bool)
    intersection = int(np.count_nonzero(prediction & target))
    predicted_area, target_area = int(np.count_nonzero(prediction)), int(np.count_nonzero(target))
    return {
        "intersection": intersection,
        "union": predicted_area + target_area - intersection,
        "target_area": target_area,
        "predicted_area": predicted_area,
    }


def mask_iou(prediction: np.ndarray, target: np.ndarray) -> float:
    """Returns I/U of two masks of equal shape ``(H, W)``, in [0, 1]; 1 where both are empty.

    Example:
        >>> round(mask_iou(np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]])), 4)  # 1 pixel of 3
        0.3333
        >>> nothing = np.zeros((1, 4))
        >>> mask_iou(nothing, nothing), mask_iou(np.ones((1, 4)), nothing)
        (1.0, 0.0)
    """
    counts = count_pixels(prediction, target)
    return counts["intersection"] / counts["union"] if counts["union"] else 1.0
