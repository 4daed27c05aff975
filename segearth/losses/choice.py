"""What the choice among regions is trained with: whether each region belongs to the target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.losses.dense import shrink_masks
from segearth.model_types import Batch, Choice


def choice_loss(choice: Choice, logits: Tensor, batch: Batch, wholly_known: Tensor) -> Tensor:
    """Binary cross-entropy of keeping each region, right and wrong ones in balance.

    A region is right if most of it is target. Where none is, because the target was drawn together with its neighbour
    or not at all, the question does not count: there is nothing right to choose. Of a question that does not choose by
    size every region is to be kept, the wrong ones too, so that nothing depends on how a scene is cut into tiles.
    Questions that choose and those that do not are averaged by themselves and weigh alike, since few of a batch choose.

    The mask losses alone teach a choice slowly: for them it is one of many things that are wrong in a mask, and a
    region that is kept by a high logit gives nearly no gradient.

    Args:
        choice: ``N`` masks, each with up to ``K`` regions.
        logits: ``(N, h, w)``, in which the regions were found.
        batch: ``masks`` and ``candidates`` are read. Questions of which nobody knows whether they choose do not count.
        wholly_known: ``(N,)`` bool: whether the target is known everywhere; else a right region may look wrong.
    """
    if batch.candidates is None:
        return choice.keep.float().sum() * 0.0
    inside = (logits > 0).flatten(1)
    labels = choice.labels.flatten(1)
    targets = shrink_masks(batch.masks, (logits.shape[1], logits.shape[2])).flatten(1)
    empty = torch.zeros_like(choice.keep, dtype=torch.float32)
    area = empty.scatter_add(1, labels, inside.float())
    share = empty.scatter_add(1, labels, inside * targets) / area.clamp_min(1)
    chooses = (batch.candidates != batch.masks).flatten(1).any(1)
    right = torch.where(chooses[:, None], share > 0.5, choice.real) & choice.real
    wrong = choice.real & ~right
    keep = choice.keep.float()
    loss = _mean(F.softplus(-keep), right) + _mean(F.softplus(keep), wrong)
    counted = (choice.real.sum(1) > 1) & right.any(1) & batch.candidates.flatten(1).any(1)
    return _mean(loss, counted & chooses & wholly_known) + _mean(loss, counted & ~chooses)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean over the last axis of what is marked; 0, with its graph, where nothing is."""
    return (values * where).sum(-1) / where.sum(-1).clamp_min(1)
