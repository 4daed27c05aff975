"""Questions that are answered in words: captions, and short answers to questions about the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import DatasetError, NothingToFitError
from segearth.evaluation.controls import Control, SplitReading, of_each_image
from segearth.evaluation.protocols import EvaluationProtocol, scored_questions
from segearth.evaluation.records import Record, identity
from segearth.evaluation.scorer import Scorer, mean, table_row
from segearth.metrics.text import (
    best_reference,
    bleu,
    exact_match,
    levenshtein_ratio,
    meteor,
    rouge_l,
    word_jaccard,
    words,
)
from segearth.structures import Segmentation, Text

if TYPE_CHECKING:
    from segearth.segmenter import Segmenter
    from segearth.structures import Question, Sample


@dataclass(frozen=True, slots=True)
class TextRecord(Record):
    """A question that was answered in words; each score is that against the nearest reference, in [0, 1].

    Attributes:
        answer: What was answered; empty where nothing was.
        references: The right answers.
        exact: 1 where the words are the same.
        jaccard: Share of the different words that both have.
        levenshtein: How alike the letters are.
        rouge_l: Longest common sequence of words, as F1.
        meteor: Words and their order, without stems and synonyms.
        counted: Which of these is the record's value.
    """

    answer: str
    references: tuple[str, ...]
    exact: float
    jaccard: float
    levenshtein: float
    rouge_l: float
    meteor: float
    counted: str

    @property
    def value(self) -> float:
        """The score that the headline averages."""
        return float(getattr(self, self.counted))

    @property
    def truth(self) -> Hashable:
        """The right answers."""
        return tuple(self.references)


@dataclass(frozen=True, slots=True)
class TextMetrics:
    """The numbers of a group of answers in words; shares in [0, 1].

    Attributes:
        samples: Number of questions.
        images: Number of different images among them.
        exact: Share of the answers whose words are those of a reference.
        jaccard: Mean over the answers; ``levenshtein``, ``rouge_l`` and ``meteor`` likewise.
        levenshtein: See :func:`segearth.metrics.text.levenshtein_ratio`.
        rouge_l: See :func:`segearth.metrics.text.rouge_l`.
        meteor: See :func:`segearth.metrics.text.meteor`.
        bleu4: BLEU of all answers together, with all references.
    """

    samples: int
    images: int
    exact: float
    jaccard: float
    levenshtein: float
    rouge_l: float
    meteor: float
    bleu4: float


class _TextScorer(Scorer[TextRecord]):
    record = TextRecord
    needs_words = True
    fitted_control = "commonest_answer"
    explanation = (
        "Answers are compared without case and punctuation, each with the nearest of its references. exact: "
        "share of the answers with the same words; Jaccard: shared words; Levenshtein: shared letters in "
        "order; ROUGE-L: longest common sequence of words, as F1; METEOR: without stems and WordNet, so lower "
        "than published values; BLEU-4: over all answers together."
    )

    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> TextRecord:
        """Scores the answer in words; none at all counts as an empty one."""
        said, references = answer.answer or "", _right(question)
        return TextRecord(
            **identity(question_id, question, sample),
            answer=said,
            references=references,
            exact=best_reference(exact_match, said, references),
            jaccard=best_reference(word_jaccard, said, references),
            levenshtein=best_reference(levenshtein_ratio, said, references),
            rouge_l=best_reference(rouge_l, said, references),
            meteor=best_reference(meteor, said, references),
            counted=self.headline,
        )

    def summary(self, records: Sequence[TextRecord]) -> TextMetrics:
        """Averages over answers; BLEU is of all together."""
        if not records:
            raise DatasetError("no samples to score; the split needs at least one question with a text target")
        means = {
            name: mean([getattr(record, name) for record in records])
            for name in ("exact", "jaccard", "levenshtein", "rouge_l", "meteor")
        }
        return TextMetrics(
            samples=len(records),
            images=len({record.image_id for record in records}),
            **means,
            bleu4=bleu([record.answer for record in records], [record.references for record in records]),
        )

    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns all scores."""
        columns = {
            "exact": "exact", "Jaccard": "jaccard", "Levenshtein": "levenshtein", "ROUGE-L": "rouge_l",
            "METEOR": "meteor", "BLEU-4": "bleu4",
        }  # fmt: skip
        return table_row(numbers, columns)

    def fit_control(self, reading: SplitReading) -> Control | None:
        """Returns the commonest right answer of the training split."""

        def right(sample: Sample) -> list[str]:
            asked = scored_questions(sample, reading.protocol).values()
            return [text for q in asked if q.task in self.tasks for text in _right(q)]

        return CommonestAnswer.fit(reading, right)


class CaptionScorer(_TextScorer):
    """Descriptions of an image, of a region or of a change."""

    name = "captions"
    tasks = ("caption", "region_caption", "change_caption")
    headline = "rouge_l"
    headline_name = "ROUGE-L"


class ShortAnswerScorer(_TextScorer):
    """Answers of a few words, such as yes, no, or a number."""

    name = "short_answers"
    tasks = ("vqa",)
    headline = "exact"
    headline_name = "exact"


class CommonestAnswer:
    """Answers every question with the text that is right most often in training.

    Attributes:
        text: That text.
    """

    name = "commonest_answer"

    def __init__(self, text: str) -> None:
        self.text = text
        self.rule = f"every question is answered with the commonest right answer of the training split, {text!r}"

    @classmethod
    def fit(cls, reading: SplitReading, right: Any) -> CommonestAnswer:
        """Counts the right answers of the training split; of equally common ones the first met is taken.

        Args:
            reading: The training split.
            right: A function from a sample to the texts that are right for its questions.

        Raises:
            NothingToFitError: There is no right answer.
        """
        texts = [text for own in of_each_image(reading, right, "commonest answer") for text in own]
        if not texts:
            where = f"{reading.dataset.name}, split {reading.dataset.split}"
            raise NothingToFitError(f"{where}: no right answer to count")
        counts = Counter(" ".join(words(text)) for text in texts)
        commonest = counts.most_common(1)[0][0]
        return cls(next(text for text in texts if " ".join(words(text)) == commonest))

    def answers(
        self, segmenter: Segmenter, samples: Sequence[Sample], questions: Sequence[Mapping[str, Question]]
    ) -> list[list[Segmentation]]:
        """Returns the one text for each question."""
        return [
            [said(self.text, question.text, sample) for question in own.values()]
            for sample, own in zip(samples, questions, strict=True)
        ]


def _right(question: Question) -> tuple[str, ...]:
    assert isinstance(question.target, Text)  # the task takes no others, which was checked
    return question.target.references


def said(answer: str, question: str, sample: Sample) -> Segmentation:
    """Returns an answer in words, with an empty mask."""
    nothing = np.zeros(sample.image.shape[:2], bool)
    return Segmentation(question, nothing, score=0.0, present=True, presence=1.0, answer=answer)
