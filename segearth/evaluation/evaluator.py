"""Asks a predictor every question of a split and scores the answers; one process or many give the same records."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from PIL import Image
from tqdm import tqdm

from segearth.data.base import SegmentationDataset
from segearth.errors import ConfigError, DatasetError
from segearth.evaluation.batches import in_batches, one_ahead
from segearth.evaluation.controls import Control, build_controls
from segearth.evaluation.listening import PairRecord, needs_words, score_pairs, swapped_partner
from segearth.evaluation.protocols import (
    EvaluationProtocol,
    ask,
    get_protocol,
    scored_questions,
)
from segearth.evaluation.records import Metrics, SampleRecord, compute_metrics, merge_records
from segearth.metrics.bootstrap import bootstrap_interval
from segearth.metrics.masks import count_pixels, mask_iou
from segearth.segmenter import Segmenter, frame_size_of
from segearth.structures import Question, Sample, Segmentation
from segearth.utils.processes import gather_objects

logger = logging.getLogger(__name__)

EXAMPLE_SIZE = 384  # longest side of the pictures kept of the best and worst samples


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """A sample kept for the picture sheet, small enough to hold many.

    Attributes:
        record: Its numbers.
        image: ``uint8`` RGB of shape ``(h, w, 3)``, no side longer than 384.
        target: Boolean ``(h, w)``.
        prediction: Boolean ``(h, w)``.
    """

    record: SampleRecord
    image: np.ndarray
    target: np.ndarray
    prediction: np.ndarray


@dataclass(slots=True)
class Extremes:
    """The best and the worst samples seen so far, at most one of each an image; memory is bounded.

    A rightly empty answer is no candidate for the best (there is nothing to see). Among equal IoU, the larger union
    comes first, then the id, so the choice does not depend on the number of processes.

    Attributes:
        size: How many of each are kept.
        best: Highest IoU first.
        worst: Lowest IoU first.
    """

    size: int
    best: list[ScoredExample] = field(default_factory=list)
    worst: list[ScoredExample] = field(default_factory=list)

    def offer(self, sample: Sample, scored: list[tuple[SampleRecord, np.ndarray, np.ndarray]]) -> None:
        """Considers the scored questions of one image.

        Args:
            sample: The image.
            scored: Record, prediction ``(H, W)`` and target ``(H, W)`` of each question.
        """
        visible = [item for item in scored if item[0].union]
        if not visible or not self.size:
            return
        for kept, key in ((self.best, _best_first), (self.worst, _worst_first)):
            record, prediction, target = min(visible, key=lambda item: key(item[0]))
            if len(kept) < self.size or key(record) < key(kept[-1].record):
                kept.append(_example(record, sample.image, prediction, target))
                kept.sort(key=lambda example: key(example.record))
                del kept[self.size :]

    def merge(self, other: Extremes) -> None:
        """Takes in what another process kept."""
        self.best = sorted(self.best + other.best, key=lambda example: _best_first(example.record))[: self.size]
        self.worst = sorted(self.worst + other.worst, key=lambda example: _worst_first(example.record))[: self.size]


@dataclass
class EvaluationResult:
    """Everything a report is made from.

    Attributes:
        dataset: Name of the data set.
        split: Name of the split.
        protocol: How samples were chosen and compared.
        seed: Decided the shuffled questions; decides the bootstrap.
        records: One a sample, ordered by id.
        controls: The same samples answered by each control, by control name.
        control_rules: Each control in words.
        extremes: Best and worst samples for the picture sheet.
        seconds: Time inside the predictor, of the slowest process; loading, scoring and controls are left out.
        without_mask: Questions passed over because they have no ground truth.
        pairs: Questions that differ in one word, where the data set has such pairs.
    """

    dataset: str
    split: str
    protocol: EvaluationProtocol
    seed: int
    records: list[SampleRecord]
    controls: dict[str, list[SampleRecord]]
    control_rules: dict[str, str]
    extremes: Extremes
    seconds: float
    without_mask: int
    pairs: list[PairRecord] = field(default_factory=list)

    @cached_property
    def metrics(self) -> Metrics:
        """The model's numbers.

        Raises:
            DatasetError: No question was scored.
        """
        return compute_metrics(self.records)

    @cached_property
    def control_metrics(self) -> dict[str, Metrics]:
        """The numbers of each control."""
        return {name: compute_metrics(records) for name, records in self.controls.items()}

    @property
    def best_control(self) -> str | None:
        """The control with the highest gIoU; ``None`` if there are no controls."""
        return max(self.controls, key=lambda name: self.control_metrics[name].giou, default=None)

    @property
    def margin(self) -> float | None:
        """The model's gIoU less the best control's; ``None`` if there are no controls."""
        best = self.best_control
        return None if best is None else self.metrics.giou - self.control_metrics[best].giou

    @cached_property
    def giou_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the model's gIoU, images drawn."""
        return bootstrap_interval([r.iou for r in self.records], [r.image_id for r in self.records], seed=self.seed)

    @cached_property
    def margin_interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the margin, from the differences sample by sample; ``None`` without controls."""
        best = self.best_control
        if best is None:
            return None
        gains = [own.iou - other.iou for own, other in zip(self.records, self.controls[best], strict=True)]
        return bootstrap_interval(gains, [r.image_id for r in self.records], seed=self.seed)

    @property
    def images_per_second(self) -> float:
        """Images through the predictor a second, all processes together."""
        return self.metrics.images / self.seconds if self.seconds else float("inf")

    @property
    def questions_per_second(self) -> float:
        """Questions through the predictor a second, all processes together."""
        return len(self.records) / self.seconds if self.seconds else float("inf")


def evaluate(
    predictor: Segmenter,
    dataset: SegmentationDataset,
    *,
    protocol: str = "native",
    controls: bool = True,
    train_dataset: SegmentationDataset | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    limit: int | None = None,
    batch_size: int = 1,
    examples: int = 8,
    progress: bool = True,
) -> EvaluationResult:
    """Scores a segmenter on one split, through its public methods only.

    Rank ``r`` takes the images ``i`` with ``i % world_size == r``. Where ``torch.distributed`` has a group of that
    many, the parts are gathered and every rank returns the whole; elsewhere each rank returns its own part.

    Args:
        predictor: Any :class:`~segearth.segmenter.Segmenter`. Is given each image once, and asked all its questions at
            once (and once more for the control with shuffled questions, of the same features).
        protocol: A name in :data:`segearth.evaluation.protocols.PROTOCOLS`.
        controls: Whether to score the controls beside the model.
        train_dataset: The training split, for the control ``mean_mask``; ``None`` leaves that control out.
        seed: Decides the shuffled questions and the bootstrap.
        rank: This process.
        world_size: Number of processes.
        limit: Only the first so many images; ``None``: all.
        batch_size: Most images that the predictor is given at a time; these are of one frame size. It changes speed and
            memory; answers are the same but for rounding.
        examples: How many best and how many worst samples to keep as pictures.
        progress: Whether rank 0 shows progress bars.

    Raises:
        UnknownNameError: There is no such protocol.
        DatasetError: A sample id occurs twice, or a prediction and a target differ in size.
        ConfigError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"eval.batch_size is {batch_size}; at least one image must go through at a time")
    rules = get_protocol(protocol)
    progress = progress and rank == 0
    rows: list[Control] = []
    if controls:
        rows = build_controls(
            dataset, train_dataset, rules,
            seed=seed, limit=limit, progress=progress, rank=rank, world_size=world_size,
        )  # fmt: skip
    part = _Part.empty([control.name for control in rows], examples)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    _score_all(predictor, dataset, range(rank, count, world_size), batch_size, rules, rows, part, progress)
    parts = gather_objects(part, world_size)
    whole = _Part.join(parts)
    if whole.without_mask:
        logger.warning("%d questions without a mask were passed over", whole.without_mask)
    return EvaluationResult(
        dataset=dataset.name,
        split=dataset.split,
        protocol=rules,
        seed=seed,
        records=whole.records,
        controls=whole.controls,
        control_rules={control.name: control.rule for control in rows},
        extremes=whole.extremes,
        seconds=whole.seconds,
        without_mask=whole.without_mask,
        pairs=whole.pairs,
    )


