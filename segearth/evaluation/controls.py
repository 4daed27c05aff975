"""Controls: answers that need no understanding. What a model gains over the best of them is what it has understood.

``everything``          every pixel; high where targets fill the image.
``nothing``             no pixel; high where many targets are absent.
``mean_mask``           one mask for all images, fitted on the training split; high where targets share a place.
``shuffled_questions``  the model itself, asked questions of other images; high where it ignores the question.

Each control answers the same samples as the model and is scored by the same code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from segearth.data.base import SegmentationDataset
from segearth.errors import DatasetError
from segearth.evaluation.protocols import EvaluationProtocol, ask, scored_questions
from segearth.segmenter import Segmenter
from segearth.structures import Question, Sample
from segearth.utils.processes import gather_objects, is_joined
from segearth.utils.seeds import rng_for

T = TypeVar("T")
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
        self, predictor: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[np.ndarray]]:
        """Answers each question of each image with a boolean ``(H, W)`` mask; ``predictor`` holds the images."""


class ConstantMask:
    """Answers every question with the whole image, or with nothing."""

    def __init__(self, value: bool) -> None:
        self.value = value
        self.name = "everything" if value else "nothing"
        self.rule = "every pixel is predicted" if value else "no pixel is predicted"

    def masks(
        self, predictor: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
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
    def fit(
        cls,
        dataset: SegmentationDataset,
        protocol: EvaluationProtocol,
        progress: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> MeanMask:
        """Finds the best single mask of a training split in one pass.

        gIoU of the candidates is computed in the normalised frame, where a target is the covered share of each cell (to
        1/255), so small targets keep their area. Memory: 16 KiB a question.

        Args:
            dataset: The training split.
            protocol: Decides which questions count.
            progress: Whether to show a progress bar.
            rank: This process, which reads its share of the split.
            world_size: Number of processes; all fit together and find the same mask.

        Raises:
            DatasetError: No training question has a mask.
        """

        def covered(sample: Sample) -> list[np.ndarray]:
            masks = [question.mask for question in scored_questions(sample, protocol).values()]
            return [_covered_shares(mask) for mask in masks if mask is not None]

        of_images = _of_each_image(dataset, len(dataset), covered, "mean mask" if progress else None, rank, world_size)
        targets = [target for own in of_images for target in own]
        if not targets:
            raise DatasetError(f"{dataset.name}, split {dataset.split}: no question has a mask to take the mean of")
        return cls(*_best_cut(np.stack(targets)))

    def masks(
        self, predictor: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
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
    def draw(
        cls,
        dataset: SegmentationDataset,
        protocol: EvaluationProtocol,
        seed: int = 0,
        limit: int | None = None,
        progress: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> ShuffledQuestions:
        """Deals the scored questions of a split out anew; the same for any number of processes.

        Args:
            dataset: The split to evaluate.
            protocol: Decides which questions count.
            seed: Decides the deal.
            limit: How many images of it are evaluated; ``None``: all.
            progress: Whether to show a progress bar.
            rank: This process, which reads its share of the images.
            world_size: Number of processes; all draw together and get the whole deal.

        Raises:
            DatasetError: All questions belong to one image.
        """

        def without_masks(sample: Sample) -> tuple[str, list[tuple[str, Question]]]:
            scored = scored_questions(sample, protocol).items()
            return sample.image_id, [(name, Question(text=asked.text, task=asked.task)) for name, asked in scored]

        count = len(dataset) if limit is None else min(limit, len(dataset))
        label = "questions" if progress else None
        of_images = _of_each_image(dataset, count, without_masks, label, rank, world_size)
        images = [image for image, own in of_images for _ in own]
        asked = [pair for _, own in of_images for pair in own]
        order = derange(images, [question.text for _, question in asked], seed)
        return cls({question_id: asked[i][1] for (question_id, _), i in zip(asked, order, strict=True)})

    def masks(
        self, predictor: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
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
    rank: int = 0,
    world_size: int = 1,
) -> list[Control]:
    """Makes every control that the data allow; the log says which could not be made and why.

    Args:
        dataset: The split to evaluate.
        train_dataset: The training split, for ``mean_mask``; ``None`` leaves that control out.
        protocol: Decides which questions count.
        seed: Decides the shuffle.
        limit: How many images of ``dataset`` are evaluated; ``None``: all.
        progress: Whether to show progress bars.
        rank: This process, which reads its share of both splits.
        world_size: Number of processes; all build together and get the same controls.
    """
    controls: list[Control] = [ConstantMask(True), ConstantMask(False)]
    if train_dataset is None:
        logger.warning("control mean_mask left out: it needs the training split")
    else:
        controls.append(MeanMask.fit(train_dataset, protocol, progress, rank, world_size))
    try:
        controls.append(ShuffledQuestions.draw(dataset, protocol, seed, limit, progress, rank, world_size))
    except DatasetError as error:
        logger.warning("control shuffled_questions left out: %s", error)
    return controls


def _of_each_image(
    dataset: SegmentationDataset,
    count: int,
    take: Callable[[Sample], T],
    label: str | None,
    rank: int,
    world_size: int,
) -> list[T]:
    """Takes something of each of the first ``count`` images, in order.

    Processes that have joined read a share each and get all of it; a process that has not reads all.
    """
    if not is_joined(world_size):
        rank, world_size = 0, 1
    own = [take(dataset[i]) for i in tqdm(range(rank, count, world_size), label, disable=label is None)]
    parts = gather_objects(own, world_size)
    return [parts[i % world_size][i // world_size] for i in range(count)]


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
