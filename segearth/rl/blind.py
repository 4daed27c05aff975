"""What a policy must beat to have looked: the best box without looking, and itself with the wrong images.

A policy soon learns where things lie on average, and its reward rises for it. Only what it gains over both is seeing.
It also soon learns how large things are on average; that is told by stretching the boxes of the policy before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from segearth.errors import NothingToFitError
from segearth.metrics.boxes import as_boxes, box_iou
from segearth.metrics.matching import matched_iou
from segearth.prompting.prompter import Prompter
from segearth.rl.rewards.places import boxes_of_answer, boxes_of_target
from segearth.rl.rewards.settings import RewardSettings
from segearth.structures import Sample

GRID = 16  # the blind box is first looked for with its sides at multiples of a sixteenth
ROUNDS = 4  # and then each side is moved, by half of that, a quarter, …
MOST_BOXES = 100  # of an answer that are looked at
ENOUGH = 256  # targets that the first search is held against
FACTORS = np.arange(10, 41) / 20  # by which boxes are stretched: 0.5, 0.55, … 2


@dataclass(frozen=True, slots=True)
class Sight:
    """Mean IoU of boxes, each of a policy's answers against its target.

    Attributes:
        policy: Of the policy.
        shuffled: Of the policy when each question is asked about another image.
        blind: Of the one box that does best on the training split.
        stretched: Of the policy's boxes, stretched about their centres by the one factor that does best on the training
            split. What a later stage gains over this is more than knowing how large things are.
        factor: That factor.
        readable: Share of the answers whose boxes could be read.
        questions: How many were asked.
    """

    policy: float
    shuffled: float
    blind: float
    stretched: float
    factor: float
    readable: float
    questions: int

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def best_blind_box(targets: Sequence[Any]) -> tuple[np.ndarray, float]:
    """Finds the one box that answers every question best, in shares of the image's sides.

    Args:
        targets: Boxes of each question, ``(n, 4)``, as shares of width and height, from 0 to 1.

    Returns:
        The box ``(4,)`` and its mean IoU; with several targets a question's IoU is divided by their number.

    Raises:
        NothingToFitError: There is no target.
    """
    known = [as_boxes(each) for each in targets if len(each)]
    if not known:
        raise NothingToFitError("no question has a box to fit one to")
    together = np.concatenate(known)
    weights = np.concatenate([np.full(len(each), 1 / len(each) / len(known)) for each in known])
    owner = np.concatenate([np.full(len(each), number) for number, each in enumerate(known)])

    def score(boxes: np.ndarray) -> np.ndarray:
        iou = box_iou(boxes, together) * weights
        best = np.zeros((len(boxes), len(known)))
        for column, number in enumerate(owner):  # one box is paired with one target, the one that it fits best
            np.maximum(best[:, number], iou[:, column], out=best[:, number])
        return best.sum(axis=1)

    steps = np.arange(GRID + 1) / GRID
    x0, y0, x1, y1 = (axis.ravel() for axis in np.meshgrid(steps, steps, steps, steps, indexing="ij"))
    boxes = np.stack([x0, y0, x1, y1], axis=1)[(x0 < x1) & (y0 < y1)]
    some = np.random.default_rng(0).permutation(len(together))[:ENOUGH]
    rough = (box_iou(boxes, together[some]) * weights[some]).sum(axis=1)
    best = boxes[int(rough.argmax())]
    value = float(score(best[None])[0])
    for halving in range(1, ROUNDS + 1):
        step = 1 / GRID / 2**halving
        moves = np.stack(np.meshgrid(*[[-step, 0, step]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
        tried = np.clip(best + moves, 0, 1)
        scores = score(tried)
        if scores.max() > value:
            best, value = tried[int(scores.argmax())], float(scores.max())
    return best, value


def measure_sight(prompter: Prompter, samples: Sequence[Sample], fitted_on: Sequence[Sample]) -> Sight:
    """Asks a policy every question of some images, about its own image and about another one, and scores its boxes.

    Args:
        prompter: The policy.
        samples: Held-out images, at least two.
        fitted_on: Images of the training split, to which the blind box and the factor are fitted.

    Raises:
        NothingToFitError: No question has boxes, or all are about one image.
    """
    asked = _asked(samples)
    numbers = [number for number, _, _ in asked]
    if len(set(numbers)) < 2:
        raise NothingToFitError("all questions are about one image; give at least two images with boxes")
    texts, wanted = [text for _, text, _ in asked], _wanted(asked, samples)
    learned = _asked(fitted_on)
    learned_from = _wanted(learned, fitted_on)
    blind, _ = best_blind_box(learned_from)
    own, readable = _pointed_at(prompter, [samples[number].image for number in numbers], texts)
    others = [samples[_another(numbers, place)].image for place in range(len(numbers))]
    shuffled, _ = _pointed_at(prompter, others, texts)
    images, questions = [fitted_on[number].image for number, _, _ in learned], [text for _, text, _ in learned]
    fitted, _ = _pointed_at(prompter, images, questions)
    factor = float(max(FACTORS, key=lambda each: _mean_iou(fitted, learned_from, each)))
    return Sight(
        policy=_mean_iou(own, wanted), shuffled=_mean_iou(shuffled, wanted),
        blind=_mean_iou([blind[None]] * len(wanted), wanted), stretched=_mean_iou(own, wanted, factor), factor=factor,
        readable=readable, questions=len(asked),
    )  # fmt: skip


def _asked(samples: Sequence[Sample]) -> list[tuple[int, str, np.ndarray]]:
    """Number of the image, question and boxes of every question that has boxes."""
    found = []
    for number, sample in enumerate(samples):
        for question in sample.questions:
            boxes = boxes_of_target(question.target)
            if boxes is not None and len(boxes):
                found.append((number, question.text, boxes))
    return found


def _another(numbers: Sequence[int], place: int) -> int:
    """The image of the next question that is about another image than this one; after the last comes the first."""
    turn = (numbers[(place + step) % len(numbers)] for step in range(len(numbers)))
    return next(number for number in turn if number != numbers[place])


def _wanted(asked: Sequence[tuple[int, str, np.ndarray]], samples: Sequence[Sample]) -> list[np.ndarray]:
    return [_shares(boxes, samples[number].image) for number, _, boxes in asked]


def _shares(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return boxes / [width, height, width, height]


def _pointed_at(
    prompter: Prompter, images: Sequence[np.ndarray], texts: Sequence[str]
) -> tuple[list[np.ndarray], float]:
    """Boxes of each answer in shares of the sides, none where there are none, and the share of readable answers."""
    settings = RewardSettings(most_instances=MOST_BOXES)
    found, read = [], 0
    for answer, image in zip(prompter.ask(images, texts), images, strict=True):
        read += answer.instances is not None
        cut = replace(answer, instances=answer.instances and answer.instances[:MOST_BOXES])
        boxes = boxes_of_answer(cut, settings)
        found.append(np.zeros((0, 4)) if boxes is None else _shares(boxes, image))
    return found, read / len(images)


def _mean_iou(given: Sequence[np.ndarray], wanted: Sequence[np.ndarray], factor: float = 1.0) -> float:
    """Mean IoU of the answers, whose boxes are first stretched about their centres and cut at the image's borders."""
    return float(np.mean([
        matched_iou(np.nan_to_num(box_iou(_stretched(boxes, factor), targets))) if len(boxes) else 0.0
        for boxes, targets in zip(given, wanted, strict=True)
    ]))  # fmt: skip


def _stretched(boxes: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1:
        return boxes
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.clip(np.concatenate([centres - factor * halves, centres + factor * halves], axis=1), 0, 1)
