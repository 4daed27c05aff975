"""Questions that are answered with boxes: of all things of a kind (detection), or of the one described (grounding)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import DatasetError, NothingToFitError
from segearth.evaluation.controls import ConstantMask, Control, SplitReading, of_each_image
from segearth.evaluation.protocols import EvaluationProtocol, scored_questions
from segearth.evaluation.records import Record, identity
from segearth.evaluation.scorer import Scorer, mean, table_row
from segearth.metrics.boxes import as_boxes, box_iou, rotated_to_horizontal
from segearth.metrics.matching import average_precision, match_boxes
from segearth.structures import Boxes, Segmentation

if TYPE_CHECKING:
    from segearth.segmenter import Segmenter
    from segearth.structures import Question, Sample

HIT = 0.5  # IoU from which a box stands for a target


@dataclass(frozen=True, slots=True)
class BoxRecord(Record):
    """A question that was answered with boxes.

    Attributes:
        predicted: ``(left, top, right, bottom)`` of each box of the answer, in pixels.
        confidences: One a box, in [0, 1].
        targets: The right boxes; rotated ones as the upright boxes around them.
        matched_iou: See :func:`segearth.metrics.matching.matched_iou`.
        f1: Of the best matching with IoUs of at least 0.5; precision and recall likewise.
        precision: Share of the answer's boxes that stand for a target.
        recall: Share of the targets that were found.
    """

    predicted: tuple[tuple[float, ...], ...]
    confidences: tuple[float, ...]
    targets: tuple[tuple[float, ...], ...]
    matched_iou: float
    f1: float
    precision: float
    recall: float

    @property
    def value(self) -> float:
        """The matched IoU."""
        return self.matched_iou

    @property
    def truth(self) -> Hashable:
        """The right boxes."""
        return tuple(tuple(box) for box in self.targets)

    @property
    def target(self) -> str:
        """``"absent"`` or ``"present"``, for breakdowns."""
        return "present" if self.targets else "absent"


@dataclass(frozen=True, slots=True)
class BoxMetrics:
    """The numbers of a group of questions about boxes; shares in [0, 1].

    Attributes:
        samples: Number of questions.
        images: Number of different images among them.
        empty_targets: Number of questions to which no box is right.
        matched_iou: Mean over the questions of the matched IoU with its penalty on length.
        f1: Mean over the questions.
        precision: Mean over the questions.
        recall: Mean over the questions.
        ap50: Average precision at IoU 0.5 over all boxes; ``None`` where no question has a target.
    """

    samples: int
    images: int
    empty_targets: int
    matched_iou: float
    f1: float
    precision: float
    recall: float
    ap50: float | None


class BoxesScorer(Scorer[BoxRecord]):
    """Matches the boxes of an answer's regions with the right boxes, one to one."""

    name = "boxes"
    tasks: tuple[str, ...] = ("detection", "grounding")
    record: type[BoxRecord] = BoxRecord
    headline = "matched_iou"
    headline_name = "matched IoU"
    breakdowns = ("kind", "task", "source", "target")
    fitted_control = "mean_box"
    explanation = (
        "Boxes of answer and target are matched one to one; matched IoU is the sum of their IoUs over the "
        "larger number of boxes, averaged over the questions: 1 where rightly nothing is found. F1, precision "
        "and recall count matches with an IoU of at least 0.5. AP50 is COCO's average precision at that IoU, "
        "over all boxes by confidence."
    )

    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> BoxRecord:
        """Scores the answer's boxes, or those of its regions, at the image's own size whatever the protocol."""
        if answer.boxes is None:
            predicted = as_boxes([region.box for region in answer.regions])
            confidences = [answer.score_of(region) for region in answer.regions]
        else:
            predicted, confidences = upright(answer.boxes), [answer.score] * len(answer.boxes)
        targets = upright(_right(question))
        scores = match_boxes(predicted, targets, HIT)
        return BoxRecord(
            **identity(question_id, question, sample),
            predicted=_as_tuples(predicted),
            confidences=tuple(map(float, confidences)),
            targets=_as_tuples(targets),
            **scores._asdict(),
        )

    def summary(self, records: Sequence[BoxRecord]) -> BoxMetrics:
        """Averages over questions; average precision is over all boxes together."""
        if not records:
            raise DatasetError("no samples to score; the split needs at least one question with boxes")
        ious = [box_iou(list(r.predicted), list(r.targets)) for r in records]
        return BoxMetrics(
            samples=len(records),
            images=len({r.image_id for r in records}),
            empty_targets=sum(not r.targets for r in records),
            matched_iou=mean([r.matched_iou for r in records]),
            f1=mean([r.f1 for r in records]),
            precision=mean([r.precision for r in records]),
            recall=mean([r.recall for r in records]),
            ap50=average_precision(ious, [r.confidences for r in records], HIT),
        )

    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns matched IoU, F1 with its two parts, and average precision."""
        columns = {
            "matched IoU": "matched_iou", "F1": "f1", "precision": "precision", "recall": "recall", "AP50": "ap50"
        }  # fmt: skip
        return table_row(numbers, columns)

    def constant_controls(self) -> list[Control]:
        """Returns the whole image as one box, and no box."""
        return [ConstantMask(True), ConstantMask(False)]

    def fit_control(self, reading: SplitReading) -> Control | None:
        """Returns the mean of the training boxes."""
        return MeanBox.fit(reading, self.tasks)


class MeanBox:
    """Answers every question with one box, stretched to the image, without looking at it.

    Attributes:
        box: ``(left, top, right, bottom)`` in shares of the image's width and height.
    """

    name = "mean_box"
    rule = "one box for all images: the mean of the training boxes, in shares of the image's sides"

    def __init__(self, box: np.ndarray) -> None:
        self.box = box

    @classmethod
    def fit(cls, reading: SplitReading, tasks: Sequence[str]) -> MeanBox:
        """Averages the boxes of the training split.

        Args:
            reading: The training split.
            tasks: Those whose boxes count.

        Raises:
            NothingToFitError: There is no box.
        """

        def shares(sample: Sample) -> list[np.ndarray]:
            height, width = sample.image.shape[:2]
            asked = scored_questions(sample, reading.protocol).values()
            own = [upright(_right(q)) for q in asked if q.task in tasks]
            return [boxes / [width, height, width, height] for boxes in own]

        found = [boxes for own in of_each_image(reading, shares, "mean box") for boxes in own]
        together = np.concatenate(found) if found else np.zeros((0, 4))
        if not len(together):
            where = f"{reading.dataset.name}, split {reading.dataset.split}"
            raise NothingToFitError(f"{where}: no box to take the mean of")
        return cls(together.mean(axis=0))

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Mapping[str, Question]]
    ) -> list[list[Segmentation]]:
        """Returns the one box, filled, at each image's size."""
        return [
            [_filled(question.text, self.box, *sample.image.shape[:2]) for question in own.values()]
            for sample, own in zip(samples, questions, strict=True)
        ]


def upright(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns boxes of four numbers as they are, and the upright boxes around rotated ones of five, ``(n, 4)``."""
    rows = [rotated_to_horizontal(box)[0] if len(box) == 5 else as_boxes(box)[0] for box in boxes]
    return np.stack(rows) if rows else np.zeros((0, 4))


def _right(question: Question) -> tuple[tuple[float, ...], ...]:
    assert isinstance(question.target, Boxes)  # the task takes no others, which was checked
    return question.target.values


def _filled(text: str, box: np.ndarray, height: int, width: int) -> Segmentation:
    left, top, right, bottom = (box * [width, height, width, height]).round().astype(int)
    mask = np.zeros((height, width), bool)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return Segmentation(text, mask, score=1.0, present=True, presence=1.0)


def _as_tuples(boxes: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in box) for box in boxes)
