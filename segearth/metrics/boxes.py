"""Overlap of boxes and how far apart they are.

A box is ``(left, top, right, bottom)`` in pixels; a rotated box is ``(centre x, centre y, width, height, degrees)``.
Boxes are often written by a language model, so every function takes whatever numbers come:

==============  ========================================================================================================
no box at all   ``[]`` is zero boxes; the result has zero rows or columns.
reversed        left and right, or top and bottom, are exchanged where they come in the wrong order.
NaN             where the box lies is unknown: it overlaps nothing, not even itself.
huge, infinite  coordinates are cut at ±1e9, far outside of any image, so that areas stay finite.
without area    a line or a point overlaps nothing, not even itself.
==============  ========================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LARGEST = 1e9  # coordinates beyond are cut: their products would overflow, and IoU would be infinity over infinity


def as_boxes(boxes: Any) -> np.ndarray:
    """Brings boxes into the form that the other functions compute with.

    Args:
        boxes: One box of four numbers, a list or an array of boxes of shape ``(n, 4)``, or an empty list.

    Returns:
        Float64 of shape ``(n, 4)`` with ``left <= right`` and ``top <= bottom``. A box with a NaN is four NaNs.

    Raises:
        ValueError: The values are not numbers, or not four a box.

    Example:
        >>> as_boxes([30, 40, 10, 20])  # reversed corners
        array([[10., 20., 30., 40.]])
    """
    array = _numbers(boxes, 4, "(left, top, right, bottom)")
    low, high = np.minimum(array[:, :2], array[:, 2:]), np.maximum(array[:, :2], array[:, 2:])
    return np.concatenate([low, high], axis=1)


def clip_boxes(boxes: Any, height: int, width: int) -> np.ndarray:
    """Cuts boxes at the borders of an image.

    Args:
        boxes: As for :func:`as_boxes`.
        height: Of the image in pixels.
        width: Of the image in pixels.

    Returns:
        Float64 ``(n, 4)``. A box that lies outside of the image keeps its row, without area; NaNs stay.
    """
    return np.clip(as_boxes(boxes), 0, [width, height, width, height])


def box_area(boxes: Any) -> np.ndarray:
    """Returns the area of each box in square pixels, shape ``(n,)``; 0 where a coordinate is NaN."""
    array = as_boxes(boxes)
    return np.nan_to_num((array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1]))


def box_iou(first: Any, second: Any) -> np.ndarray:
    """Returns the intersection over union of every box of one set with every box of another.

    Args:
        first: ``n`` boxes, as for :func:`as_boxes`.
        second: ``m`` boxes.

    Returns:
        Float64 of shape ``(n, m)`` in [0, 1].

    Example:
        >>> box_iou([0, 0, 10, 10], [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]]).round(4)
        array([[1.    , 0.3333, 0.    ]])
    """
    intersection, union, _ = _overlap(as_boxes(first), as_boxes(second))
    return _share(intersection, union)


def box_giou(first: Any, second: Any) -> np.ndarray:
    """Returns the generalised IoU of boxes (Rezatofighi et al., arXiv 1902.09630), every one with every other.

    It is the IoU less the share of the smallest box around both that neither covers. Unlike the IoU it tells boxes that
    nearly touch from boxes far apart. The "gIoU" of segmentation reports is something else: a mean of IoUs.

    Args:
        first: ``n`` boxes, as for :func:`as_boxes`.
        second: ``m`` boxes.

    Returns:
        Float64 of shape ``(n, m)`` in [-1, 1]; -1 where one of the two has a NaN or the box around both has no area.

    Example:
        >>> float(box_giou([0, 0, 10, 10], [20, 0, 30, 10])[0, 0].round(4))  # a gap of 100 in a box of 300
        -0.3333
    """
    intersection, union, around = _overlap(as_boxes(first), as_boxes(second))
    covered = _share(union, around)
    return np.where(np.nan_to_num(around) > 0, _share(intersection, union) + covered - 1, -1.0)


def centre_distance(first: Any, second: Any, height: int, width: int) -> np.ndarray:
    """Returns how far the centres of boxes are apart, in shares of an image's sides, every one with every other.

    Args:
        first: ``n`` boxes, as for :func:`as_boxes`.
        second: ``m`` boxes.
        height: Of the image in pixels; vertical distances are divided by it.
        width: Of the image in pixels; horizontal distances are divided by it.

    Returns:
        Float64 of shape ``(n, m)``, at least 0; infinite where one of the two boxes has a NaN.

    Example:
        >>> centre_distance([0, 0, 10, 10], [25, 0, 35, 10], 100, 100)
        array([[0.25]])
    """
    a, b = as_boxes(first), as_boxes(second)
    apart = ((a[:, None, :2] + a[:, None, 2:]) - (b[None, :, :2] + b[None, :, 2:])) / 2 / [width, height]
    return np.nan_to_num(np.hypot(apart[..., 0], apart[..., 1]), nan=np.inf, posinf=np.inf)


def rotated_to_horizontal(boxes: Any) -> np.ndarray:
    """Returns the smallest upright box around each rotated one.

    Args:
        boxes: ``(n, 5)``: centre x, centre y, width, height, degrees. Degrees turn from the x axis towards the y axis,
            which points down in images. Negative sides count as positive ones.

    Returns:
        Float64 ``(n, 4)``.

    Raises:
        ValueError: The values are not numbers, or not five a box.

    Example:
        >>> rotated_to_horizontal([50, 50, 20, 10, 90])
        array([[45., 40., 55., 60.]])
    """
    array = _numbers(boxes, 5, "(centre x, centre y, width, height, degrees)")
    centre, sides = array[:, :2], np.abs(array[:, 2:4])
    cos, sin = np.abs(np.cos(np.radians(array[:, 4]))), np.abs(np.sin(np.radians(array[:, 4])))
    half = np.stack([cos * sides[:, 0] + sin * sides[:, 1], sin * sides[:, 0] + cos * sides[:, 1]], axis=1) / 2
    return as_boxes(np.concatenate([centre - half, centre + half], axis=1).round(9))  # 6e-17 is the cosine of 90°


def rotated_box_iou(first: Any, second: Any) -> np.ndarray:
    """Returns the intersection over union of every rotated box of one set with every one of another.

    Only pairs whose upright boxes meet are computed, one by one. OpenCV has a function for this, which computes in 32
    bits: of thin boxes its overlaps are several percent off, so it is not used.

    Args:
        first: ``(n, 5)``, as for :func:`rotated_to_horizontal`.
        second: ``(m, 5)``.

    Returns:
        Float64 of shape ``(n, m)`` in [0, 1].

    Example:
        >>> round(float(rotated_box_iou([50, 50, 20, 10, 0], [50, 50, 20, 10, 90])[0, 0]), 4)  # a cross: 100 of 300
        0.3333
    """
    a, b = (_numbers(boxes, 5, "(centre x, centre y, width, height, degrees)") for boxes in (first, second))
    iou = np.zeros((len(a), len(b)))
    near = box_iou(rotated_to_horizontal(a), rotated_to_horizontal(b)) > 0
    for row, column in zip(*np.nonzero(near), strict=True):
        iou[row, column] = _rotated_pair(a[row], b[column])
    return iou


def _rotated_pair(a: np.ndarray, b: np.ndarray) -> float:
    areas = abs(a[2] * a[3]), abs(b[2] * b[3])
    if not min(areas) > 0:
        return 0.0
    middle = (a[:2] + b[:2]) / 2  # corners are counted from there: far from zero, their products would lose digits
    shared, around = _corners(a, middle), _corners(b, middle)
    for start, end in zip(around, np.roll(around, -1, axis=0), strict=True):
        shared = _cut(shared, start, end - start)
    x, y = shared[:, 0], shared[:, 1]
    overlap = min(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2, *areas)
    return float(overlap / (sum(areas) - overlap))


def _corners(box: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The corners of a rotated box, ``(4, 2)``, in the order in which the x axis turns towards the y axis."""
    cos, sin = np.cos(np.radians(box[4])), np.sin(np.radians(box[4]))
    half = np.abs(box[2:4]) / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return box[:2] - origin + half @ np.array([[cos, sin], [-sin, cos]])


