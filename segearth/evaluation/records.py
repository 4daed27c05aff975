"""Records of scored questions, and the metrics of masks that are computed from them: NumPy alone, with worked examples.

The unit is one *sample*: one question about one image. Each sample becomes a :class:`SampleRecord` of whole pixel
counts. Metrics are computed only from lists of records, so several processes, whose lists are joined first, give
exactly the numbers of one.

==========  ============================================================================================================
gIoU        mean over samples of I/U. The referring papers call it mIoU. Not the *generalised* IoU of boxes.
cIoU        ΣI / ΣU over all samples. The referring papers call it oIoU. Large objects weigh more.
Pr@t        share of samples whose I/U is strictly greater than t.
N-acc       share of samples with an empty target whose prediction is empty, too.
T-acc       share of samples with a non-empty target whose prediction is not empty.
T@0.1       share of samples with a non-empty target whose I/U is greater than 0.1: found, not only guessed at.
present     gIoU of the samples with a non-empty target alone: what saying "nothing" cannot raise.
==========  ============================================================================================================

Empties: where target and prediction are both empty (U = 0), I/U counts as 1. A prediction on an empty target counts 0,
and its pixels enter ΣU. gIoU and cIoU as in LISA (arXiv 2308.00692) and earlier RefCOCO work; the rule for empty
targets, N-acc and T-acc as in GRES (arXiv 2306.00968).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from segearth.errors import DatasetError

if TYPE_CHECKING:
    from segearth.structures import Question, Sample

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
FOUND = 0.1  # IoU above which a target counts as found


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one scored question, whatever its task; every scorer's records add their own numbers.

    Attributes:
        id: The question's id, unique within the split.
        image_id: The image it was asked of.
        question: The text that was asked.
        task: The question's task, such as ``"referring"``.
        kind: The data set's finer label, possibly empty.
        source: Where the image is from (``sample.meta["source"]``), possibly empty.
    """

    id: str
    image_id: str
    question: str
    task: str
    kind: str
    source: str

    @property
    def value(self) -> float:
        """The one score in [0, 1] whose mean is the headline; intervals, margins and comparisons are made of it."""
        raise NotImplementedError

    @property
    def truth(self) -> Hashable:
        """What the record keeps of the target. Two runs can be compared only if it is the same in both."""
        raise NotImplementedError


R = TypeVar("R", bound=Record)


def identity(question_id: str, question: Question, sample: Sample) -> dict[str, Any]:
    """Returns the fields of a :class:`Record` that tell which question of which image was scored."""
    return {
        "id": question_id,
        "image_id": sample.image_id,
        "question": question.text,
        "task": question.task,
        "kind": question.kind,
        "source": str(sample.meta.get("source", "")),
    }


