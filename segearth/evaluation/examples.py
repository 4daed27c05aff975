"""The best and the worst answers of a split, kept as small pictures for the report's sheet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from segearth.evaluation.records import SampleRecord
from segearth.structures import Sample

EXAMPLE_SIZE = 384  # longest side of the pictures kept of the best and worst samples


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """A sample kept for the picture sheet, small enough to hold many.

    Attributes:
        record: Its numbers.
        image: ``uint8`` RGB of shape ``(h, w, 3)``, no side longer than 384.
        target: Boolean ``(h, w)``.
        prediction: Boolean ``(h, w)``.
    """

    record: SampleRecord
    image: np.ndarray
    target: np.ndarray
    prediction: np.ndarray


@dataclass(slots=True)
class Extremes:
    """The best and the worst samples seen so far: of each image at most one as good and one as bad example.

    A sample whose target and prediction are both empty is never kept: its pictures would show nothing. Among samples
    of equal IoU the one with the larger union comes first, then the one whose id sorts first, so that the choice does
    not depend on the number of processes.

    Attributes:
        size: How many of each are kept.
        best: Highest IoU first.
        worst: Lowest IoU first.
    """

    size: int
    best: list[ScoredExample] = field(default_factory=list)
    worst: list[ScoredExample] = field(default_factory=list)

    def offer(self, sample: Sample, scored: list[tuple[SampleRecord, np.ndarray, np.ndarray]]) -> None:
        """Considers the scored questions of one image.

        Args:
            sample: The image.
            scored: Record, prediction ``(H, W)`` and target ``(H, W)`` of each question.
        """
        visible = [item for item in scored if item[0].union]
        if not visible or not self.size:
            return
        for kept, key in ((self.best, _best_first), (self.worst, _worst_first)):
            record, prediction, target = min(visible, key=lambda item: key(item[0]))
            if len(kept) < self.size or key(record) < key(kept[-1].record):
                kept.append(_example(record, sample.image, prediction, target))
                kept.sort(key=lambda example: key(example.record))
                del kept[self.size :]

    def merge(self, other: Extremes) -> None:
        """Takes in what another process kept."""
        self.best = sorted(self.best + other.best, key=lambda example: _best_first(example.record))[: self.size]
        self.worst = sorted(self.worst + other.worst, key=lambda example: _worst_first(example.record))[: self.size]


def _example(record: SampleRecord, image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> ScoredExample:
    scale = min(1.0, EXAMPLE_SIZE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))

    def shrink(mask: np.ndarray) -> np.ndarray:
        covered = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        return np.asarray(covered) > 63  # a quarter, so that thin and small objects stay visible

    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return ScoredExample(record, picture, shrink(target), shrink(prediction))


def _best_first(record: SampleRecord) -> tuple[float, int, str]:
    return -record.iou, -record.union, record.id


def _worst_first(record: SampleRecord) -> tuple[float, int, str]:
    return record.iou, -record.union, record.id
