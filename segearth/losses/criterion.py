"""Losses on masks, presence and words. All in fp32, safe for empty targets.

Shapes: ``N`` questions, ``P`` predictions of the decoder (one before, one after each layer), ``K`` sampled points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.config import LossConfig
from segearth.errors import ConfigError
from segearth.layers.point_sampling import sample_points, uncertain_points
from segearth.losses.boxes import box_loss
from segearth.losses.choice import choice_loss
from segearth.losses.dense import dense_losses, shrink_masks
from segearth.model_types import Batch, ClassMaps, EncodedText, MaskOutput
from segearth.utils.devices import to_device


@dataclass(slots=True)
class Losses:
    """Unweighted scalar losses, and their weighted sum.

    Each loss has the name of its weight in :class:`~segearth.config.LossConfig`. Log, curves and detectron2 take the
    names from here, so that a new loss needs nothing there.

    Attributes:
        total: What is minimised.
        bce: Binary cross-entropy of the masks, summed over the decoder's predictions and, where regions are chosen
            among, what is left after the choice.
        dice: Dice loss, likewise.
        presence: Binary cross-entropy of "is it there".
        text: Cross-entropy of the answer's tokens; zero where no question has an answer.
        classes: Binary cross-entropy of every known class at every cell; zero where the batch has no class maps.
        boxes: Distance of the drawn boxes' edges from the targets', in half sides of the image, summed over the
            decoder's predictions; zero where no boxes are drawn.
        choice: How wrongly regions are kept or left out; zero where none are chosen.
    """

    total: Tensor
    bce: Tensor
    dice: Tensor
    presence: Tensor
    text: Tensor
    classes: Tensor
    boxes: Tensor
    choice: Tensor


LOSS_NAMES = tuple(field.name for field in fields(Losses) if field.name != "total")


class Criterion:
    """Computes the training objective of a batch."""

    def __init__(self, config: LossConfig) -> None:
        """Takes the weights and the sampling settings.

        Raises:
            ConfigError: ``config.sampling`` is neither ``"points"`` nor ``"dense"``.
        """
        if config.sampling not in ("points", "dense"):
            raise ConfigError(f"loss.sampling is {config.sampling!r}; use points or dense")
        self.config = config

    def __call__(self, output: MaskOutput, batch: Batch) -> Losses:
        """Compares what the model said of a batch with the batch's targets.

        Args:
            output: From the model's forward pass.
            batch: Targets. Where it is a placeholder, all losses are zero but that of classes, which needs no question.
        """
        config = self.config
        shown, before = batch, output.mask_logits
        if output.candidate_logits is not None:
            # What comes before the choice shall show all that can be chosen. Trained to show the right one alone, it
            # would leave nothing to compare.
            before = output.candidate_logits
            if batch.candidates is not None:
                known = batch.candidates.flatten(1).any(1)[:, None, None]
                shown = replace(batch, masks=torch.where(known, batch.candidates, batch.masks))
        bce, dice = self.mask_losses([*output.auxiliary, before], shown)
        if output.candidate_logits is not None:
            last_bce, last_dice = self.mask_losses([output.mask_logits], batch)
            bce, dice = bce + last_bce, dice + last_dice
        presence = F.binary_cross_entropy_with_logits(output.presence_logits.float(), batch.present.float())
        text, classes, choice, boxes = (bce.new_zeros(()) for _ in range(4))
        if config.text and output.token_logits is not None:
            text = text_loss(output.token_logits, batch.text)
        if output.class_logits is not None and batch.classes is not None:
            classes = class_loss(output.class_logits, batch.classes, config.small_targets)
        if config.boxes and output.boxes is not None:
            boxes = box_loss(output.boxes.float(), shown.masks, wholly_known(batch) & batch.present)
        if config.choice and output.choice is not None:
            choice = choice_loss(output.choice, before, batch, wholly_known(batch))
        losses = {"bce": bce, "dice": dice, "presence": presence, "text": text, "choice": choice, "boxes": boxes}
        if batch.placeholder:
            # Zeros, but still computed from the outputs: every process must run the same backward pass, in which they
            # exchange gradients. One that left it out would keep the others waiting for ever.
            losses = {name: loss * 0.0 for name, loss in losses.items()}
        losses["classes"] = classes  # class maps come from annotations, so an image without questions has them too
        weighted = [getattr(config, name) * losses[name] for name in LOSS_NAMES]
        return Losses(sum(weighted[1:], weighted[0]), **losses)

    def mask_losses(self, predictions: list[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """BCE and Dice, averaged over the questions that count and summed over predictions.

        Args:
            predictions: ``P`` tensors ``(N, h, w)`` of logits.
            batch: Its ``masks`` ``(N, H, W)``, ``present``, ``valid`` and ``known`` are read.
        """
        logits = torch.stack(predictions, 1)  # (N, P, h, w)
        counted = torch.ones_like(batch.present) if self.config.absent_masks else batch.present
        known = known_cells(batch)
        if self.config.sampling == "dense":
            size = (logits.shape[2], logits.shape[3])
            wholly = None if known is None else (shrink_masks(known, size) > 0.999).float()  # a cell known in part: no
            return dense_losses(logits, shrink_masks(batch.masks, size), wholly, counted, self.config.small_targets)
        return self._point_losses(logits, batch.masks, known, counted)

    def _point_losses(
        self, logits: Tensor, masks: Tensor, known: Tensor | None, counted: Tensor
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        count, depth = logits.shape[:2]
        flat = logits.flatten(0, 1)
        points = uncertain_points(flat, config.num_points, config.oversample_ratio, config.importance_ratio)
        sampled = sample_points(flat, points).view(count, depth, -1)
        # The points of all predictions about a question together, so that its target is read in one call.
        points_of_question = points.view(count, -1, 2)
        target = sample_points(masks, points_of_question).view(count, depth, -1)
        weight = None
        if known is not None:
            weight = (sample_points(known, points_of_question) > 0.5).float().view(count, depth, -1)
        share = counted.float() / counted.float().sum().clamp_min(1)
        return (share @ point_bce(sampled, target, weight)).sum(), (share @ point_dice(sampled, target, weight)).sum()


def class_loss(logits: Tensor, classes: ClassMaps, small_targets: float) -> Tensor:
    """Mean binary cross-entropy of class maps over their known cells; zero, with its graph, where none is known.

    Args:
        logits: ``(K, h, w)``.
        classes: What is true of them.
        small_targets: See :func:`segearth.losses.dense.small_target_weight`.
    """
    size = (logits.shape[1], logits.shape[2])
    known = (shrink_masks(classes.known.float(), size) > 0.999).float()
    counted = known.flatten(1).any(1)
    return dense_losses(logits[:, None], shrink_masks(classes.masks, size), known, counted, small_targets)[0]


def wholly_known(batch: Batch) -> Tensor:
    """Returns for which questions the target is known everywhere, ``(N,)`` bool.

    A target that is known in part may reach further than its mask, so that no box around it can be learned. Padding
    counts as known: nothing is there.
    """
    return torch.ones_like(batch.present) if batch.known is None else batch.known.flatten(1).all(1)


def known_cells(batch: Batch) -> Tensor | None:
    """Returns where each question's target is supervised, ``(N, H, W)`` float in {0, 1}; ``None``: everywhere."""
    known = None if batch.known is None else batch.known.float()
    if batch.valid is None:
        return known
    about = to_device(batch.image_index, batch.valid.device)  # PyTorch would copy an index too, but wait for the copy
    inside = batch.valid[about].float()
    return inside if known is None else inside * known