def _cut(polygon: np.ndarray, point: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Keeps the part of a convex polygon ``(n, 2)`` on the inner side of a line (Sutherland and Hodgman 1974)."""
    side = direction[0] * (polygon[:, 1] - point[1]) - direction[1] * (polygon[:, 0] - point[0])
    kept = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if side[i] >= 0:
            kept.append(polygon[i])
        if (side[i] >= 0) != (side[j] >= 0):  # the edge crosses the line
            kept.append(polygon[i] + side[i] / (side[i] - side[j]) * (polygon[j] - polygon[i]))
    return np.array(kept).reshape(-1, 2)


def _numbers(boxes: Any, count: int, form: str) -> np.ndarray:
    """Returns ``(n, count)`` float64; a row with a NaN is NaN throughout, and no other value is beyond ±1e9."""
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes must be numbers, {form} each; got {_shortened(boxes)}") from error
    if array.size == 0:
        return np.zeros((0, count))
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != count:
        raise ValueError(f"a box is {count} numbers, {form}; got an array of shape {array.shape}")
    array = np.clip(array, -LARGEST, LARGEST)  # NaN stays NaN
    array[np.isnan(array).any(axis=1)] = np.nan
    return array


def _shortened(boxes: Sequence[Any]) -> str:
    text = repr(boxes)
    return text if len(text) <= 80 else text[:77] + "..."


def _overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area of intersection, of union, and of the smallest box around both, each ``(n, m)``; NaN where a box is NaN."""
    shared = np.ones((len(a), len(b)))
    around = np.ones((len(a), len(b)))
    for low, high in ((0, 2), (1, 3)):
        left, right = np.maximum(a[:, None, low], b[None, :, low]), np.minimum(a[:, None, high], b[None, :, high])
        shared *= np.maximum(right - left, 0)
        around *= np.maximum(a[:, None, high], b[None, :, high]) - np.minimum(a[:, None, low], b[None, :, low])
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    return shared, areas[0][:, None] + areas[1][None, :] - shared, around


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole`` in [0, 1]; 0 where the whole is 0 or NaN."""
    known = np.nan_to_num(whole) > 0
    return np.clip(np.divide(part, whole, out=np.zeros(part.shape), where=known), 0, 1)
