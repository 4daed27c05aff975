"""Resizes images and masks; where they shrink, pixels are averaged."""

from __future__ import annotations

import cv2
import numpy as np


def resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an array: first it averages along the sides that shrink, then it interpolates along those that grow.

    Args:
        array: ``(H, W)`` or ``(H, W, C)``, ``uint8`` or float32.
        height: New ``H``.
        width: New ``W``.
    """
    shrunk_h, shrunk_w = min(height, array.shape[0]), min(width, array.shape[1])
    # Two steps, because if one side shrinks and the other grows, INTER_AREA of OpenCV interpolates along both sides and
    # so skips pixels along the one that shrinks.
    array = cv2.resize(array, (shrunk_w, shrunk_h), interpolation=cv2.INTER_AREA)
    if (shrunk_h, shrunk_w) == (height, width):
        return array
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)


def raised(share: np.ndarray) -> np.ndarray:
    """Scales a target that fills no cell completely, so that its fullest cell becomes 1.

    A target that is smaller or thinner than a cell may cover less than half of every cell. Trained on that, the best
    mask would be empty once it is thresholded, although the presence score is taught that the target is there.

    Args:
        share: ``(h, w)``, how much of each cell belongs to the target, in [0, 1].

    Returns:
        ``(h, w)`` in [0, 1]; unchanged if some cell is full, or if there is no target.
    """
    fullest = float(share.max(initial=0.0))
    return share / fullest if fullest else share
