"""Questions that are answered in words and boxes: a description of an image, and where each thing is that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segearth.errors import DatasetError
from segearth.evaluation.protocols import EvaluationProtocol
from segearth.evaluation.scorer import mean, table_row
from segearth.evaluation.scorers.boxes import BoxesScorer, BoxMetrics, BoxRecord
from segearth.metrics.text import lexical_score

if TYPE_CHECKING:
    from segearth.structures import Question, Sample, Segmentation


@dataclass(frozen=True, slots=True)
class DescriptionRecord(BoxRecord):
    """A question that was answered with a description and its boxes.

    Attributes:
        answer: The words; empty where there were none.
        reference: The right words.
        wording: Mean of ROUGE-1, ROUGE-L and METEOR, in [0, 1].
    """

    answer: str
    reference: str
    wording: float

    @property
    def value(self) -> float:
        """Half the matched IoU and half the wording, as a reward for such answers counts them."""
        return (self.matched_iou + self.wording) / 2


@dataclass(frozen=True, slots=True)
class DescriptionMetrics(BoxMetrics):
    """The numbers of a group of descriptions; shares in [0, 1].

    Attributes:
        wording: Mean over the questions.
        both: Mean of the records' values: half boxes, half words.
    """

    wording: float
    both: float


class DescriptionsScorer(BoxesScorer):
    """Scores the boxes as :class:`~segearth.evaluation.scorers.boxes.BoxesScorer` does, and the words beside them."""

    name = "descriptions"
    tasks = ("grounding_description",)
    record = DescriptionRecord
    headline = "both"
    headline_name = "boxes and words"
    needs_words = True
    explanation = (
        "Descriptions: wording is the mean of ROUGE-1, ROUGE-L and METEOR (which gives short texts a little less than "
        "1 even where all words are right); matched IoU is that of boxes paired one to one, over the larger number of "
        "boxes; boxes and words is half of each. F1, precision and recall count pairs with an IoU of at least 0.5, "
        "AP50 is the average precision there."
    )

    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> DescriptionRecord:
        """Scores boxes and words.

        Raises:
            DatasetError: The question has no right words.
        """
        if not question.answer:
            raise DatasetError(
                f"question {question_id}: a grounding description has boxes as its target and its right words as "
                "the question's answer, and there are none; give them, or ask for task 'detection'"
            )
        boxes = super().score(question_id, question, answer, sample, protocol)
        said = answer.answer or ""
        return DescriptionRecord(
            **asdict(boxes), answer=said, reference=question.answer, wording=lexical_score(said, question.answer)
        )

    def summary(self, records: Sequence[BoxRecord]) -> DescriptionMetrics:
        """Averages over questions; average precision is over all boxes together."""
        boxes = super().summary(records)
        described = [record for record in records if isinstance(record, DescriptionRecord)]
        return DescriptionMetrics(
            **asdict(boxes),
            wording=mean([record.wording for record in described]),
            both=mean([record.value for record in described]),
        )

    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns both together, the words, and the numbers of the boxes."""
        own = table_row(numbers, {"boxes and words": "both", "wording": "wording"})
        return {**own, **super().cells(numbers)}
