"""Which prediction stands for which target, and what follows: matched IoU, precision, recall, F1, average precision.

The functions take a matrix of IoUs, ``(predictions, targets)``, of boxes or of masks alike. The exception is
:func:`match_boxes`, which needs the boxes themselves, because a box that is written twice must not count twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from segearth.metrics.boxes import as_boxes, box_iou

RECALL_POINTS = np.linspace(0, 1, 101)  # at which COCO reads precision


class MatchScores(NamedTuple):
    """How well a set of predictions and a set of targets match; all in [0, 1].

    Attributes:
        matched_iou: Sum of the matched IoUs over the size of the larger set.
        precision: Share of the predictions that stand for a target.
        recall: Share of the targets that a prediction stands for.
        f1: Harmonic mean of the two.
    """

    matched_iou: float
    precision: float
    recall: float
    f1: float


def best_assignment(similarity: Any) -> np.ndarray:
    """Pairs rows with columns, one to one, so that the sum over the pairs is the highest there is.

    This is the assignment problem, solved exactly (the Hungarian method with potentials). Rows and columns that no
    positive value connects are solved apart: boxes overlap few others, so thousands of them stay cheap.

    Args:
        similarity: ``(n, m)``; values that are not above 0, and NaN, are never paired.

    Returns:
        Integers of shape ``(k, 2)``: row and column of each pair, by row.

    Example:
        A greedy choice would take 0.9 first and be left with 0.9 + 0; the best sum is 0.8 + 0.7.

        >>> best_assignment([[0.9, 0.8], [0.7, 0.0]])
        array([[0, 1],
               [1, 0]])
    """
    values = np.nan_to_num(np.asarray(similarity, dtype=np.float64), nan=0.0)
    if values.ndim != 2:
        values = values.reshape(len(values), -1)
    values = np.maximum(values, 0)
    pairs = [
        (rows[i], columns[j])
        for rows, columns in _components(values > 0)
        for i, j in _assign(values[np.ix_(rows, columns)])
    ]
    return np.array(sorted(pairs), dtype=int).reshape(-1, 2)


def matched_iou(iou: Any) -> float:
    """Returns the mean IoU of the best one-to-one matching, with a penalty on length.

    The sum of the matched IoUs is divided by the number of predictions or of targets, whichever is larger, so a missing
    and a superfluous prediction both cost.

    Args:
        iou: ``(predictions, targets)``; ``(0, m)`` where nothing was predicted.

    Returns:
        In [0, 1]; 1 where there is neither prediction nor target, 0 where only one of the two is there.

    Example:
        >>> matched_iou([[1.0, 0.0]])  # two targets, one perfect box
        0.5
    """
    values = np.asarray(iou, dtype=np.float64)
    if not max(values.shape):
        return 1.0
    pairs = best_assignment(values)
    return float(values[pairs[:, 0], pairs[:, 1]].sum() / max(values.shape))


def precision_recall_f1(iou: Any, threshold: float = 0.5) -> tuple[float, float, float]:
    """Returns precision, recall and F1 of the largest one-to-one matching whose pairs reach an IoU.

    Args:
        iou: ``(predictions, targets)``.
        threshold: Least IoU of a pair, in (0, 1].

    Returns:
        Each in [0, 1]; all 1 where there is neither prediction nor target, all 0 where only one of the two is there.

    Example:
        >>> precision_recall_f1([[1.0, 0.0]])  # two targets, one perfect box
        (1.0, 0.5, 0.6666666666666666)
    """
    values = np.asarray(iou, dtype=np.float64)
    predictions, targets = values.shape
    if not predictions or not targets:
        score = float(predictions == targets)
        return score, score, score
    # All IoUs together add less than one pair more, so the number of pairs decides, and the IoUs between equal numbers.
    weights = np.where(values >= threshold, 1 + values / (min(values.shape) + 1), 0)
    found = len(best_assignment(weights))
    return found / predictions, found / targets, 2 * found / (predictions + targets)


def match_boxes(predicted: Any, target: Any, threshold: float = 0.5) -> MatchScores:
    """Scores predicted boxes against target boxes.

    A box that is predicted several times is matched once (as often as one target is annotated several times, where that
    occurs), and counts each time as a prediction. Otherwise writing one large box twice would pay: the copy would be
    matched with a second target that the box also touches.

    Args:
        predicted: ``n`` boxes, as for :func:`segearth.metrics.boxes.as_boxes`.
        target: ``m`` boxes.
        threshold: Least IoU of a pair, for precision, recall and F1.

    Example:
        >>> match_boxes([[0, 0, 10, 10]], [[0, 0, 10, 10], [50, 50, 60, 60]]).recall
        0.5
        >>> match_boxes([], []).f1, match_boxes([], [[0, 0, 1, 1]]).f1
        (1.0, 0.0)
    """
    boxes, targets = as_boxes(predicted), as_boxes(target)
    iou = box_iou(boxes, targets)
    iou[superfluous_copies(boxes, targets)] = 0
    return MatchScores(matched_iou(iou), *precision_recall_f1(iou, threshold))


def average_precision(
    ious: Sequence[Any], confidences: Sequence[Sequence[float]], threshold: float = 0.5
) -> float | None:
    """Returns the average precision over a set of images, by COCO's rules.

    Predictions of all images are sorted by confidence. Each takes the target of its image that it overlaps most, of
    those that are free and reach the IoU; a prediction without one is false. Precision, made to fall with recall, is
    read at 101 recalls and averaged.

    Args:
        ious: ``(predictions, targets)`` of each image.
        confidences: One value a prediction, for each image. Where all are equal, the order given counts.
        threshold: Least IoU of a hit.

    Returns:
        In [0, 1]; ``None`` where no image has a target.

    Raises:
        ValueError: The number of confidences is not that of predictions.

    Example:
        >>> average_precision([[[1.0], [0.0]]], [[0.9, 0.5]])  # the hit comes first, the false box after it
        1.0
        >>> average_precision([[[1.0], [0.0]]], [[0.5, 0.9]])
        0.5
    """
    targets, hits, certainty = 0, [], []
    for iou, own in zip(ious, confidences, strict=True):
        values, certain = np.asarray(iou, dtype=np.float64), np.asarray(own, dtype=np.float64)
        if len(values) != len(certain):
            raise ValueError(f"{len(values)} predictions have {len(certain)} confidences; there must be one each")
        order = np.argsort(-certain, kind="stable")
        targets += values.shape[1] if values.ndim == 2 else 0
        hits.append(_greedy_hits(values[order], threshold))
        certainty.append(certain[order])
    if not targets:
        return None
    hit = np.concatenate(hits)[np.argsort(-np.concatenate(certainty), kind="stable")]
    if not hit.any():
        return 0.0
    found = np.cumsum(hit)
    precision = np.maximum.accumulate((found / np.arange(1, len(hit) + 1))[::-1])[::-1]
    first = np.searchsorted(found / targets, RECALL_POINTS, side="left")  # prediction at which each recall is reached
    return float(np.where(first < len(hit), precision[np.minimum(first, len(hit) - 1)], 0).mean())


def _greedy_hits(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Which predictions, most certain first, find a target that no earlier one has taken."""
    hits = np.zeros(len(iou), bool)
    if iou.ndim != 2 or not iou.shape[1]:
        return hits
    free = np.ones(iou.shape[1], bool)
    for row, values in enumerate(iou):
        best = int(np.where(free, values, -1).argmax())
        if free[best] and values[best] >= threshold:
            hits[row], free[best] = True, False
    return hits


