"""One scorer for each kind of answer, and the table by which a question finds its own.

A new one is a class in this folder and a row in :data:`SCORERS`; its tasks, with the targets that they take, are rows
in :data:`segearth.structures.TARGETS_OF_TASK`.
"""

from __future__ import annotations

from typing import Any

from segearth.errors import UnknownNameError
from segearth.evaluation.scorer import Scorer
from segearth.evaluation.scorers.boxes import BoxesScorer
from segearth.evaluation.scorers.choices import ChoicesScorer
from segearth.evaluation.scorers.descriptions import DescriptionsScorer
from segearth.evaluation.scorers.segmentation import SegmentationScorer
from segearth.evaluation.scorers.text import CaptionScorer, ShortAnswerScorer
from segearth.structures import Question, check_target

# In the order of the report's sections.
SCORERS: dict[str, Scorer[Any]] = {
    scorer.name: scorer
    for scorer in (
        SegmentationScorer(), BoxesScorer(), DescriptionsScorer(), CaptionScorer(), ShortAnswerScorer(),
        ChoicesScorer(),
    )
}  # fmt: skip


def scorer_of(question: Question) -> Scorer[Any]:
    """Returns the scorer of a question's task.

    Args:
        question: With a target.

    Raises:
        UnknownNameError: There is no such task, or no scorer for it.
        DatasetError: The task takes other targets than the question's.
    """
    check_target(question)
    for scorer in SCORERS.values():
        if question.task in scorer.tasks:
            return scorer
    raise UnknownNameError("task with a scorer", question.task, [task for s in SCORERS.values() for task in s.tasks])


def get_scorer(name: str) -> Scorer[Any]:
    """Returns a row of :data:`SCORERS`.

    Raises:
        UnknownNameError: There is no such scorer.
    """
    if name not in SCORERS:
        raise UnknownNameError("scorer", name, SCORERS)
    return SCORERS[name]
