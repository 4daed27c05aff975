"""Images and masks at another size: averaged where they shrink."""

from __future__ import annotations

import cv2
import numpy as np


def resized(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Averages over areas along sides that shrink, then interpolates along sides that grow.

    Args:
        array: ``(H, W)`` or ``(H, W, C)``, ``uint8`` or float32.
        height: New ``H``.
        width: New ``W``.
    """
    h, w = min(height, array.shape[0]), min(width, array.shape[1])
    # Asked for both at once, OpenCV interpolates along both, which skips pixels along the side that shrinks.
    array = cv2.resize(array, (w, h), interpolation=cv2.INTER_AREA)
    return array if (h, w) == (height, width) else cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)


def raised(share: np.ndarray) -> np.ndarray:
    """Raises a target so small or thin that it fills no cell until its fullest cell counts whole.

    Left as it is, the best answer to it would be a mask that is empty once it is thresholded, beside a presence that
    says it is there.

    Args:
        share: How much of each cell is target, in [0, 1].
    """
    fullest = float(share.max(initial=0.0))
    return share / fullest if fullest else share
