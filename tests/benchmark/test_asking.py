"""Timing through the public methods, on a clock that the segmenter turns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from segearth.benchmark import measure
from segearth.benchmark.asking import time_segmenter
from segearth.segmenter import Segmenter
from segearth.structures import Segmentation


class Slow:
    """Takes 2 s for an image and 1 s for each question; the first round, which does not count, takes longer."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock, self.asked, self.extra = clock, [], 100.0

    def set_image(self, image: object) -> None:
        self.clock.now += 2.0 + self.extra
        self.extra = 0.0

    def set_images(self, images: object) -> None:
        raise AssertionError("one image at a time is asked about")

    def predict(self, questions: list[str], **options: object) -> list[Segmentation]:
        self.clock.now += len(questions)
        self.asked.append(questions)
        return [Segmentation(text, np.zeros((8, 8), bool), 0.0, False, 0.0) for text in questions]


def test_any_segmenter_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    segmenter = Slow(clock)
    assert isinstance(segmenter, Segmenter)
    found = time_segmenter(segmenter, np.zeros((8, 8, 3), np.uint8), ["roofs", "roads"], counts=(1, 3), repeats=2)
    assert found == {"set_image": 2.0, "predict": {"1": 3.0, "3": 5.0}}
    assert segmenter.asked == [["roofs"], ["roofs", "roads", "roofs"]] * 3
