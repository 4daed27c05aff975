"""What boxes are trained with: the distance of their edges from those of their targets."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.05  # between a target and its box, in half sides of the image; else the edge would cut off outermost cells


def box_loss(boxes: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """Mean distance of the edges of boxes from those of targets, over the questions that count.

    The distances of a question's predictions are added up.

    It teaches words such as "left" and "right". While a model reads both alike, the mask losses tell it little: its
    mask is then as wrong for the one as for the other, whichever way it moves. A box's edge says which way is right.

    Args:
        boxes: ``(N, P, 6)``.
        masks: ``(N, H, W)``.
        counted: ``(N,)`` bool: questions that count; where the thing is absent, for one, there is no right box.
    """
    distance = (boxes[..., :4] - boxes_around(masks)[:, None]).abs().mean(-1)
    share = counted.float() / counted.float().sum().clamp_min(1)
    return (share @ distance).sum()


def boxes_around(masks: Tensor) -> Tensor:
    """Returns the smallest box around each target, made a little larger.

    Args:
        masks: ``(N, H, W)`` in [0, 1], each with a cell above 0. Cells that are mostly target count; where there is
            none, all that are target in part.

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
