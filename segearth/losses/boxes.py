"""What boxes are trained with: the distance of their edges from those of their targets."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.05  # that training leaves between a target and its box, lest the edge cut off its outermost cells


def box_loss(boxes: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """Mean distance of the edges of boxes from those of targets, over what is present, summed over predictions.

    Words that name a place differ in nothing but where the target lies. A mask hardly tells: what is wrong in half of
    the image costs the same whichever half was named, as long as "left" and "right" are read alike.

    Args:
        boxes: ``(N, P, 6)``.
        masks: ``(N, H, W)``.
        counted: ``(N,)`` bool; boxes of what is absent, for one, do not count.
    """
    off = (boxes[..., :4] - boxes_around(masks)[:, None]).abs().mean(-1)
    share = counted.float() / counted.float().sum().clamp_min(1)
    return (share @ off).sum()


def boxes_around(masks: Tensor) -> Tensor:
    """Returns the least boxes that hold the targets, a little larger.

    Args:
        masks: ``(N, H, W)`` in [0, 1], each with a cell above 0; where no cell is mostly target, all it touches count.

    Returns:
        ``(N, 4)`` left, top, right, bottom, as :class:`segearth.models.word_heads.BoxGate` draws them.
    """
    mostly = masks > 0.5
    inside = torch.where(mostly.flatten(1).any(1)[:, None, None], mostly, masks > 0)
    ends = []
    for axis in (1, 2):  # columns, then rows
        line = inside.any(axis).float()
        cells = line.shape[1]
        ends.append((line.argmax(1) / cells, 1 - line.flip(1).argmax(1) / cells))
    (left, right), (top, bottom) = ends
    low, high = torch.stack([left, top], -1), torch.stack([right, bottom], -1)
    return torch.cat([2 * low - 1 - MARGIN, 2 * high - 1 + MARGIN], -1)
