"""What a group of answers to one question makes of their rewards: advantages, and how far the group is trusted.

GRPO (arXiv 2402.03300) compares an answer with the others to the same question: its advantage is its reward less the
group's mean, divided by the group's standard deviation. A factor on the rewards of a whole group would be cancelled by
that division. Whatever says something about the group, such as "these answers scatter", must therefore act on the
advantages.

RSGround-R1 (arXiv 2601.21634) trusts a group less whose answers point at different places. How is not public, so the
formulas here are a reconstruction with the constants of :class:`segearth.rl.rewards.settings.ConsistencySettings`.

Everything takes and returns NumPy arrays: a weight is a number that no gradient flows through.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from segearth.errors import RewardError
from segearth.metrics.boxes import as_boxes, box_iou
from segearth.metrics.matching import matched_iou
from segearth.rl.rewards.settings import DEFAULT_CONSISTENCY, ConsistencySettings


def group_advantages(rewards: Any, epsilon: float = 1e-4) -> np.ndarray:
    """Standardises rewards within each group, as ``GRPOTrainer`` of trl does.

    Args:
        rewards: ``(groups, answers)``; NaN where an answer could not be scored by any term.
        epsilon: Added to the standard deviation (that of a sample, with ``n - 1``), so that equal rewards give 0.

    Returns:
        Float64 of the same shape; 0 where the reward is NaN, and for all of a group that has less than two others.

    Raises:
        RewardError: The rewards have another number of dimensions.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 2:
        raise RewardError(f"rewards have shape {values.shape}; give (groups, answers)")
    known = np.isfinite(values)
    count = known.sum(axis=1, keepdims=True)
    apart = np.where(known, values, 0)
    apart = np.where(known, apart - apart.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0)
    deviation = np.sqrt((apart**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    divisor = deviation + epsilon
    return np.divide(apart, divisor, out=np.zeros_like(apart), where=divisor > 0)


def agreement(
    boxes: Sequence[Any], size: tuple[int, int], settings: ConsistencySettings = DEFAULT_CONSISTENCY
) -> float:
    """Returns how far the answers of one group point at one place.

    ``"centres"``: ``exp(-s/scale)``, where ``s`` is the root mean square distance of the answers' centres from their
    common mean, in shares of the image's sides; the centre of an answer with several boxes is the mean of theirs.
    ``"iou"``: the mean over every two answers of their IoU (with several boxes, matched one to one).

    Args:
        boxes: For each answer its boxes, ``(n, 4)`` in pixels; none, or ``None``, where it points at nothing.
        size: ``(H, W)`` of the image.
        settings: ``agreement``, ``scale``.

    Returns:
        In [0, 1]. Answers that point at nothing are left out: that they failed is what their reward says. With less
        than two others there is nothing that could scatter, so it is 1.

    Example:
        >>> round(agreement([[0, 0, 10, 10], [50, 0, 60, 10]], (100, 100)), 6)  # 25 px from their mean: exp(-1)
        0.367879
    """
    placed = [rows for rows in (_known(each) for each in boxes) if len(rows)]
    if len(placed) < 2:
        return 1.0
    if settings.agreement == "iou":
        return float(np.mean([matched_iou(box_iou(one, other)) for one, other in combinations(placed, 2)]))
    height, width = size
    centres = np.stack([(rows[:, :2] + rows[:, 2:]).mean(axis=0) / 2 for rows in placed]) / [width, height]
    scatter = np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean())
    return float(np.exp(-scatter / settings.scale))


def consistency_weight(agreed: float, settings: ConsistencySettings = DEFAULT_CONSISTENCY) -> float:
    """Returns ``w = w_min + (1 - w_min)·C``, in [w_min, 1].

    Args:
        agreed: ``C``, see :func:`agreement`.
        settings: ``lowest_weight``, which is ``w_min``.
    """
    return settings.lowest_weight + (1 - settings.lowest_weight) * agreed


def consistent_advantages(
    advantages: Any,
    boxes: Sequence[Sequence[Any]],
    sizes: Sequence[tuple[int, int]],
    settings: ConsistencySettings = DEFAULT_CONSISTENCY,
) -> np.ndarray:
    """Weights the advantages of each group by how far its answers agree on a place.

    Args:
        advantages: ``(groups, answers)``, see :func:`group_advantages`.
        boxes: For each group and answer its boxes, as for :func:`agreement`.
        sizes: ``(H, W)`` of each group's image.
        settings: The constants.

    Returns:
        Float64 of the same shape; no sign changes.

    Raises:
        RewardError: The numbers of groups or answers differ.
    """
    values = np.asarray(advantages, dtype=np.float64)
    lengths = {len(group) for group in boxes}
    if values.ndim != 2 or len(boxes) != len(values) or len(sizes) != len(values) or lengths - {values.shape[1]}:
        raise RewardError(
            f"advantages have shape {values.shape}, but there are boxes of {len(boxes)} groups of {sorted(lengths)} "
            f"answers and {len(sizes)} sizes; give (groups, answers), boxes for each answer and a size for each group"
        )
    weights = [
        consistency_weight(agreement(group, size, settings), settings)
        for group, size in zip(boxes, sizes, strict=True)
    ]
    return values * np.asarray(weights, dtype=np.float64).reshape(-1, 1)


def _known(boxes: Any) -> np.ndarray:
    rows = as_boxes([] if boxes is None else boxes)
    return rows[~np.isnan(rows).any(axis=1)]
