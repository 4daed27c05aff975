"""Controls: answers that need no understanding. What a model gains over the best of them is what it has understood.

``everything``          every pixel; high where targets fill the image.
``nothing``             no pixel; high where many targets are absent.
``mean_mask``           one mask for all images, fitted on the training split; high where targets share a place.
``shuffled_questions``  the model itself, asked questions of other images; high where it ignores the question.

Each control answers the same samples as the model and is scored by the same code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from segearth.data.base import SegmentationDataset
from segearth.errors import DatasetError
from segearth.evaluation.protocols import BatchPredictor, EvaluationProtocol, ask, scored_questions
from segearth.structures import Question, Sample
from segearth.utils.seeds import rng_for

logger = logging.getLogger(__name__)

Questions = Mapping[str, Question]  # by id

MEAN_MASK_SIZE = 128
MEAN_MASK_THRESHOLDS = np.arange(1, 20) / 20  # 0.05 … 0.95


class Control(Protocol):
    """One way to answer without understanding.

    Attributes:
        name: Row name in reports.
        rule: What it does, in words.
    """

    name: str
    rule: str

    def masks(
        self, predictor: BatchPredictor, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[np.ndarray]]:
        """Answers each question of each image with a boolean ``(H, W)`` mask; ``predictor`` holds the images."""


class ConstantMask:
    """Answers every question with the whole image, or with nothing."""

    def __init__(self, value: bool) -> None:
        self.value = value
        self.name = "everything" if value else "nothing"
        self.rule = "every pixel is predicted" if value else "no pixel is predicted"

    def masks(
        self, predictor: BatchPredictor, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[np.ndarray]]:
        """Returns the same constant mask for each question."""
        return [
            [np.full(sample.image.shape[:2], self.value)] * len(own)
            for sample, own in zip(samples, questions, strict=True)
        ]


class MeanMask:
    """Answers every question with one mask, stretched to the image.

    Attributes:
        mask: Boolean array of shape ``(128, 128)``.
        threshold: The share of training targets above which a cell belongs to the mask.
    """

    name = "mean_mask"

    def __init__(self, mask: np.ndarray, threshold: float) -> None:
        self.mask, self.threshold = mask, threshold
        self.rule = (
            f"the mean of the training targets in a {MEAN_MASK_SIZE}x{MEAN_MASK_SIZE} frame, cut at {threshold:.2f} "
            "(the value with the highest gIoU on the training split), stretched to each image"
        )

    @classmethod
    def fit(cls, dataset: SegmentationDataset, protocol: EvaluationProtocol, progress: bool = True) -> MeanMask:
        """Finds the best single mask of a training split in one pass.

        gIoU of the candidates is computed in the normalised frame, where a target is the covered share of each cell (to
        1/255), so small targets keep their area. Memory: 16 KiB a question.

        Args:
            dataset: The training split.
            protocol: Decides which questions count.
            progress: Whether to show a progress bar.

        Raises:
            DatasetError: No training question has a mask.
        """
        targets = [
            _covered_shares(question.mask)
            for sample in tqdm(dataset, "mean mask", total=len(dataset), disable=not progress)
            for question in scored_questions(sample, protocol).values()
            if question.mask is not None
        ]
        if not targets:
            raise DatasetError(f"{dataset.name}, split {dataset.split}: no question has a mask to take the mean of")
        return cls(*_best_cut(np.stack(targets)))

    def masks(
        self, predictor: BatchPredictor, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[np.ndarray]]:
        """Returns the one mask at each image's size (nearest neighbour) for each question."""
        return [
            [self._stretched(*sample.image.shape[:2])] * len(own)
            for sample, own in zip(samples, questions, strict=True)
        ]

    def _stretched(self, height: int, width: int) -> np.ndarray:
        rows = np.arange(height) * MEAN_MASK_SIZE // height
        columns = np.arange(width) * MEAN_MASK_SIZE // width
        return self.mask[np.ix_(rows, columns)]


class ShuffledQuestions:
    """Asks the model, of each image, questions that belong to other images.

    Attributes:
        asked: The question asked in place of each, by question id.
    """

    name = "shuffled_questions"
    rule = "the model is asked questions of other images of the split, of another wording where there is one"

    def __init__(self, asked: Mapping[str, Question]) -> None:
        self.asked = asked

    @classmethod
    def draw(cls, samples: Iterable[Sample], protocol: EvaluationProtocol, seed: int = 0) -> ShuffledQuestions:
        """Deals the scored questions of a split out anew; the same for any number of processes.

        Args:
            samples: Every image that will be evaluated, on all processes together.
            protocol: Decides which questions count.
            seed: Decides the deal.

        Raises:
            DatasetError: All questions belong to one image.
        """
        ids: list[str] = []
        images: list[str] = []
        questions: list[Question] = []
        for sample in samples:
            for question_id, question in scored_questions(sample, protocol).items():
                ids.append(question_id)
                images.append(sample.image_id)
                questions.append(Question(text=question.text, task=question.task))  # the mask is not kept in memory
        order = derange(images, [question.text for question in questions], seed)
        return cls({question_id: questions[i] for question_id, i in zip(ids, order, strict=True)})

    def masks(
        self, predictor: BatchPredictor, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[np.ndarray]]:
        """Returns the model's masks for the questions dealt to each image."""
        asked = [[self.asked[question_id] for question_id in own] for own in questions]
        answers = ask(predictor, asked)
        return [[answer.mask for answer in own] for own in answers]


