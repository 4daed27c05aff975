"""Rewards of what an answer points at: masks, where boxes lie, and how well they fit.

Coordinates of answers and targets are pixels of the image. ``None`` means "not applicable to such a target", which is
not 0: a term that is not applicable is left out of the sum. A list of things that could not be read gets 0.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from segearth.errors import RewardError
from segearth.evaluation.scorers.boxes import upright
from segearth.metrics.boxes import as_boxes, box_iou, centre_distance
from segearth.metrics.masks import mask_iou
from segearth.metrics.matching import average_precision, match_boxes, matched_iou, superfluous_copies
from segearth.prompting.answers import Instance, ParsedAnswer
from segearth.rl.rewards.settings import DEFAULT_REWARDS, RewardSettings
from segearth.structures import Boxes, Regions, Target, connected_regions

COCO_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))

Instances: TypeAlias = tuple[Instance, ...]


def instances_to_segment(
    answer: ParsedAnswer, target: Target | None, settings: RewardSettings = DEFAULT_REWARDS
) -> Instances:
    """Returns the things whose mask decides :func:`mask_iou_reward`; none where the reward is known without a mask.

    A segmenter is by far the slowest part of a reward, so it is asked only where the answer matters.

    Raises:
        RewardError: The answer lists too many things.
    """
    if not isinstance(target, Regions) or not target.mask.any() or not _is_read(answer, settings):
        return ()
    return _instances(answer, settings)


def mask_iou_reward(
    answer: ParsedAnswer,
    target: Target | None,
    mask: np.ndarray | None,
    settings: RewardSettings = DEFAULT_REWARDS,
) -> float | None:
    """Returns the IoU of the mask that a segmenter makes of the answer.

    Where nothing of the kind is in the image, an empty list is worth 1 and a list of things 0, whatever the segmenter
    makes of them: it must be the answer that says so.

    Args:
        answer: In pixels of the image.
        target: Regions; for others the reward does not apply.
        mask: Boolean ``(H, W)`` of all things that the answer lists. Not looked at, and may be ``None``, where
            :func:`instances_to_segment` returns none.
        settings: ``mended_answers_count``, ``most_instances``.

    Returns:
        In [0, 1], or ``None``.

    Raises:
        RewardError: The answer lists too many things, or its mask is missing.
        ValueError: The mask has another size than the target.
    """
    if not isinstance(target, Regions):
        return None
    if not _is_read(answer, settings):
        return 0.0
    things = _instances(answer, settings)
    if not target.mask.any() or not things:
        return float(not target.mask.any() and not things)
    if mask is None:
        raise RewardError(f"the answer lists {len(things)} things but their mask is missing; ask the segmenter for it")
    return mask_iou(mask, target.mask)


def positional_reward(
    answer: ParsedAnswer,
    target: Target | None,
    size: tuple[int, int],
    settings: RewardSettings = DEFAULT_REWARDS,
) -> float | None:
    """Returns how near the centres of the answer's boxes lie to those of the targets, with or without overlap.

    A pair of boxes whose centres are ``d`` apart, in shares of the image's width and height, is worth ``exp(-d/σ)``
    (or ``exp(-(d/σ)²/2)``, or ``1 - d/σ`` down to 0). Boxes and targets are paired one to one with the highest sum,
    which is divided by the number of boxes or of targets, whichever is larger. A copy of a box is paired with nothing.

    The idea is that of RSGround-R1 (arXiv 2601.21634); the formula is a reconstruction, as none is public.

    Args:
        answer: In pixels of the image. Of a thing without a box the mean of its inner points counts.
        target: Boxes or regions, at least one; for others the reward does not apply.
        size: ``(H, W)`` of the image.
        settings: ``positional_shape``, ``positional_sigma``, ``most_instances``.

    Returns:
        In [0, 1], or ``None``.

    Raises:
        RewardError: The answer lists too many things.
    """
    targets = boxes_of_target(target)
    if targets is None or not len(targets):
        return None
    boxes = boxes_of_answer(answer, settings)
    if boxes is None or not len(boxes):
        return 0.0
    apart = centre_distance(boxes, targets, *size) / settings.positional_sigma
    if settings.positional_shape == "exp":
        near = np.exp(-apart)
    elif settings.positional_shape == "gaussian":
        near = np.exp(-(apart**2) / 2)
    else:
        near = np.maximum(1 - apart, 0)
    near[superfluous_copies(boxes, targets)] = 0  # else a copy would be paired with another target, and paid for it
    return matched_iou(near)


def detection_reward(
    answer: ParsedAnswer, target: Target | None, settings: RewardSettings = DEFAULT_REWARDS
) -> float | None:
    """Returns how well the answer's boxes fit the targets.

    ``"matched_iou"`` pairs them one to one and divides the sum of IoUs by the larger number, so that boxes left out and
    boxes too many both cost. ``"recall"`` is GeoVLM-R1's (arXiv 2509.25026): boxes too many cost nothing. ``"ap50"``
    and ``"ap"`` are COCO's average precision; an answer states no confidence, so the order in which boxes are written
    stands for it, and only there does order count.

    Args:
        answer: In pixels of the image; rotated boxes count as the upright ones around them.
        target: Boxes or regions; for others the reward does not apply.
        settings: ``detection_score``, ``match_iou``, ``most_instances``.

    Returns:
        In [0, 1], or ``None``; 1 where nothing is there and the answer says so, 0 where only one of the two is empty.

    Raises:
        RewardError: The answer lists too many things.
    """
    targets = boxes_of_target(target)
    if targets is None:
        return None
    boxes = boxes_of_answer(answer, settings)
    if boxes is None:
        return 0.0
    if not len(boxes) or not len(targets):
        return float(len(boxes) == len(targets))
    if settings.detection_score in ("matched_iou", "recall"):
        scores = match_boxes(boxes, targets, settings.match_iou)
        return scores.matched_iou if settings.detection_score == "matched_iou" else scores.recall
    iou = box_iou(boxes, targets)
    iou[superfluous_copies(boxes, targets)] = 0
    thresholds = (0.5,) if settings.detection_score == "ap50" else COCO_THRESHOLDS
    confidences = [0.0] * len(boxes)
    # There are targets, so that no average precision is missing.
    return float(np.mean([average_precision([iou], [confidences], each) or 0.0 for each in thresholds]))


def boxes_of_answer(answer: ParsedAnswer, settings: RewardSettings = DEFAULT_REWARDS) -> np.ndarray | None:
    """Returns one upright box for each thing that an answer lists.

    Returns:
        Float64 ``(n, 4)``; ``None`` where the list could not be read. A thing with points alone is a box without area
        at the mean of the inner ones: it says where, not how large. Without an inner point its place is unknown (NaN).

    Raises:
        RewardError: The answer lists too many things.
    """
    if answer.instances is None:
        return None
    rows = [_box_of(instance) for instance in _instances(answer, settings)]
    return as_boxes(np.stack(rows)) if rows else np.zeros((0, 4))


def boxes_of_target(target: Target | None) -> np.ndarray | None:
    """Returns the upright boxes of a target, ``(m, 4)``; ``None`` for targets of other kinds.

    Regions whose single things are not known count as the connected parts of their mask.
    """
    if isinstance(target, Boxes):
        return upright(target.values)
    if not isinstance(target, Regions):
        return None
    if target.boxes is not None:
        return upright(target.boxes)
    regions = connected_regions(target.mask) if target.regions is None else target.regions
    return upright([region.box for region in regions])


def _box_of(instance: Instance) -> np.ndarray:
    if instance.box is not None:
        return as_boxes(instance.box)[0]
    if instance.rotated_box is not None:
        return upright([instance.rotated_box])[0]
    labels = instance.point_labels or (1,) * len(instance.points)
    inner = [point for point, label in zip(instance.points, labels, strict=True) if label]
    return np.tile(np.mean(inner, axis=0), 2) if inner else np.full(4, np.nan)


def _is_read(answer: ParsedAnswer, settings: RewardSettings) -> bool:
    return answer.instances is not None and (answer.json_is_right or settings.mended_answers_count)


def _instances(answer: ParsedAnswer, settings: RewardSettings) -> Instances:
    things = answer.instances or ()
    if len(things) > settings.most_instances:
        raise RewardError(
            f"the answer lists {len(things)} things, more than {settings.most_instances}; raise most_instances if the "
            "targets are as many"
        )
    return things
