"""Asks a segmenter every question of a split and scores the answers; one process or many give the same records."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from segearth.data.base import SegmentationDataset
from segearth.errors import ConfigError
from segearth.evaluation.batches import in_batches
from segearth.evaluation.controls import Control, SplitReading, build_controls, read_or_none
from segearth.evaluation.examples import Extremes
from segearth.evaluation.protocols import (
    EvaluationProtocol,
    ask,
    asked_questions,
    get_protocol,
    scored_questions,
)
from segearth.evaluation.records import merge_records
from segearth.evaluation.results import EvaluationResult, ScorerResult
from segearth.evaluation.scorer import Scorer
from segearth.evaluation.scorers import SCORERS, scorer_of
from segearth.segmenter import NO_ANSWERS, AnswerCounts, Segmenter, counts_of, frame_size_of, set_images_of
from segearth.structures import Question, Sample, Segmentation
from segearth.utils.processes import gather_objects
from segearth.utils.threads import one_ahead

logger = logging.getLogger(__name__)


def evaluate(
    segmenter: Segmenter,
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
        segmenter: Any :class:`~segearth.segmenter.Segmenter`. It is given each image once, and asked all questions of
            one scorer together; the shuffled questions follow without setting the image again.
        dataset: The split to score; questions without a target are passed over, and so are pictures that do not open,
            which the result counts. Each question is scored by the scorer of its task, see
            :data:`segearth.evaluation.scorers.SCORERS`.
        protocol: A name in :data:`segearth.evaluation.protocols.PROTOCOLS`.
        controls: Whether to score the controls beside the model.
        train_dataset: The training split, for controls that are fitted on it, such as ``mean_mask``; ``None`` leaves
            them out.
        seed: Decides the shuffled questions and the bootstrap.
        rank: This process.
        world_size: Number of processes.
        limit: Only the first so many images; ``None``: all.
        batch_size: Most images that the segmenter is given at a time, all of one frame size. It changes time and
            memory; answers are the same but for rounding.
        examples: How many best and how many worst samples to keep as pictures.
        progress: Whether rank 0 shows progress bars.

    Raises:
        UnknownNameError: There is no such protocol, or no scorer knows a question's task.
        DatasetError: A sample id occurs twice, a prediction and a target differ in size, or a question has a target
            that the scorer of its task does not take.
        ConfigError: ``batch_size`` is less than 1.
        SegEarthError: Questions are about pairs of images or about regions, which the segmenter cannot take.
    """
    if batch_size < 1:
        raise ConfigError(f"eval.batch_size is {batch_size}; at least one image must go through at a time")
    chosen = get_protocol(protocol)
    progress = progress and rank == 0
    by_scorer: dict[str, list[Control]] = {}
    if controls:
        evaluated = SplitReading(dataset, chosen, limit, progress, rank, world_size)
        by_scorer = build_controls(SCORERS, scorer_of, evaluated, train_dataset, seed=seed)
    part = _Part(Extremes(examples), {name: _Scored() for name in by_scorer})
    count = len(dataset) if limit is None else min(limit, len(dataset))
    _score_all(segmenter, dataset, range(rank, count, world_size), batch_size, chosen, by_scorer, part, progress)
    whole = _Part.join(gather_objects(part, world_size))
    if whole.without_target:
        logger.warning("%d questions without a target were passed over", whole.without_target)
    if whole.unreadable:
        logger.warning("%d images could not be read and were left out: %s", len(whole.unreadable), whole.unreadable[0])
    return EvaluationResult(
        dataset=dataset.name,
        split=dataset.split,
        protocol=chosen,
        seed=seed,
        by_scorer={
            name: ScorerResult(
                scorer=scorer,
                records=whole.scored[name].records,
                controls={c.name: whole.scored[name].controls.get(c.name, []) for c in by_scorer.get(name, [])},
                control_rules={control.name: control.rule for control in by_scorer.get(name, [])},
                further=whole.scored[name].further,
                seed=seed,
            )
            for name, scorer in SCORERS.items()
            if name in whole.scored
        },
        extremes=whole.extremes,
        seconds=whole.seconds,
        without_target=whole.without_target,
        unreadable_images=tuple(whole.unreadable),
        counts=whole.counts,
    )


@dataclass(slots=True)
class _Scored:
    """What one scorer has found in one process: records of the answers, of the controls', and further ones.

    The further ones are the second part of what ``Scorer.look_further`` returns.
    """

    records: list[Any] = field(default_factory=list)
    controls: dict[str, list[Any]] = field(default_factory=dict)
    further: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class _Part:
    """What one process has scored, by the scorer's name."""

    extremes: Extremes
    scored: dict[str, _Scored] = field(default_factory=dict)
    seconds: float = 0.0
    without_target: int = 0
    unreadable: list[str] = field(default_factory=list)
    counts: AnswerCounts = NO_ANSWERS

    @classmethod
    def join(cls, parts: list[_Part]) -> _Part:
        whole = cls(Extremes(parts[0].extremes.size))
        for name in {name: None for part in parts for name in part.scored}:
            shares = [part.scored[name] for part in parts if name in part.scored]
            controls = {control: None for share in shares for control in share.controls}
            whole.scored[name] = _Scored(
                merge_records(share.records for share in shares),
                {c: merge_records(share.controls.get(c, []) for share in shares) for c in controls},
                [item for share in shares for item in share.further],
            )
        merge_records(share.records for share in whole.scored.values())  # checks that no id occurs under two scorers
        for part in parts:
            whole.extremes.merge(part.extremes)
        whole.seconds = max(part.seconds for part in parts)
        whole.without_target = sum(part.without_target for part in parts)
        whole.unreadable = [problem for part in parts for problem in part.unreadable]
        whole.counts = _added([part.counts for part in parts])
        return whole


