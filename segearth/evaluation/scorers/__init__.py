"""One scorer for each kind of answer, and the table by which a question finds its own.

A new one: a class in this folder, and a row in :data:`SCORERS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segearth.errors import DatasetError, UnknownNameError
from segearth.evaluation.protocols import target_of
from segearth.evaluation.scorer import Scorer
from segearth.evaluation.scorers.boxes import BoxesScorer
from segearth.evaluation.scorers.choices import ChoicesScorer
from segearth.evaluation.scorers.segmentation import SegmentationScorer
from segearth.evaluation.scorers.text import CaptionScorer, ShortAnswerScorer
from segearth.structures import Question

# In the order of the report's sections.
SCORERS: dict[str, Scorer[Any]] = {
    scorer.name: scorer
    for scorer in (SegmentationScorer(), BoxesScorer(), CaptionScorer(), ShortAnswerScorer(), ChoicesScorer())
}


def scorer_of(question: Question) -> Scorer[Any]:
    """Returns the scorer of a question's task.

    Args:
        question: With a target.

    Raises:
        UnknownNameError: No scorer knows the task.
        DatasetError: The scorer takes targets of another class than the question's.
    """
    by_task = {task: scorer for scorer in SCORERS.values() for task in scorer.tasks}
    if question.task not in by_task:
        raise UnknownNameError("task", question.task, by_task)
    scorer = by_task[question.task]
    target = target_of(question)
    given = "Regions" if isinstance(target, np.ndarray) else type(target).__name__
    if given != scorer.target:
        fitting = sorted(task for task, other in by_task.items() if other.target == given)
        other = f", or a task that takes {given} ({', '.join(fitting)})" if fitting else ""
        raise DatasetError(
            f"question {question.id or question.text!r}: task {question.task!r} takes a target of {scorer.target}, not "
            f"{given}; give it {scorer.target}{other}"
        )
    return scorer


def get_scorer(name: str) -> Scorer[Any]:
    """Returns a row of :data:`SCORERS`.

    Raises:
        UnknownNameError: There is no such scorer.
    """
    if name not in SCORERS:
        raise UnknownNameError("scorer", name, SCORERS)
    return SCORERS[name]