def point_bce(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the last axis.

    Args:
        logits: ``(…, K)``.
        target: ``(…, K)`` in [0, 1].
        weight: ``(…, K)``; points of weight zero do not count.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if weight is None:
        return loss.mean(-1)
    return (loss * weight).sum(-1) / weight.sum(-1).clamp_min(1)


def point_dice(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Dice loss over the last axis, ``1 - (2 Σpt + 1) / (Σp + Σt + 1)`` (arXiv 1606.04797, smoothed).

    Args: as :func:`point_bce`. With an empty target the loss falls to 0 as the prediction empties.
    """
    p = logits.sigmoid()
    if weight is not None:
        p, target = p * weight, target * weight
    return 1 - (2 * (p * target).sum(-1) + 1) / (p.sum(-1) + target.sum(-1) + 1)


def text_loss(token_logits: Tensor, text: EncodedText) -> Tensor:
    """Next-token cross-entropy.

    Args:
        token_logits: ``(T, V)``, one row for each of ``text.labelled``; where there is none, any row, see
            :meth:`segearth.models.segearth.SegEarth.predict_labels`.
        text: The ``T`` labels.

    Returns:
        Mean over labelled tokens. Where there is none: zero, but as a product with the logits, so that the output head
        has a gradient (of zeros) here too. Processes sum the gradients of each parameter together; one that has none
        would keep the others waiting for ever.
    """
    rows, columns = text.labelled.unbind(1)
    if not len(rows):
        return token_logits.float().sum() * 0.0
    return F.cross_entropy(token_logits.float(), text.labels[rows, columns])