def _score_all(
    segmenter: Segmenter, dataset: SegmentationDataset, indices: Sequence[int],
    batch_size: int, protocol: EvaluationProtocol, controls: Mapping[str, list[Control]], part: _Part, progress: bool,
) -> None:  # fmt: skip
    """Scores the images at ``indices`` into ``part``; each batch is read while the one before it is scored."""
    read = (read_or_none(dataset, index, part.unreadable) for index in indices)
    samples = (sample for sample in read if sample is not None)
    batches = one_ahead(in_batches(samples, frame_size_of(segmenter), batch_size))
    start, waited = time.perf_counter(), 0.0
    with tqdm(total=len(indices), desc=f"{dataset.name} {dataset.split}", disable=not progress) as bar:
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            _score_batch(segmenter, batch, protocol, controls, part)
            bar.update(len(batch))
        bar.update(len(part.unreadable))
    if indices:
        logger.info("waited for data %.1f %% of the time", 100 * waited / (time.perf_counter() - start))


def _score_batch(
    segmenter: Segmenter,
    batch: list[Sample],
    protocol: EvaluationProtocol,
    controls: Mapping[str, list[Control]],
    part: _Part,
) -> None:
    part.without_target += sum(q.target is None for sample in batch for q in asked_questions(sample, protocol))
    asked = [(sample, own) for sample in batch if (own := scored_questions(sample, protocol))]
    if not asked:
        return
    samples, by_scorer = [sample for sample, _ in asked], _by_scorer([own for _, own in asked])
    start, before = time.perf_counter(), counts_of(segmenter)
    set_images_of(segmenter, [sample.image for sample in samples], [sample.before for sample in samples])
    answers = {
        name: ask(segmenter, [own.values() for own in questions], SCORERS[name].needs_words)
        for name, questions in by_scorer.items()
    }
    part.seconds += time.perf_counter() - start
    now = counts_of(segmenter)
    new = AnswerCounts(now.unreadable - before.unreadable, now.answered - before.answered)
    part.counts = _added([part.counts, new])
    for name, questions in by_scorer.items():
        scored = part.scored.setdefault(name, _Scored())
        for sample, own, found in zip(samples, questions, answers[name], strict=True):
            _score_image(SCORERS[name], sample, own, found, protocol, scored, part.extremes)
        for control in controls.get(name, []):
            records = scored.controls.setdefault(control.name, [])
            for sample, own, found in zip(
                samples, questions, control.answers(segmenter, samples, questions), strict=True
            ):
                scores = _records(SCORERS[name], sample, own, found, protocol)
                records.extend(SCORERS[name].of_control(record) for record in scores)


def _added(counts: Sequence[AnswerCounts]) -> AnswerCounts:
    return AnswerCounts(sum(one.unreadable for one in counts), sum(one.answered for one in counts))


def _by_scorer(questions: Sequence[Mapping[str, Question]]) -> dict[str, list[dict[str, Question]]]:
    """Returns by scorer a list of all images with the questions of each; it may be empty for an image."""
    by_scorer: dict[str, list[dict[str, Question]]] = {}
    for number, own in enumerate(questions):
        for question_id, question in own.items():
            of_images = by_scorer.setdefault(scorer_of(question).name, [{} for _ in questions])
            of_images[number][question_id] = question
    return by_scorer


def _records(
    scorer: Scorer[Any],
    sample: Sample,
    questions: Mapping[str, Question],
    answers: Sequence[Segmentation],
    protocol: EvaluationProtocol,
) -> list[Any]:
    return [
        scorer.score(question_id, question, answer, sample, protocol)
        for (question_id, question), answer in zip(questions.items(), answers, strict=True)
    ]


def _score_image(
    scorer: Scorer[Any],
    sample: Sample,
    questions: Mapping[str, Question],
    answers: Sequence[Segmentation],
    protocol: EvaluationProtocol,
    scored: _Scored,
    extremes: Extremes,
) -> None:
    """Scores the model's answers to one image's questions, and offers them for the picture sheet."""
    records = _records(scorer, sample, questions, answers, protocol)
    records, further = scorer.look_further(sample, questions, answers, records)
    scored.records.extend(records)
    scored.further.extend(further)
    shown = [
        (record, *masks)
        for record, question, answer in zip(records, questions.values(), answers, strict=True)
        if (masks := scorer.masks_to_show(question, answer)) is not None
    ]
    extremes.offer(sample, shown)
