"""Calibrates a model: from which presence on it answers with a mask, where it is cut, what IoU its score stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from segearth.errors import DatasetError
from segearth.evaluation.calibration import calibration_error
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.records import SampleRecord
from segearth.evaluation.scorers.segmentation import SegmentationScorer
from segearth.inference.deciding import logit, score_of, threshold_of
from segearth.inference.predictor import Predictor

if TYPE_CHECKING:
    from segearth.data.base import SegmentationDataset
    from segearth.models.segearth import SegEarth

LAST_THRESHOLD = 0.99  # the highest threshold of presence
LEAST_ANSWERS = 20  # with fewer no curve is fitted
# Where mask logits are too large or too small on the whole, masks are cut too tightly or too widely.
MASK_SLOPES, MASK_OFFSETS = (1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3), (0.5, 0.25, 0.0, -0.25, -0.5, -0.75, -1.0, -1.25)
# A fit starts from the curve that leaves a score as it is, and is pulled towards it by a small penalty.
START, RIDGE = np.array([1.0, 0.0]), 1e-3


@dataclass(frozen=True)
class MaskCurve:
    """A curve for mask logits, and what it does to the mean IoU of what is there.

    Attributes:
        curve: Slope and offset.
        iou: Before, with the model's own curve, and with this one.
    """

    curve: tuple[float, float]
    iou: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """What a model's confidence was set to, and what that changed on the split it was chosen on.

    Attributes:
        presence_threshold: From which presence on a question is answered with a mask.
        masks: How mask logits are curved, see :func:`segearth.inference.deciding.threshold_of`; ``None`` where masks
            are cut at 0 in any case, since presence does not decide.
        score_curve: Slope and offset, see :func:`segearth.inference.deciding.score_of`.
        giou: gIoU before and after, with the masks of the new curve.
        score_error: Calibration error of the score before and after, of these masks where presence is above the new
            threshold.
    """

    presence_threshold: float
    masks: MaskCurve | None
    score_curve: tuple[float, float]
    giou: tuple[float, float]
    score_error: tuple[float, float]


def calibrate(model: SegEarth, dataset: SegmentationDataset, batch_size: int = 1, progress: bool = True) -> Calibration:
    """Chooses presence threshold, mask curve and score curve on a split and sets them in the model's configuration.

    Take a split that the model was not trained on and that is not the one it will be reported on.

    Args:
        model: Its ``config`` is changed.
        dataset: Questions with masks, present and absent ones.
        batch_size: Images at a time.
        progress: Whether to show a bar.

    Raises:
        DatasetError: No question has a mask, or fewer than 20 answers are not empty.
    """
    config = model.config
    before = config.presence_threshold, config.score_curve, config.mask_curve
    config.presence_threshold, config.score_curve = 0.0, [1.0, 0.0]  # every question is answered, with its raw score
    predictor = Predictor(model)
    try:
        masks = best_mask_curve(predictor, dataset, progress) if config.presence_decides else None
        if masks is not None:
            config.mask_curve = list(masks.curve)
        result = evaluate(predictor, dataset, controls=False, examples=0, batch_size=batch_size, progress=progress)
    finally:
        config.presence_threshold, config.score_curve, config.mask_curve = before
    found = result.by_scorer.get(SegmentationScorer.name)
    if found is None:
        raise DatasetError(
            f"no question of {dataset.name} {dataset.split} has a mask to compare with, and confidence is that of "
            f"masks; calibrate on questions of the tasks {', '.join(SegmentationScorer.tasks)}"
        )
    records: list[SampleRecord] = found.records
    threshold = best_presence_threshold(records)
    shown = [r for r in records if not r.predicted_empty and (r.presence or 0.0) >= threshold]
    if len(shown) < LEAST_ANSWERS:
        raise DatasetError(f"only {len(shown)} answers to fit a curve to; take more images, {LEAST_ANSWERS} are needed")
    raw, reached = [r.score or 0.0 for r in shown], [r.iou for r in shown]
    slope, offset = fit_curve(raw, reached)
    config.presence_threshold, config.score_curve = threshold, [slope, offset]
    if masks is not None:
        config.mask_curve = list(masks.curve)
    earlier, curved = ([score_of(score, *curve) for score in raw] for curve in (before[1], (slope, offset)))
    return Calibration(
        threshold,
        masks,
        (slope, offset),
        (giou_at(records, before[0]), giou_at(records, threshold)),
        (calibration_error(earlier, reached), calibration_error(curved, reached)),
    )


def best_mask_curve(predictor: Predictor, dataset: SegmentationDataset, progress: bool = True) -> MaskCurve:
    """Finds slope and offset, of a few, with which the masks of what is there reach the highest mean IoU.

    A loss on overlap, such as Dice, pushes logits away from 0 further than the pixels' probabilities warrant. Cut where
    the IoU to expect is highest, such masks are too small; a slope below 1 makes of their logits less certain ones.

    Args:
        predictor: Of a model whose presence decides.
        dataset: Questions with masks.
        progress: Whether to show a bar.

    Returns:
        The model's own curve where none is better, or no question is about something that is there.
    """
    own = predictor.facts.deciding
    curves = [own.mask_curve, *((slope, offset) for slope in MASK_SLOPES for offset in MASK_OFFSETS)]
    settings = [replace(own, mask_curve=curve) for curve in curves]
    reached: list[list[float]] = []
    for index in tqdm(range(len(dataset)), desc="mask curve", unit="image", disable=not progress):
        sample = dataset[index]
        asked = [question for question in sample.questions if question.mask is not None and question.mask.any()]
        if not asked:
            continue
        predictor.set_image(sample.image)
        texts, tasks = [question.text for question in asked], [question.task for question in asked]
        for question, answer in zip(asked, predictor.predict(texts, task=tasks, return_logits=True), strict=True):
            logits, target = torch.from_numpy(answer.logits), torch.from_numpy(question.mask)
            masks = torch.stack([logits > threshold_of(logits, each) for each in settings]).flatten(1)
            overlap = (masks & target.flatten()).sum(1)
            reached.append((overlap / (masks.sum(1) + target.sum() - overlap)).tolist())
    means = np.mean(reached, 0) if reached else np.zeros(len(curves))
    best = int(means.argmax())
    return MaskCurve(curves[best], (float(means[0]), float(means[best])))


def giou_at(records: Sequence[SampleRecord], threshold: float) -> float:
    """Returns the gIoU that a presence threshold would give.

    Args:
        records: Of answers that were made without a threshold, so that none is empty on account of presence.
        threshold: Answers with a lower presence count as empty.
    """
    return float(np.mean([r.iou if (r.presence or 0.0) >= threshold else float(r.target_empty) for r in records]))


def best_presence_threshold(records: Sequence[SampleRecord]) -> float:
    """Returns the presence from which on an answer makes the expected gIoU higher than silence does.

    Let ``p`` be the probability that the thing is there, and ``m`` the mean IoU of masks of present things. A mask is
    then worth ``p · m``, and an empty answer ``1 - p``. So a mask is worth more from ``p = 1 / (1 + m)`` on.

    How probable the thing is at a given presence is read off a curve that is fitted to all records. Trying thresholds
    and counting which does best would be decided by chance: of a few hundred questions only a handful are near any one
    threshold.

    Args:
        records: Answers that were given whatever presence said.

    Returns:
        0, 0.01 … or 0.99. For a model whose presence says nothing it is 0 where most things are there, else 0.99.
    """
    there = np.array([not r.target_empty for r in records])
    if not there.any():
        return LAST_THRESHOLD
    worth = float(np.mean([r.iou for r in records if not r.target_empty]))
    slope, offset = fit_curve([r.presence or 0.0 for r in records], there.astype(float).tolist())
    wanted = 1 / (1 + worth)
    if slope == 0:
        return 0.0 if offset >= logit(wanted) else LAST_THRESHOLD
    return min(round(score_of(wanted, 1 / slope, -offset / slope), 2), LAST_THRESHOLD)  # the inverse of the curve


def fit_curve(raw: Sequence[float], reached: Sequence[float]) -> tuple[float, float]:
    """Fits the curve of :func:`segearth.inference.deciding.score_of` by cross-entropy against the IoUs reached.

    Args:
        raw: Mean probabilities in [0, 1].
        reached: IoUs in [0, 1].

    Returns:
        Slope, at least 0, and offset.
    """
    x = np.array([logit(value) for value in raw])
    features, target = np.stack([x, np.ones_like(x)], 1), np.asarray(reached, float)

    def loss(weights: np.ndarray) -> float:
        # Cross-entropy, and the penalty, without which the slope would grow without end where all scores are alike.
        z = features @ weights
        return float((np.logaddexp(0, z) - target * z).sum() + RIDGE / 2 * ((weights - START) ** 2).sum())

    weights = START
    for _ in range(100):  # Newton's method; a step that would raise the loss is halved until it does not
        expected = 1 / (1 + np.exp(-np.clip(features @ weights, -60, 60)))
        slope = features.T @ (expected - target) + RIDGE * (weights - START)
        curvature = (features * (expected * (1 - expected))[:, None]).T @ features + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    if weights[0] < 0:  # scores that fall as masks get better are of no use: every answer gets the mean IoU
        mean = float(np.clip(target.mean(), 1e-4, 1 - 1e-4))
        return 0.0, logit(mean)
    return float(weights[0]), float(weights[1])