def build_controls(
    dataset: SegmentationDataset,
    train_dataset: SegmentationDataset | None,
    protocol: EvaluationProtocol,
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: bool = True,
) -> list[Control]:
    """Makes every control that the data allow; the log says which could not be made and why.

    Args:
        dataset: The split to evaluate.
        train_dataset: The training split, for ``mean_mask``; ``None`` leaves that control out.
        protocol: Decides which questions count.
        seed: Decides the shuffle.
        limit: How many images of ``dataset`` are evaluated; ``None``: all.
        progress: Whether to show progress bars.
    """
    controls: list[Control] = [ConstantMask(True), ConstantMask(False)]
    if train_dataset is None:
        logger.warning("control mean_mask left out: it needs the training split")
    else:
        controls.append(MeanMask.fit(train_dataset, protocol, progress))
    count = len(dataset) if limit is None else min(limit, len(dataset))
    samples = (dataset[i] for i in tqdm(range(count), "questions", disable=not progress))
    try:
        controls.append(ShuffledQuestions.draw(samples, protocol, seed))
    except DatasetError as error:
        logger.warning("control shuffled_questions left out: %s", error)
    return controls


def derange(groups: Sequence[str], texts: Sequence[str], seed: int = 0) -> list[int]:
    """Deals items out so that each place gets an item of another group, and of another text where possible.

    Args:
        groups: The group (image) of each item.
        texts: The text of each item.
        seed: Decides the deal.

    Returns:
        For each place the index of the item dealt to it: a permutation, unless one group holds more than half of all
        items, in which case none exists and items of the smaller groups are dealt more than once.

    Raises:
        DatasetError: All items are of one group.

    Example:
        >>> derange(["a", "b"], ["roofs", "roads"])
        [1, 0]
    """
    if len(set(groups)) < 2:
        raise DatasetError("questions of at least two images are needed to exchange them")
    rng = rng_for(seed)
    members: dict[str, list[int]] = {}
    for index in rng.permutation(len(groups)):
        members.setdefault(groups[index], []).append(int(index))
    largest = max(map(len, members.values()))
    if 2 * largest > len(groups):
        return [_draw_other(place, groups, texts, rng) for place in range(len(groups))]
    # With the groups laid end to end, a turn by the largest group's size leaves every group (and, as no group is more
    # than half, enters none again).
    row = [index for group in members.values() for index in group]
    dealt = dict(zip(row, row[largest:] + row[:largest], strict=True))
    _avoid_equal_texts(dealt, groups, texts, rng)
    return [dealt[place] for place in range(len(groups))]


def _avoid_equal_texts(
    dealt: dict[int, int], groups: Sequence[str], texts: Sequence[str], rng: np.random.Generator
) -> None:
    """Swaps items in place until no place has its own text, or no swap helps."""

    def fits(place: int, item: int) -> bool:
        return groups[place] != groups[item] and texts[place] != texts[item]

    for place in list(dealt):
        if fits(place, dealt[place]):
            continue
        for other in rng.permutation(len(groups)).tolist():
            if fits(place, dealt[other]) and fits(other, dealt[place]):
                dealt[place], dealt[other] = dealt[other], dealt[place]
                break


def _draw_other(place: int, groups: Sequence[str], texts: Sequence[str], rng: np.random.Generator) -> int:
    others = [i for i, group in enumerate(groups) if group != groups[place]]
    reworded = [i for i in others if texts[i] != texts[place]]
    return int(rng.choice(reworded or others))


def _covered_shares(mask: np.ndarray) -> np.ndarray:
    """Returns ``uint8`` ``(128, 128)``: the share of each cell that a boolean ``(H, W)`` mask covers, times 255."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((MEAN_MASK_SIZE, MEAN_MASK_SIZE), Image.Resampling.BOX))


def _best_cut(targets: np.ndarray) -> tuple[np.ndarray, float]:
    """Cuts the mean of ``(N, 128, 128)`` covered shares (``uint8``) where gIoU on those targets is highest."""
    mean = targets.mean(axis=0, dtype=np.float64) / 255
    candidates = mean[None] >= MEAN_MASK_THRESHOLDS[:, None, None]  # (T, 128, 128)
    flat = candidates.reshape(len(candidates), -1).T.astype(np.float32)  # (cells, T)
    total = np.zeros(len(candidates))
    for start in range(0, len(targets), 256):  # bounded memory: one block of targets as float at a time
        block = targets[start : start + 256].reshape(-1, flat.shape[0]).astype(np.float32) / 255
        intersection = block @ flat
        union = block.sum(axis=1, keepdims=True) + flat.sum(axis=0) - intersection
        total += np.where(union > 0, intersection / np.maximum(union, 1e-9), 1.0).sum(axis=0)
    best = int(total.argmax())
    return candidates[best], float(MEAN_MASK_THRESHOLDS[best])
