"""Questions that are answered by choosing among options: scene classes, several labels, what changed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segearth.errors import DatasetError
from segearth.evaluation.controls import Control, SplitReading
from segearth.evaluation.protocols import EvaluationProtocol, scored_questions
from segearth.evaluation.records import Record, identity
from segearth.evaluation.scorer import Scorer, mean, table_row
from segearth.evaluation.scorers.text import CommonestAnswer, said
from segearth.metrics.choices import choice_scores, macro_f1, read_choices
from segearth.structures import Choices

if TYPE_CHECKING:
    from segearth.segmenter import Segmenter
    from segearth.structures import Question, Sample, Segmentation


@dataclass(frozen=True, slots=True)
class ChoiceRecord(Record):
    """A question that was answered by choosing.

    Attributes:
        answer: What was answered, in words.
        chosen: The options found in it, in the order of the question's options.
        right: The right options.
        accuracy: 1 where both are the same set.
        precision: Share of the chosen options that are right.
        recall: Share of the right options that were chosen.
        f1: Harmonic mean of the two: naming every option does not win.
    """

    answer: str
    chosen: tuple[str, ...]
    right: tuple[str, ...]
    accuracy: float
    precision: float
    recall: float
    f1: float

    @property
    def value(self) -> float:
        """The F1; with one right and one chosen option it is the accuracy."""
        return self.f1

    @property
    def truth(self) -> Hashable:
        """The right options."""
        return tuple(sorted(self.right))


@dataclass(frozen=True, slots=True)
class ChoiceMetrics:
    """The numbers of a group of choices; shares in [0, 1].

    Attributes:
        samples: Number of questions.
        images: Number of different images among them.
        f1: Mean over the questions; ``precision`` and ``recall`` likewise.
        accuracy: Share of the questions of which exactly the right options were chosen.
        precision: See ``f1``.
        recall: See ``f1``. Naming every option gets all of it.
        macro_f1: Mean over the options of each one's F1 over all questions; ``None`` where none is right or chosen.
    """

    samples: int
    images: int
    f1: float
    accuracy: float
    precision: float
    recall: float
    macro_f1: float | None


class ChoicesScorer(Scorer[ChoiceRecord]):
    """Reads the options off an answer in words and compares them with the right ones, be it one or several."""

    name = "choices"
    tasks = ("classification", "multi_label", "temporal_classification")
    record = ChoiceRecord
    headline = "f1"
    headline_name = "F1"
    needs_words = True
    fitted_control = "commonest_answer"
    explanation = (
        "Options are found in the answer as whole words, without case and punctuation. F1, precision and "
        "recall are means over the questions (with one right and one chosen option all are the accuracy); "
        "accuracy asks for exactly the right options; macro F1 is the mean over the options, so that rare "
        "ones weigh as much as common ones."
    )

    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> ChoiceRecord:
        """Scores the options that the answer names; an answer without words names none."""
        target, words = _right(question), answer.answer or ""
        chosen = tuple(target.options[index] for index in read_choices(words, target.options))
        scores = choice_scores(chosen, target.right)
        return ChoiceRecord(
            **identity(question_id, question, sample),
            answer=words,
            chosen=chosen,
            right=tuple(target.right),
            **scores._asdict(),
        )

    def summary(self, records: Sequence[ChoiceRecord]) -> ChoiceMetrics:
        """Averages over questions, and over options."""
        if not records:
            raise DatasetError("no samples to score; the split needs at least one question with choices")
        means = {
            name: mean([getattr(record, name) for record in records])
            for name in ("f1", "accuracy", "precision", "recall")
        }
        return ChoiceMetrics(
            samples=len(records),
            images=len({record.image_id for record in records}),
            **means,
            macro_f1=macro_f1([record.chosen for record in records], [record.right for record in records]),
        )

    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns all scores."""
        columns = {
            "F1": "f1", "accuracy": "accuracy", "precision": "precision", "recall": "recall", "macro F1": "macro_f1"
        }  # fmt: skip
        return table_row(numbers, columns)

    def constant_controls(self) -> list[Control]:
        """Returns the answer that names every option."""
        return [EveryOption()]

    def fit_control(self, reading: SplitReading) -> Control | None:
        """Returns the option that is right most often in training."""

        def right(sample: Sample) -> list[str]:
            asked = scored_questions(sample, reading.protocol).values()
            return [option for q in asked if q.task in self.tasks for option in _right(q).right]

        return CommonestAnswer.fit(reading, right)


class EveryOption:
    """Answers every question with all of its options."""

    name = "every_option"
    rule = "every option is named"

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Mapping[str, Question]]
    ) -> list[list[Segmentation]]:
        """Returns the options of each question, one after the other."""
        return [
            [said(", ".join(_right(question).options), question.text, sample) for question in own.values()]
            for sample, own in zip(samples, questions, strict=True)
        ]


def _right(question: Question) -> Choices:
    assert isinstance(question.target, Choices)  # the task takes no others, which was checked
    return question.target
