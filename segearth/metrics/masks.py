"""Pixels that masks share."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

BLOCK = 1 << 20  # pixels of all masks that are turned into numbers at a time; as a whole they would take 4 bytes each


class PixelCounts(TypedDict):
    """Four counts from which IoU, its mean over samples and its ratio of sums all follow."""

    intersection: int
    union: int
    target_area: int
    predicted_area: int


def count_pixels(prediction: np.ndarray, target: np.ndarray) -> PixelCounts:
    """Counts the pixels of two masks and those that they share.

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


def pairwise_mask_iou(first: Any, second: Any) -> np.ndarray:
    """Returns I/U of every mask of one set with every mask of another.

    Args:
        first: ``(n, H, W)``; non-zero is inside. An empty list is no mask.
        second: ``(m, H, W)`` of the same height and width.

    Returns:
        Float64 of shape ``(n, m)`` in [0, 1]; 1 where both masks are empty.

    Raises:
        ValueError: The masks differ in height or width.

    Example:
        >>> left, right = np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]])
        >>> pairwise_mask_iou([left, right], [left]).round(4)
        array([[1.    ],
               [0.3333]])
    """
    a, b = np.asarray(first).astype(bool), np.asarray(second).astype(bool)
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks have shapes {a.shape[1:]} and {b.shape[1:]}; height and width must be equal")
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    shared = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], BLOCK):  # one block as numbers at a time: 32-bit sums of it are exact
        part_a, part_b = (masks[:, start : start + BLOCK].astype(np.float32) for masks in (a, b))
        shared += part_a @ part_b.T
    union = np.count_nonzero(a, axis=1)[:, None] + np.count_nonzero(b, axis=1)[None, :] - shared
    return np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
