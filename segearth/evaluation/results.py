"""What an evaluation has found: the numbers of each scorer beside those of its controls, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from segearth.errors import DatasetError
from segearth.evaluation.examples import Extremes
from segearth.evaluation.protocols import EvaluationProtocol
from segearth.evaluation.records import Record
from segearth.evaluation.scorer import Scorer
from segearth.metrics.bootstrap import bootstrap_interval
from segearth.segmenter import NO_ANSWERS, AnswerCounts


@dataclass
class ScorerResult:
    """What one scorer has found.

    Attributes:
        scorer: Which one.
        records: One a question, ordered by id.
        controls: The same questions answered by each control, by control name.
        control_rules: Each control in words.
        further: What the scorer found beside the records, see ``Scorer.look_further``.
        seed: Decides the bootstrap.
    """

    scorer: Scorer[Any]
    records: list[Any]
    controls: dict[str, list[Any]]
    control_rules: dict[str, str]
    further: list[Any] = field(default_factory=list)
    seed: int = 0

    @cached_property
    def metrics(self) -> Any:
        """The model's numbers: what the scorer's ``summary`` returns.

        Raises:
            DatasetError: No question was scored.
        """
        return self.scorer.summary(self.records)

    @cached_property
    def control_metrics(self) -> dict[str, Any]:
        """The numbers of each control."""
        return {name: self.scorer.summary(records) for name, records in self.controls.items()}

    @property
    def headline(self) -> float:
        """The one number of the model that margins and intervals are about: the mean of its records' values."""
        return float(getattr(self.metrics, self.scorer.headline))

    def headline_of(self, control: str) -> float:
        """Returns the same number of a control."""
        return float(getattr(self.control_metrics[control], self.scorer.headline))

    @property
    def best_control(self) -> str | None:
        """The control with the highest headline; ``None`` if there are no controls."""
        return max(self.controls, key=self.headline_of, default=None)

    @property
    def margin(self) -> float | None:
        """The model's headline less the best control's; ``None`` if there are no controls."""
        best = self.best_control
        return None if best is None else self.headline - self.headline_of(best)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the headline, from a bootstrap over images."""
        return bootstrap_interval([r.value for r in self.records], [r.image_id for r in self.records], seed=self.seed)

    @cached_property
    def margin_interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the margin, of differences question by question; ``None`` without controls."""
        best = self.best_control
        if best is None:
            return None
        gains = [own.value - other.value for own, other in zip(self.records, self.controls[best], strict=True)]
        return bootstrap_interval(gains, [r.image_id for r in self.records], seed=self.seed)


@dataclass
class EvaluationResult:
    """Everything a report is made from.

    Most splits have questions of one scorer only, which ``records``, ``metrics``, ``margin`` and the like are about. In
    a split with questions of several scorers they are about the first; ``by_scorer`` has all.

    Attributes:
        dataset: Name of the data set.
        split: Name of the split.
        protocol: How samples were chosen and compared.
        seed: Decided the shuffled questions; decides the bootstrap.
        by_scorer: What each scorer found, by its name, in the order of ``SCORERS``.
        extremes: Best and worst samples for the picture sheet.
        seconds: Time inside the segmenter, of the slowest process; loading, scoring and controls are left out.
        without_target: Questions that the protocol asks, passed over because they have no ground truth.
        unreadable_images: What was wrong with each image that could not be read and was left out, one line each.
        counts: How many of the model's answers could not be read; controls do not count.
    """

    dataset: str
    split: str
    protocol: EvaluationProtocol
    seed: int
    by_scorer: dict[str, ScorerResult]
    extremes: Extremes
    seconds: float
    without_target: int
    unreadable_images: tuple[str, ...] = ()
    counts: AnswerCounts = NO_ANSWERS

    @property
    def main(self) -> ScorerResult:
        """What the first scorer found.

        Raises:
            DatasetError: No question was scored.
        """
        for found in self.by_scorer.values():
            return found
        if self.unreadable_images:
            raise DatasetError(
                f"nothing was scored: {len(self.unreadable_images)} images could not be read, such as "
                f"{self.unreadable_images[0]}"
            )
        raise DatasetError("no samples to score; the split needs at least one question with a mask or another target")

    @property
    def records(self) -> list[Any]:
        """The first scorer's records, ordered by id; none where this process was given no image."""
        return self.main.records if self.by_scorer else []

    @property
    def controls(self) -> dict[str, list[Any]]:
        """The records of its controls, by name."""
        return self.main.controls if self.by_scorer else {}

    @property
    def control_rules(self) -> dict[str, str]:
        """Its controls in words, by name."""
        return self.main.control_rules

    @property
    def metrics(self) -> Any:
        """Its numbers."""
        return self.main.metrics

    @property
    def control_metrics(self) -> dict[str, Any]:
        """The numbers of its controls."""
        return self.main.control_metrics

    @property
    def best_control(self) -> str | None:
        """The best of its controls."""
        return self.main.best_control

    @property
    def margin(self) -> float | None:
        """The model's headline less that control's."""
        return self.main.margin

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of its headline."""
        return self.main.interval

    @property
    def margin_interval(self) -> tuple[float, float] | None:
        """95 % interval of the margin."""
        return self.main.margin_interval

    @property
    def all_records(self) -> list[Record]:
        """The records of all scorers, one scorer after the other."""
        return [record for found in self.by_scorer.values() for record in found.records]

    @property
    def images_per_second(self) -> float:
        """Images through the segmenter a second, all processes together."""
        return len({record.image_id for record in self.all_records}) / self.seconds if self.seconds else float("inf")

    @property
    def questions_per_second(self) -> float:
        """Questions through the segmenter a second, all processes together."""
        return len(self.all_records) / self.seconds if self.seconds else float("inf")
