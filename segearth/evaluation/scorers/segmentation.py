"""Questions that are answered with a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import DatasetError
from segearth.evaluation.controls import ConstantMask, Control, MeanMask, SplitReading
from segearth.evaluation.listening import PairRecord, listening_facts, needs_words, score_pairs, swapped_partner
from segearth.evaluation.protocols import EvaluationProtocol
from segearth.evaluation.records import Metrics, SampleRecord, compute_metrics, identity
from segearth.evaluation.scorer import Scorer, percent, signed
from segearth.metrics.masks import count_pixels, mask_iou

if TYPE_CHECKING:
    from segearth.structures import Question, Sample, Segmentation


class SegmentationScorer(Scorer[SampleRecord]):
    """Compares masks pixel by pixel; the numbers are those of :mod:`segearth.evaluation.records`."""

    name = "segmentation"
    tasks = ("referring", "reasoning")
    record = SampleRecord
    headline = "giou"
    headline_name = "gIoU"
    breakdowns = ("kind", "task", "source", "target")
    fitted_control = "mean_mask"
    explanation = (
        "gIoU is the mean IoU of the samples (mIoU in the referring papers, not the generalised "
        "IoU of boxes); cIoU is the sum of intersections over the sum of unions (oIoU there). N-acc: share of empty "
        "targets answered with an empty mask; T-acc: share of non-empty targets answered with a non-empty one, T@0.1: "
        "with an IoU above 0.1; present: gIoU of the non-empty targets alone."
    )

    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> SampleRecord:
        """Counts the pixels of an answer's mask and of the target, in the frame of the protocol.

        Raises:
            DatasetError: Image, target and answer differ in size.
        """
        target = _target(question)
        if not answer.mask.shape == target.shape == sample.image.shape[:2]:
            raise DatasetError(
                f"sample {question_id}: image {sample.image.shape[:2]}, target {target.shape} and prediction "
                f"{answer.mask.shape} must have the same (height, width); check the files with `segearth data verify`"
            )
        return SampleRecord(
            **identity(question_id, question, sample),
            presence=answer.presence,
            score=answer.score,
            **count_pixels(protocol.predicted(answer), protocol.to_frame(target)),
        )

    def summary(self, records: Sequence[SampleRecord]) -> Metrics:
        """See :func:`segearth.evaluation.records.compute_metrics`."""
        return compute_metrics(records)

    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns gIoU, cIoU, precision at five thresholds, and how presence was judged."""
        shares = {
            "gIoU": numbers["giou"],
            "present": numbers["present_giou"],
            "cIoU": numbers["ciou"],
            **{f"Pr@{threshold}": share for threshold, share in numbers["precision"].items()},
            "N-acc": numbers["n_acc"],
            "T-acc": numbers["t_acc"],
            "T@0.1": numbers["t_found"],
        }
        return {"samples": str(numbers["samples"]), **{name: percent(share) for name, share in shares.items()}}

    def constant_controls(self) -> list[Control]:
        """Returns the whole image, and nothing."""
        return [ConstantMask(True), ConstantMask(False)]

    def fit_control(self, reading: SplitReading) -> Control | None:
        """Returns the best single mask for all images."""
        return MeanMask.fit(reading)

    def of_control(self, record: SampleRecord) -> SampleRecord:
        """Removes presence and score, which in a control's answer mean nothing."""
        return replace(record, presence=None, score=None)

    def look_further(
        self,
        sample: Sample,
        questions: Mapping[str, Question],
        answers: Sequence[Segmentation],
        records: list[SampleRecord],
    ) -> tuple[list[SampleRecord], list[PairRecord]]:
        """Adds which questions need words and what another question's answer would score; scores minimal pairs."""
        asked = list(questions.values())
        targets = [_target(question) for question in asked]
        looks = zip(
            records,
            targets,
            needs_words(targets),
            swapped_partner(targets, [question.text for question in asked]),
            strict=True,
        )
        looked = [
            replace(
                record,
                needs_words=needed,
                swapped_iou=None if other is None else mask_iou(answers[other].mask, target),
            )
            for record, target, needed, other in looks
        ]
        return looked, _image_pairs(sample, questions, answers)

    def masks_to_show(self, question: Question, answer: Segmentation) -> tuple[np.ndarray, np.ndarray]:
        """Returns the two masks as they are."""
        return answer.mask, _target(question)

    def further_facts(
        self, records: Sequence[SampleRecord], further: Sequence[PairRecord], seed: int
    ) -> dict[str, Any]:
        """See :func:`segearth.evaluation.listening.listening_facts`."""
        pairs = sorted(further, key=lambda pair: (pair.first, pair.second))
        return listening_facts(records, pairs, seed)

    def further_lines(self, facts: Mapping[str, Any]) -> list[str]:
        """Says whether the model reads the question, and how far its confidences can be trusted."""
        return _listening_lines(facts)

    def line_of(self, record: SampleRecord) -> dict[str, Any]:
        """Adds the IoU and whether there is anything to find."""
        return {"iou": round(record.iou, 6), "target_empty": record.target_empty}

    def in_one_line(self, summary: Metrics) -> str:
        """Returns gIoU and cIoU."""
        return f"gIoU {summary.giou:.4f}, cIoU {summary.ciou:.4f}"

    def first_sentence(self, numbers: Mapping[str, Any], interval: Sequence[float]) -> str:
        """Returns gIoU with its interval, cIoU, and how many targets are empty."""
        low, high = interval
        return (
            f"**gIoU {percent(numbers['giou'])}** (95 % interval {percent(low)} to {percent(high)}), "
            f"cIoU {percent(numbers['ciou'])}, {numbers['samples']} samples "
            f"({numbers['empty_targets']} with an empty target) on {numbers['images']} images. "
            f"Targets that are there alone: gIoU {percent(numbers['present_giou'])}."
        )