@dataclass(slots=True)
class _Part:
    """What one process has scored."""

    records: list[SampleRecord]
    controls: dict[str, list[SampleRecord]]
    extremes: Extremes
    seconds: float = 0.0
    without_mask: int = 0
    pairs: list[PairRecord] = field(default_factory=list)

    @classmethod
    def empty(cls, controls: Iterable[str], examples: int) -> _Part:
        return cls([], {name: [] for name in controls}, Extremes(examples))

    @classmethod
    def join(cls, parts: list[_Part]) -> _Part:
        whole = cls.empty(parts[0].controls, parts[0].extremes.size)
        whole.records = merge_records(part.records for part in parts)
        whole.controls = {name: merge_records(part.controls[name] for part in parts) for name in whole.controls}
        for part in parts:
            whole.extremes.merge(part.extremes)
        whole.seconds = max(part.seconds for part in parts)
        whole.without_mask = sum(part.without_mask for part in parts)
        pairs = [pair for part in parts for pair in part.pairs]
        whole.pairs = sorted(pairs, key=lambda pair: (pair.first, pair.second))
        return whole


def _score_all(
    predictor: Segmenter, dataset: SegmentationDataset, indices: Sequence[int],
    batch_size: int, rules: EvaluationProtocol, controls: list[Control], part: _Part, progress: bool,
) -> None:  # fmt: skip
    """Scores the images at ``indices`` into ``part``; each batch is read while the one before it is scored."""
    samples = (dataset[index] for index in indices)
    batches = one_ahead(in_batches(samples, frame_size_of(predictor), batch_size))
    start, waited = time.perf_counter(), 0.0
    with tqdm(total=len(indices), desc=f"{dataset.name} {dataset.split}", disable=not progress) as bar:
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            _score_batch(predictor, batch, rules, controls, part)
            bar.update(len(batch))
    if indices:
        logger.info("waited for data %.1f %% of the time", 100 * waited / (time.perf_counter() - start))


