"""Mask losses over every cell of the logits, for models whose maps are small.

On large maps losses are computed at random points, to save time. A map of 48 x 48 cells has fewer cells than the
published number of points, so reading all of them costs no more, and none of a small target's few cells is missed.

Shapes: ``N`` questions, ``P`` predictions of the decoder (one before and one after each layer), ``h w`` cells of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_WEIGHT = 20.0  # of a small target's cell: with more, errors at its edge would outweigh the whole rest of the image


def shrink_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages masks over the cells of a coarser map: how much of each cell is target.

    Args:
        masks: ``(N, H, W)`` in [0, 1].
        size: ``(h, w)``, no larger.

    Returns:
        ``(N, h, w)`` float32 in [0, 1].
    """
    return F.interpolate(masks.float()[:, None], size=size, mode="area")[:, 0]


def small_target_weight(targets: Tensor, known: Tensor, share: float) -> Tensor:
    """Gives the cells of a small target more weight, so that it is not cheapest to predict nothing.

    Args:
        targets: ``(N, h, w)`` in [0, 1].
        known: ``(N, h, w)`` in {0, 1}: cells that count.
        share: A target that covers less than this share of the known cells is given about this share of the weight; 0
            leaves all weights at one.

    Returns:
        ``(N, h, w)``, at least ``known`` and at most 20 times it.
    """
    if not share:
        return known
    covered = (targets * known).sum((1, 2)) / known.sum((1, 2)).clamp_min(1)
    factor = (share / covered.clamp_min(1e-6)).clamp(1, MOST_WEIGHT)
    return known * (1 + (factor[:, None, None] - 1) * targets)


def dense_losses(
    logits: Tensor, targets: Tensor, known: Tensor | None, counted: Tensor, small_targets: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice loss with soft targets, averaged over the questions that count.

    Args:
        logits: ``(N, P, h, w)``.
        targets: ``(N, h, w)`` in [0, 1], see :func:`shrink_masks`.
        known: ``(N, h, w)`` in {0, 1}: cells whose target is known; ``None``: all.
        counted: ``(N,)`` bool: questions that count. Where none does, both losses are zero and keep their graph.
        small_targets: See :func:`small_target_weight`.

    Returns:
        Two scalars: each is a mean over questions, summed over the ``P`` predictions.
    """
    logits = logits.float()
    known = torch.ones_like(targets) if known is None else known.float()
    # Every question is computed and some are weighted by zero: choosing rows by a mask would make a GPU wait.
    share = counted.float() / counted.float().sum().clamp_min(1)
    weight = small_target_weight(targets, known, small_targets)[:, None]
    target, known = targets[:, None].expand_as(logits), known[:, None]
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (bce * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)  # (N, P)
    p, t = logits.sigmoid() * known, target * known
    dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)
    return (share @ bce).sum(), (share @ dice).sum()
