"""Evidence of a whole scene, readable by windows of the scene's own grid, and what is decided of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from segearth.geo.grids import resampled
from segearth.geo.windows import Window
from segearth.inference.deciding import score_of, threshold_of
from segearth.segmenter import DecidingSettings

ROWS_AT_ONCE = 512  # of the scene, that are held while it is decided and written


class Evidence(Protocol):
    """What is known of one question everywhere in a scene."""

    @property
    def presence(self) -> float:
        """How sure it is that the thing is in the scene, in [0, 1]."""

    @property
    def highest(self) -> float:
        """The highest evidence of all pixels."""

    def threshold(self, settings: DecidingSettings) -> float:
        """Returns where the mask is cut."""

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """Words of the question that the segmenter does not know."""

    def read(self, window: Window) -> np.ndarray:
        """Returns float32 ``(h, w)`` for a window of the scene's own pixels."""


@dataclass(frozen=True, slots=True)
class SmallEvidence:
    """Evidence of a scene, or of the window around an area of interest, that was seen as a whole at reduced size.

    Attributes:
        logits: Float32 ``(h, w)``, covering the window.
        window: In the scene's own pixels.
        presence: In [0, 1].
        unknown_words: Of the question.
    """

    logits: np.ndarray
    window: Window
    presence: float
    unknown_words: tuple[str, ...] = ()

    @property
    def highest(self) -> float:
        """The highest of the logits."""
        return float(self.logits.max())

    def threshold(self, settings: DecidingSettings) -> float:
        """As any picture's that is seen as a whole."""
        return float(threshold_of(torch.from_numpy(self.logits), settings))

    def read(self, window: Window) -> np.ndarray:
        """See :class:`Evidence`; linear between the small picture's pixels, and beyond it as at its border."""
        down, across = self.logits.shape[0] / self.window.height, self.logits.shape[1] / self.window.width
        rows = resampled(self.logits, -2, (window.top - self.window.top) * down, down, window.height)
        return resampled(rows, -1, (window.left - self.window.left) * across, across, window.width)


@dataclass(frozen=True, slots=True)
class SceneDecision:
    """What is decided of one question, once for the whole scene.

    Attributes:
        present: Whether the thing is there.
        threshold: Above it evidence belongs to the mask; infinite where the thing is not there.
    """

    present: bool
    threshold: float

    @classmethod
    def of(cls, evidence: Evidence, settings: DecidingSettings) -> SceneDecision:
        """Decides as :func:`segearth.inference.deciding.decide` does, without all logits at hand."""
        threshold = evidence.threshold(settings)
        present = evidence.presence >= settings.presence_threshold and evidence.highest > threshold
        return cls(present, threshold if present else np.inf)


class MeanProbability:
    """The mean probability inside a mask that is seen piece by piece."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, probabilities: np.ndarray, mask: np.ndarray) -> None:
        """Counts one piece; both are ``(h, w)``."""
        self._sum += float(probabilities.sum(where=mask, dtype=np.float64))
        self._count += int(np.count_nonzero(mask))

    @property
    def pixels(self) -> int:
        """Pixels of the mask so far."""
        return self._count

    def score(self, settings: DecidingSettings) -> float:
        """Returns the IoU to expect of the mask, in [0, 1]; 0 for an empty one."""
        return score_of(self._sum / self._count, *settings.score_curve) if self._count else 0.0


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Returns the logistic function of logits."""
    return torch.from_numpy(logits).sigmoid().numpy()


def strips_of(height: int, width: int, rows: int = ROWS_AT_ONCE) -> Iterator[Window]:
    """Cuts a scene into full-width strips from top to bottom."""
    for top in range(0, height, rows):
        yield Window(top, 0, min(rows, height - top), width)