def _target(question: Question) -> np.ndarray:
    assert question.mask is not None  # the evaluator gives a scorer only questions with a target of its class
    return question.mask


def _image_pairs(
    sample: Sample, questions: Mapping[str, Question], answers: Sequence[Segmentation]
) -> list[PairRecord]:
    """Scores the minimal pairs of an image, if its answers came with logits."""
    paired = [(i, q, a) for (i, q), a in zip(questions.items(), answers, strict=True) if q.pairs]
    logits = [answer.logits for _, _, answer in paired if answer.logits is not None]
    if len(logits) < len(paired):
        return []
    ids, pairs = [i for i, _, _ in paired], [q.pairs for _, q, _ in paired]
    return score_pairs(sample.image_id, ids, pairs, [_target(q) for _, q, _ in paired], logits)


def _listening_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if hard := facts["needs_words"]:
        low, high = hard["margin_interval_95"]
        lines.append(
            f"- {hard['samples']} questions need words (their target is not the image's commonest): gIoU "
            f"{percent(hard['giou'])}. The answer to another question of the same image scores "
            f"{percent(hard['swapped_giou'])} there: reading the words is worth **{signed(hard['margin'])}** "
            f"(95 % interval {signed(low)} to {signed(high)})."
        )
    for what, row in facts["pairs"].items():
        low, high = row["interval_95"]
        lines.append(
            f"- {row['pairs']} pairs that differ in one word ({what}): the right map wins in "
            f"**{percent(row['won'])} %** (95 % interval {percent(low)} to {percent(high)}; 50 is chance)."
        )
    if confidence := facts["calibration"]:
        lines.append(
            f"- Calibration error: presence {percent(confidence['presence'])}, score (against the IoU reached) "
            f"{percent(confidence['score'])}; 0 is perfect."
        )
    return ["", "## Does it listen, and does it know", "", *lines] if lines else []
