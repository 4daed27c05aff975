"""Controls: answers that need no understanding, such as the same mask for every question.

What a model scores beyond the best of them comes from image and question together.

``everything``          every pixel; high where targets fill the image.
``nothing``             no pixel; high where many targets are absent.
``mean_mask``           one mask for all images, fitted on the training split; high where targets share a place.
``shuffled_questions``  the model itself, asked questions of other images; high where it ignores the question.

These are for answers that are masks. Boxes, texts and choices have controls of their own beside their scorers, in
:mod:`segearth.evaluation.scorers`; the shuffled questions suit all. Each control answers the same questions as the
model and is scored by the same code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from segearth.data.base import SegmentationDataset
from segearth.errors import DatasetError, ImageError, NothingToFitError
from segearth.evaluation.dealing import derange
from segearth.evaluation.protocols import EvaluationProtocol, ask, scored_questions
from segearth.evaluation.scorer import Scorer
from segearth.segmenter import Segmenter
from segearth.structures import Question, Sample, Segmentation
from segearth.utils.processes import gather_objects, is_joined
from segearth.utils.seeds import rng_for
from segearth.utils.text import first_line

T = TypeVar("T")
logger = logging.getLogger(__name__)

Questions = Mapping[str, Question]  # by id

# The most training images that a control is fitted on. The mean of so many targets is off by 0.01 at most in a cell
# (0.5 / sqrt(2048), one standard error), which is little beside the 0.05 between two cuts of the mean mask.
MOST_FITTED = 2048
MEAN_MASK_SIZE = 128
MEAN_MASK_THRESHOLDS = np.arange(1, 20) / 20  # 0.05 … 0.95


class Control(Protocol):
    """Answers questions by a rule that needs no understanding.

    Attributes:
        name: Its row in reports.
        rule: The rule, in words.
    """

    name: str
    rule: str

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[Segmentation]]:
        """Answers each question of each image; the images are set in ``segmenter``."""


@dataclass(frozen=True)
class SplitReading:
    """What to read of a split, and which process reads which images of it.

    Attributes:
        dataset: The split.
        protocol: Decides which questions count.
        limit: Only the first so many images; ``None``: all.
        progress: Whether to show a progress bar.
        rank: This process, which reads its share of the images.
        world_size: Number of processes; all read together and get the whole.
        drawn: Only so many of these images, always the same ones, drawn from all over the split; ``None``: all.
    """

    dataset: SegmentationDataset
    protocol: EvaluationProtocol
    limit: int | None = None
    progress: bool = False
    rank: int = 0
    world_size: int = 1
    drawn: int | None = None

    def images(self) -> list[int]:
        """Returns the numbers of the images to read, in order."""
        count = len(self.dataset) if self.limit is None else min(self.limit, len(self.dataset))
        if self.drawn is None or self.drawn >= count:
            return list(range(count))
        return sorted(rng_for(0).permutation(count)[: self.drawn].tolist())


class ConstantMask:
    """Answers every question with the whole image, or with nothing."""

    def __init__(self, value: bool) -> None:
        self.value = value
        self.name = "everything" if value else "nothing"
        self.rule = "every pixel is predicted" if value else "no pixel is predicted"

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[Segmentation]]:
        """Returns the same constant mask for each question."""
        return [
            _same_answer(np.full(sample.image.shape[:2], self.value), own)
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
    def fit(cls, reading: SplitReading) -> MeanMask:
        """Finds the best single mask of a training split in one pass.

        The candidates are the mean of the targets, cut at several values; their gIoU is computed in a frame of 128x128
        cells. There a target is the share of each cell that it covers (in steps of 1/255), so that small targets keep
        their area. Memory: 16 KiB a question.

        Args:
            reading: The training split. Processes that read it together find the same mask.

        Raises:
            NothingToFitError: No training question has a mask.
        """

        def covered(sample: Sample) -> list[np.ndarray]:
            masks = [question.mask for question in scored_questions(sample, reading.protocol).values()]
            return [_covered_shares(mask) for mask in masks if mask is not None]

        of_images = of_each_image(reading, covered, "mean mask")
        targets = [target for own in of_images for target in own]
        if not targets:
            where = f"{reading.dataset.name}, split {reading.dataset.split}"
            raise NothingToFitError(f"{where}: no question has a mask to take the mean of")
        return cls(*_best_cut(np.stack(targets)))

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[Segmentation]]:
        """Returns the one mask at each image's size (nearest neighbour) for each question."""
        return [
            _same_answer(self._stretched(*sample.image.shape[:2]), own)
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
        in_words: Whether answers in words are scored.
    """

    name = "shuffled_questions"
    rule = "the model is asked questions of other images of the split, of another wording where there is one"

    def __init__(self, asked: Mapping[str, Question], in_words: bool = False) -> None:
        self.asked, self.in_words = asked, in_words

    @classmethod
    def deal(cls, asked: Sequence[AskedQuestion], seed: int = 0, in_words: bool = False) -> ShuffledQuestions:
        """Deals questions out anew.

        Args:
            asked: Those of all images.
            seed: Decides the deal.
            in_words: Whether answers in words are scored.

        Raises:
            DatasetError: All questions belong to one image.
        """
        dealt: dict[str, Question] = {}
        # Questions of pairs are dealt out by themselves: what has changed cannot be asked of a single image.
        for of_pairs in (False, True):
            own = [a for a in asked if a.of_pair == of_pairs]
            if own:
                order = derange([a.image_id for a in own], [a.question.text for a in own], seed)
                dealt |= {one.id: own[other].question for one, other in zip(own, order, strict=True)}
        return cls({a.id: dealt[a.id] for a in asked}, in_words)

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Questions]
    ) -> list[list[Segmentation]]:
        """Returns the model's answers to the questions dealt to each image.

        ``frame_mask`` is taken out of them, so that the finished masks are compared, at the images' own sizes.
        """
        asked = [
            [_box_times(self.asked[question_id], *sample.image.shape[1::-1]) for question_id in own]
            for sample, own in zip(samples, questions, strict=True)
        ]
        answers = ask(segmenter, asked, self.in_words)
        return [[replace(answer, frame_mask=None) for answer in own] for own in answers]


@dataclass(frozen=True)
class AskedQuestion:
    """A question without its target.

    Attributes:
        id: Its id.
        image_id: The image it is asked of.
        question: Its wording and task alone; a box in shares of the image's sides, so that it fits any image.
        of_pair: Whether the image is one of a pair.
    """

    id: str
    image_id: str
    question: Question
    of_pair: bool = False


def read_questions(
    reading: SplitReading, scorer_of: Callable[[Question], Scorer[Any]] | None = None
) -> list[tuple[str, AskedQuestion]]:
    """Reads the scored questions of a split, in order, each with the name of its scorer.

    Args:
        reading: The split.
        scorer_of: Finds a question's scorer; left out, the names are empty.
    """

    def without_targets(sample: Sample) -> list[tuple[str, AskedQuestion]]:
        height, width = sample.image.shape[:2]
        found = []
        for question_id, asked in scored_questions(sample, reading.protocol).items():
            bare = _box_times(Question(text=asked.text, task=asked.task, box=asked.box), 1 / width, 1 / height)
            name = scorer_of(asked).name if scorer_of else ""
            found.append((name, AskedQuestion(question_id, sample.image_id, bare, sample.before is not None)))
        return found

    return [asked for own in of_each_image(reading, without_targets, "questions") for asked in own]


def build_controls(
    scorers: Mapping[str, Scorer[Any]],
    scorer_of: Callable[[Question], Scorer[Any]],
    evaluated: SplitReading,
    train_dataset: SegmentationDataset | None,
    *,
    seed: int = 0,
) -> dict[str, list[Control]]:
    """Makes every control that the data allow; the log says which could not be made and why.

    Args:
        scorers: All there are, by name.
        scorer_of: Finds a question's scorer.
        evaluated: The split to evaluate.
        train_dataset: The training split, for the controls that are fitted; ``None`` leaves those out.
        seed: Decides the shuffle.

    Returns:
        The controls of each scorer that the split has questions for, by its name.
    """
    asked: dict[str, list[AskedQuestion]] = {}
    for name, question in read_questions(evaluated, scorer_of):
        asked.setdefault(name, []).append(question)
    return {
        name: _controls_of(scorer, asked[name], evaluated, train_dataset, seed)
        for name, scorer in scorers.items()
        if name in asked
    }


def _controls_of(
    scorer: Scorer[Any],
    asked: Sequence[AskedQuestion],
    evaluated: SplitReading,
    train_dataset: SegmentationDataset | None,
    seed: int,
) -> list[Control]:
    controls = scorer.constant_controls()
    if scorer.fitted_control and train_dataset is None:
        logger.warning("control %s left out: it needs the training split", scorer.fitted_control)
    elif train_dataset is not None:
        # Any other error must stop the evaluation. Only one process meets a broken file; if it went on without this
        # control, it would send its next results to processes that wait for the results of this one.
        fitted_on = replace(evaluated, dataset=train_dataset, limit=None, drawn=MOST_FITTED)
        try:
            if (fitted := scorer.fit_control(fitted_on)) is not None:
                if len(train_dataset) > MOST_FITTED:
                    fitted.rule += f" (fitted on {MOST_FITTED} of the {len(train_dataset)} training images)"
                controls.append(fitted)
        except NothingToFitError as error:
            logger.warning("control %s left out: %s", scorer.fitted_control, error)
    try:
        controls.append(ShuffledQuestions.deal(asked, seed, scorer.needs_words))
    except DatasetError as error:
        logger.warning("control shuffled_questions left out: %s", error)
    return controls


def of_each_image(reading: SplitReading, take: Callable[[Sample], T], label: str) -> list[T]:
    """Applies a function to each image of a split that can be read and returns the results, in order.

    Processes that have joined read a share of the images each, and all get the results of all; a process that has not
    joined others reads all images.

    Args:
        reading: The split.
        take: The function; of the images themselves only one is in memory at a time.
        label: Of the progress bar.
    """
    dataset, rank, world_size = reading.dataset, reading.rank, reading.world_size
    images = reading.images()
    if not is_joined(world_size):
        rank, world_size = 0, 1
    numbers = tqdm(images[rank::world_size], label, disable=not reading.progress)
    own = [None if (sample := read_or_none(dataset, i)) is None else (take(sample),) for i in numbers]
    parts = gather_objects(own, world_size)
    found = [parts[place % world_size][place // world_size] for place in range(len(images))]
    return [taken[0] for taken in found if taken is not None]


def read_or_none(dataset: SegmentationDataset, index: int, problems: list[str] | None = None) -> Sample | None:
    """Reads one image of a split; a picture that does not open is left out, so that one damaged file stops no run.

    Args:
        dataset: The split.
        index: Of the image.
        problems: Where what is wrong with the picture goes, in one line; left out, nobody is told.
    """
    try:
        return dataset[index]
    except ImageError as error:
        if problems is not None:
            problems.append(first_line(error))
        return None


def _box_times(question: Question, x: float, y: float) -> Question:
    """Returns a question whose box is stretched by two factors; one without a box as it is."""
    if question.box is None:
        return question
    x0, y0, x1, y1 = question.box
    return replace(question, box=(x0 * x, y0 * y, x1 * x, y1 * y))


def _same_answer(mask: np.ndarray, questions: Questions) -> list[Segmentation]:
    there = bool(mask.any())
    return [Segmentation(q.text, mask, float(there), there, float(there)) for q in questions.values()]


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