def _score_batch(
    predictor: Segmenter, batch: list[Sample], rules: EvaluationProtocol, controls: list[Control], part: _Part
) -> None:
    part.without_mask += sum(question.mask is None for sample in batch for question in sample.questions)
    asked = [(sample, own) for sample in batch if (own := scored_questions(sample, rules))]
    if not asked:
        return
    samples, questions = [sample for sample, _ in asked], [own for _, own in asked]
    start = time.perf_counter()
    predictor.set_images([sample.image for sample in samples])
    answers = ask(predictor, [own.values() for own in questions])
    part.seconds += time.perf_counter() - start
    for sample, own, found in zip(samples, questions, answers, strict=True):
        scored = _score_answers(sample, own, found, rules)
        part.records.extend(record for record, _, _ in scored)
        part.extremes.offer(sample, scored)
        part.pairs.extend(_score_image_pairs(sample, own, found))
    for control in controls:
        for sample, own, masks in zip(samples, questions, control.masks(predictor, samples, questions), strict=True):
            part.controls[control.name].extend(
                _record(question_id, question, sample, mask, rules)
                for (question_id, question), mask in zip(own.items(), masks, strict=True)
            )


def _score_answers(
    sample: Sample, questions: dict[str, Question], answers: list[Segmentation], rules: EvaluationProtocol
) -> list[tuple[SampleRecord, np.ndarray, np.ndarray]]:
    """Record, prediction and target of each question of an image."""
    targets, texts = [_target(q) for q in questions.values()], [q.text for q in questions.values()]
    scored = [
        (_record(question_id, question, sample, answer.mask, rules, answer), answer.mask, target)
        for (question_id, question), answer, target in zip(questions.items(), answers, targets, strict=True)
    ]
    looks = zip(scored, needs_words(targets), swapped_partner(targets, texts), strict=True)
    return [
        (
            replace(
                record,
                needs_words=needed,
                swapped_iou=None if other is None else mask_iou(answers[other].mask, target),
            ),
            prediction,
            target,
        )
        for (record, prediction, target), needed, other in looks
    ]


def _score_image_pairs(
    sample: Sample, questions: dict[str, Question], answers: list[Segmentation]
) -> list[PairRecord]:
    """Scores the pairs of an image, of the answers that came with logits."""
    paired = [(i, q, a) for (i, q), a in zip(questions.items(), answers, strict=True) if q.pairs]
    logits = [answer.logits for _, _, answer in paired if answer.logits is not None]
    if len(logits) < len(paired):
        return []
    ids, pairs = [i for i, _, _ in paired], [q.pairs for _, q, _ in paired]
    return score_pairs(sample.image_id, ids, pairs, [_target(q) for _, q, _ in paired], logits)


def _record(
    question_id: str,
    question: Question,
    sample: Sample,
    mask: np.ndarray,
    rules: EvaluationProtocol,
    answer: Segmentation | None = None,
) -> SampleRecord:
    target = _target(question)
    if not mask.shape == target.shape == sample.image.shape[:2]:
        raise DatasetError(
            f"sample {question_id}: image {sample.image.shape[:2]}, target {target.shape} and prediction {mask.shape} "
            "must have the same (height, width); check the files with `segearth data verify`"
        )
    return SampleRecord(
        id=question_id,
        image_id=sample.image_id,
        question=question.text,
        task=question.task,
        kind=question.kind,
        source=str(sample.meta.get("source", "")),
        presence=answer.presence if answer else None,
        score=answer.score if answer else None,
        **count_pixels(rules.predicted(answer) if answer else rules.to_frame(mask), rules.to_frame(target)),
    )


def _target(question: Question) -> np.ndarray:
    assert question.mask is not None  # scored_questions leaves out those without
    return question.mask


def _example(record: SampleRecord, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> ScoredExample:
    scale = min(1.0, EXAMPLE_SIZE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))

    def shrink(mask: np.ndarray) -> np.ndarray:
        covered = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        return np.asarray(covered) > 63  # a quarter, so that thin and small objects stay visible

    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return ScoredExample(record, picture, shrink(target), shrink(prediction))


def _best_first(record: SampleRecord) -> tuple[float, int, str]:
    return -record.iou, -record.union, record.id


def _worst_first(record: SampleRecord) -> tuple[float, int, str]:
    return record.iou, -record.union, record.id
