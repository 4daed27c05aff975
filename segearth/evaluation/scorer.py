"""The base class of scorers: what a task needs to be evaluated.

A scorer turns an answer into a record, a list of records into numbers, and numbers into the cells of a table. All else
(evaluator, controls, intervals, comparison, report) is the same for all tasks and knows none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from segearth.evaluation.records import R

if TYPE_CHECKING:
    from segearth.evaluation.controls import Control, SplitReading
    from segearth.evaluation.protocols import EvaluationProtocol
    from segearth.structures import Question, Sample, Segmentation


class Scorer(ABC, Generic[R]):
    """Scores the answers to the questions of a few tasks. A new one is a row of ``SCORERS``.

    Attributes:
        name: What the report and its files call it, such as ``"boxes"``.
        tasks: The tasks that it scores, see :class:`segearth.structures.Question`.
        record: Class of its records.
        headline: The field of :meth:`summary` that is the mean of the records' ``value``.
        headline_name: How tables call that field, such as ``"gIoU"``.
        explanation: What the columns of its tables mean, in whole sentences.
        needs_words: Whether the model must be asked for an answer in words, which costs time.
        breakdowns: Attributes of a record by which the report splits its tables.
        fitted_control: Name of the control that needs the training split; empty: there is none.
    """

    name: str
    tasks: tuple[str, ...]
    record: type[R]
    headline: str
    headline_name: str
    explanation: str = ""
    needs_words: bool = False
    breakdowns: tuple[str, ...] = ("kind", "task", "source")
    fitted_control: str = ""

    @abstractmethod
    def score(
        self, question_id: str, question: Question, answer: Segmentation, sample: Sample, protocol: EvaluationProtocol
    ) -> R:
        """Scores one answer.

        Args:
            question_id: The record's id.
            question: With a target that its task takes.
            answer: The model's or a control's.
            sample: The image that was asked about.
            protocol: How answers are compared with targets.
        """

    @abstractmethod
    def summary(self, records: Sequence[R]) -> Any:
        """Computes the numbers of a group of records: a dataclass with ``samples``, ``images`` and the headline.

        Raises:
            DatasetError: There is no record.
        """

    @abstractmethod
    def cells(self, numbers: Mapping[str, Any]) -> dict[str, str]:
        """Returns a row of its tables, by column; ``numbers`` are those of :meth:`summary` as a mapping."""

    def constant_controls(self) -> list[Control]:
        """Returns the controls that answer every question alike and need no data."""
        return []

    def fit_control(self, reading: SplitReading) -> Control | None:
        """Returns the control that is fitted on the training split, where the scorer has one.

        Raises:
            NothingToFitError: The training split has no target of the scorer's tasks. The control is then left out.
        """
        return None

    def of_control(self, record: R) -> R:
        """Removes from the record of a control's answer what only a model's answer has, such as its confidence."""
        return record

    def look_further(
        self, sample: Sample, questions: Mapping[str, Question], answers: Sequence[Segmentation], records: list[R]
    ) -> tuple[list[R], list[Any]]:
        """Looks at all answers about an image together.

        Returns:
            The records, with what only the comparison of questions tells, and further records of the scorer's own.
        """
        return records, []

    def masks_to_show(self, question: Question, answer: Segmentation) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns prediction and target as boolean ``(H, W)`` masks for the picture sheet; ``None``: not shown.

        A scorer that shows any keeps :class:`segearth.evaluation.records.SampleRecord` as its records: the sheet ranks
        answers by IoU and union, and prints presence and whether the target is empty.
        """
        return None

    def further_facts(self, records: Sequence[R], further: Sequence[Any], seed: int) -> dict[str, Any]:
        """Returns what the report's JSON says beyond the tables, by key; ``further`` is from :meth:`look_further`."""
        return {}

    def further_lines(self, facts: Mapping[str, Any]) -> list[str]:
        """Returns the facts of :meth:`further_facts` as Markdown."""
        return []

    def line_of(self, record: R) -> dict[str, Any]:
        """Returns what ``samples.jsonl`` says of a record beyond its fields."""
        return {"value": round(record.value, 6)}

    def in_one_line(self, summary: Any) -> str:
        """Returns the headline for the terminal."""
        return f"{self.headline_name} {getattr(summary, self.headline):.4f}"

    def first_sentence(self, numbers: Mapping[str, Any], interval: Sequence[float]) -> str:
        """Returns the report's first sentence.

        Args:
            numbers: The model's.
            interval: 95 % interval of the headline.
        """
        low, high = interval
        return (
            f"**{self.headline_name} {percent(numbers[self.headline])}** (95 % interval {percent(low)} to "
            f"{percent(high)}), {numbers['samples']} questions about {numbers['images']} images."
        )


def percent(share: float | None) -> str:
    """Returns a share in [0, 1] as percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f}"


def table_row(numbers: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Returns the number of samples, and by column a share as percent; ``columns`` says which share it holds."""
    return {"samples": str(numbers["samples"]), **{name: percent(numbers[key]) for name, key in columns.items()}}


def signed(share: float) -> str:
    """Returns a difference of shares as points, with its sign."""
    return f"{100 * share:+.2f}"


def mean(values: Sequence[float]) -> float:
    """Returns the mean of at least one value as a plain number."""
    return float(np.mean(np.asarray(values, float)))