@dataclass(frozen=True, slots=True)
class SampleRecord(Record):
    """A question that was answered with a mask: four pixel counts.

    Attributes:
        intersection: Pixels in both prediction and target.
        union: Pixels in either.
        target_area: Pixels of the target.
        predicted_area: Pixels of the prediction.
        presence: The model's probability that the thing is there, in [0, 1]; ``None`` where no model was asked.
        score: The model's confidence in its mask, in [0, 1]; ``None`` where no model was asked.
        needs_words: Whether the target is another one than most questions of the image ask for, see
            :func:`segearth.evaluation.listening.needs_words`.
        swapped_iou: IoU of this target with the answer to another question of the image; ``None`` where there is no
            other that asks for something else.
    """

    intersection: int
    union: int
    target_area: int
    predicted_area: int
    presence: float | None = None
    score: float | None = None
    needs_words: bool = False
    swapped_iou: float | None = None

    @property
    def value(self) -> float:
        """The IoU."""
        return self.iou

    @property
    def truth(self) -> int:
        """The target's area."""
        return self.target_area

    @property
    def iou(self) -> float:
        """Intersection over union in [0, 1]; 1 where both masks are empty."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def target(self) -> str:
        """``"absent"`` or ``"present"``, for breakdowns."""
        return "absent" if self.target_empty else "present"

    @property
    def target_empty(self) -> bool:
        """Whether nothing of the asked-for kind is in the image."""
        return self.target_area == 0

    @property
    def predicted_empty(self) -> bool:
        """Whether the prediction is empty."""
        return self.predicted_area == 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """The numbers of one group of samples; shares in [0, 1], ``None`` where there is nothing to divide by.

    Attributes:
        samples: Number of samples.
        images: Number of different images among them.
        empty_targets: Number of samples with an empty target.
        giou: Mean of the samples' I/U.
        ciou: ΣI / ΣU; 1 if every target and every prediction is empty.
        precision: Pr@t by threshold t.
        n_acc: N-acc; ``None`` without empty targets.
        t_acc: T-acc; ``None`` without non-empty targets.
        t_found: T@0.1; likewise.
        present_giou: gIoU of the samples with a non-empty target; likewise.
    """

    samples: int
    images: int
    empty_targets: int
    giou: float
    ciou: float
    precision: dict[float, float]
    n_acc: float | None
    t_acc: float | None
    t_found: float | None
    present_giou: float | None


def compute_metrics(records: Sequence[SampleRecord]) -> Metrics:
    """Computes every number of one group of samples.

    Args:
        records: At least one record, in any order.

    Raises:
        DatasetError: There is no record.

    Example:
        Three samples: I/U = 3/4, then 1/4, then an empty target on which 2 pixels were predicted (0/2).

        >>> def record(id, intersection, union, target, predicted):
        ...     return SampleRecord(id, id, "roofs", "referring", "", "", intersection, union, target, predicted)
        >>> metrics = compute_metrics([record("a", 3, 4, 4, 3), record("b", 1, 4, 2, 3), record("c", 0, 2, 0, 2)])
        >>> round(metrics.giou, 4)  # (0.75 + 0.25 + 0) / 3
        0.3333
        >>> metrics.ciou  # (3 + 1 + 0) / (4 + 4 + 2)
        0.4
        >>> round(metrics.precision[0.7], 4)  # one of three is above 0.7
        0.3333
        >>> metrics.n_acc, metrics.t_acc  # the one empty target was not predicted empty; the other two were found
        (0.0, 1.0)
    """
    if not records:
        raise DatasetError("no samples to score; the split needs at least one question with a mask")
    iou = np.array([record.iou for record in records])
    target_empty = np.array([record.target_empty for record in records])
    predicted_empty = np.array([record.predicted_empty for record in records])
    total_union = sum(record.union for record in records)
    return Metrics(
        samples=len(records),
        images=len({record.image_id for record in records}),
        empty_targets=int(target_empty.sum()),
        giou=float(iou.mean()),
        ciou=sum(record.intersection for record in records) / total_union if total_union else 1.0,
        precision={t: float((iou > t).mean()) for t in THRESHOLDS},
        n_acc=float(predicted_empty[target_empty].mean()) if target_empty.any() else None,
        t_acc=float((~predicted_empty[~target_empty]).mean()) if not target_empty.all() else None,
        t_found=float((iou[~target_empty] > FOUND).mean()) if not target_empty.all() else None,
        present_giou=float(iou[~target_empty].mean()) if not target_empty.all() else None,
    )


S = TypeVar("S")


def breakdown(records: Iterable[R], by: str, summary: Callable[[Sequence[R]], S]) -> dict[str, S]:
    """Computes the numbers of every group of records that share an attribute.

    Args:
        records: The records.
        by: An attribute of each record, such as ``"kind"``, ``"task"``, ``"source"`` or ``"target"``.
        summary: Computes the numbers of one group, such as :func:`compute_metrics`.

    Returns:
        The numbers by the attribute's value as text, sorted; an empty label becomes ``"(none)"``.
    """
    groups: dict[str, list[R]] = defaultdict(list)
    for record in records:
        groups[str(getattr(record, by)) or "(none)"].append(record)
    return {name: summary(groups[name]) for name in sorted(groups)}


def merge_records(shards: Iterable[Iterable[R]]) -> list[R]:
    """Joins the records of several processes, ordered by sample id.

    Raises:
        DatasetError: An id occurs twice: a sample was scored twice, or the data set repeats an id.
    """
    merged = sorted((record for shard in shards for record in shard), key=lambda record: record.id)
    for first, second in pairwise(merged):
        if first.id == second.id:
            raise DatasetError(f"sample id {first.id!r} occurs twice; question ids must be unique within a split")
    return merged
