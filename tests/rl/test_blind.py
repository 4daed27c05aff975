from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segearth.errors import NothingToFitError
from segearth.metrics.boxes import box_iou
from segearth.prompting.answers import Instance, ParsedAnswer
from segearth.rl.blind import best_blind_box, measure_sight
from segearth.structures import Question, Region, Regions, Sample


def test_equal_targets_are_found_exactly() -> None:
    box, value = best_blind_box([[[0.25, 0.5, 0.75, 1.0]]] * 3)
    assert box.tolist() == [0.25, 0.5, 0.75, 1.0] and value == 1.0


def test_sides_between_the_grids_lines_are_found() -> None:
    box, value = best_blind_box([[[0.1, 0.2, 0.43, 0.77]]])
    assert value > 0.97 and np.abs(box - [0.1, 0.2, 0.43, 0.77]).max() <= 1 / 256 + 1e-9


def test_of_two_places_the_frequent_one_wins() -> None:
    rare, often = [[0.0, 0.0, 0.25, 0.25]], [[0.5, 0.5, 0.75, 0.75]]
    box, value = best_blind_box([rare, often, often])
    assert box.tolist() == often[0] and value == pytest.approx(2 / 3)


def test_of_several_targets_one_is_met() -> None:
    both = [[0.0, 0.0, 0.25, 0.25], [0.5, 0.5, 0.75, 0.75]]
    assert best_blind_box([both])[1] == pytest.approx(0.5)
    with pytest.raises(NothingToFitError):
        best_blind_box([np.zeros((0, 4))])


def test_no_box_of_a_grid_does_better() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((40, 2, 2)), axis=1)
    targets = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    _, value = best_blind_box([each[None] for each in targets])
    steps = np.arange(9) / 8
    tried = [(a, b, c, d) for a in steps for b in steps for c in steps for d in steps if a < c and b < d]
    assert value >= box_iou(tried, targets).mean(axis=1).max() - 1e-9


def sample(number: int, box: tuple[int, int, int, int]) -> Sample:
    x0, y0, x1, y1 = box
    image = np.full((40, 40, 3), number, np.uint8)
    region = Region(np.ones((y1 - y0, x1 - x0), bool), x0, y0)
    return Sample(str(number), image, [Question("it", target=Regions(region.in_image(40, 40), (region,)))])


class Looking:
    """A policy that answers with what it is told of each image, found by its pixels."""

    def __init__(self, boxes: list[tuple[int, int, int, int] | None]) -> None:
        self.boxes = boxes

    def ask(self, images: list[Any], questions: list[str]) -> list[ParsedAnswer]:
        found = [self.boxes[int(image[0, 0, 0])] for image in images]
        return [
            ParsedAnswer("", "", "", None if box is None else (Instance(box=tuple(map(float, box))),), True, True)
            for box in found
        ]


BOXES: list[tuple[int, int, int, int]] = [(0, 0, 10, 10), (20, 20, 40, 40), (0, 20, 10, 40)]
SAMPLES = [sample(number, box) for number, box in enumerate(BOXES)]


def test_who_looks_loses_all_on_other_images() -> None:
    sight = measure_sight(Looking([*BOXES]), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert (sight.policy, sight.shuffled, sight.readable, sight.questions) == (1.0, 0.0, 1.0, 3)
    assert sight.blind == pytest.approx(1 / 3)


def test_who_answers_the_same_box_loses_nothing_and_unreadable_answers_count_as_zero() -> None:
    same = measure_sight(Looking([BOXES[0]] * 3), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert same.policy == same.shuffled == pytest.approx(1 / 3)
    mute = measure_sight(Looking([None, BOXES[1], None]), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert mute.policy == pytest.approx(1 / 3) and mute.readable == pytest.approx(1 / 3)
    with pytest.raises(NothingToFitError, match="two images"):
        measure_sight(Looking([*BOXES]), SAMPLES[:1], SAMPLES)  # type: ignore[arg-type]


def test_boxes_of_the_wrong_size_are_told_from_those_of_the_wrong_place() -> None:
    small = [(2.5, 2.5, 7.5, 7.5), (25, 25, 35, 35), (2.5, 25, 7.5, 35)]  # half of each side
    seen = measure_sight(Looking(small), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert (seen.policy, seen.factor, seen.stretched) == (0.25, 2.0, 1.0)
    right = measure_sight(Looking([*BOXES]), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert (right.stretched, right.factor) == (1.0, 1.0)
    elsewhere = measure_sight(Looking([BOXES[1], BOXES[0], None]), SAMPLES, SAMPLES)  # type: ignore[arg-type]
    assert elsewhere.stretched == 0.0