def superfluous_copies(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Marks the copies of a box beyond the number of times that any one target is repeated.

    Args:
        boxes: Predicted boxes, float ``(n, 4)``, as :func:`segearth.metrics.boxes.as_boxes` returns them.
        targets: ``(m, 4)``.

    Returns:
        Boolean ``(n,)``; the first of equal boxes is never marked.
    """
    if len(boxes) < 2 or not len(targets):
        return np.zeros(len(boxes), bool)
    allowed = np.unique(targets, axis=0, return_counts=True)[1].max()
    _, which = np.unique(boxes, axis=0, return_inverse=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(which[order]) > 0])
    copy = np.empty(len(boxes), int)  # 0 for the first of its kind, 1 for the second, and so on
    copy[order] = np.arange(len(boxes)) - np.repeat(starts, np.diff(np.r_[starts, len(boxes)]))
    return copy >= allowed


def _components(joined: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each part of a bipartite graph that hangs together; rows without a neighbour are left out."""
    rows_left: np.ndarray = np.asarray(joined.any(axis=1))
    columns_left: np.ndarray = np.asarray(joined.any(axis=0))
    for start in range(len(joined)):
        if not rows_left[start]:
            continue
        rows, columns = np.zeros_like(rows_left), np.zeros_like(columns_left)
        fresh = np.array([start])
        while len(fresh):
            rows[fresh], rows_left[fresh] = True, False
            reached = np.flatnonzero(joined[fresh].any(axis=0) & columns_left)
            columns[reached], columns_left[reached] = True, False
            fresh = np.flatnonzero(joined[:, reached].any(axis=1) & rows_left)
        yield np.flatnonzero(rows), np.flatnonzero(columns)


def _assign(values: np.ndarray) -> list[tuple[int, int]]:
    """Pairs with the highest sum in a matrix of values that are at least 0; pairs of value 0 are left out."""
    if values.shape[0] > values.shape[1]:
        return [(row, column) for column, row in _assign(values.T)]
    rows, columns = values.shape
    # Row by row, the cheapest chain of exchanges that frees a column is found (Dijkstra over reduced costs). Index 0 of
    # `owner` and `came_from` is the row that is being placed, so columns are counted from 1.
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner, came_from = np.zeros(columns + 1, int), np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        owner[0], at = row, 0
        distance, done = np.full(columns + 1, np.inf), np.zeros(columns + 1, bool)
        while True:
            done[at] = True
            through = -values[owner[at] - 1] - row_price[owner[at]] - column_price[1:]
            nearer = ~done[1:] & (through < distance[1:])
            distance[1:][nearer], came_from[1:][nearer] = through[nearer], at
            at = int(np.where(done, np.inf, distance).argmin())
            step = distance[at]
            row_price[owner[done]] += step
            column_price[done] -= step
            distance[~done] -= step
            if owner[at] == 0:
                break
        while at:
            owner[at], at = owner[came_from[at]], int(came_from[at])
    return [(int(owner[c]) - 1, c - 1) for c in range(1, columns + 1) if owner[c] and values[owner[c] - 1, c - 1] > 0]
