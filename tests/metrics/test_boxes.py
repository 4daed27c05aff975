from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.metrics.boxes import (
    as_boxes,
    box_area,
    box_giou,
    box_iou,
    centre_distance,
    clip_boxes,
    rotated_box_iou,
    rotated_to_horizontal,
)

any_number = st.floats(allow_nan=True, allow_infinity=True)
near_number = st.floats(-100, 100)
sets_of_any = st.lists(st.tuples(*[any_number] * 4), max_size=5)
sets_of_boxes = st.lists(st.tuples(*[st.integers(0, 20)] * 4), min_size=1, max_size=5)
turned = st.lists(
    st.tuples(near_number, near_number, st.floats(0.1, 50), st.floats(0.1, 50), st.floats(-400, 400)),
    min_size=1, max_size=3,
)  # fmt: skip


def test_worked_overlaps():
    a = [0, 0, 10, 10]
    assert box_iou(a, a)[0, 0] == 1
    assert box_iou(a, [5, 5, 15, 15])[0, 0] == pytest.approx(25 / 175)
    assert box_iou(a, [10, 0, 20, 10])[0, 0] == 0  # they touch
    assert box_giou(a, [10, 0, 20, 10])[0, 0] == pytest.approx(0)  # nothing between them is left uncovered
    assert box_giou(a, [5, 5, 15, 15])[0, 0] == pytest.approx(25 / 175 - 50 / 225)


def test_worked_positional_value_of_the_facts_page():
    """100 x 100 image, centres 25 pixels apart in x: a reward exp(-d / 0.25) is 1/e."""
    distance = centre_distance([0, 0, 10, 10], [25, 0, 35, 10], height=100, width=100)
    assert math.exp(-distance[0, 0] / 0.25) == pytest.approx(0.367879, abs=1e-6)


def test_distance_is_unchanged_by_uniform_scaling_and_counts_each_side_apart():
    a, b = np.array([0, 0, 10, 10]), np.array([30, 40, 50, 50])
    assert centre_distance(3 * a, 3 * b, 300, 600) == pytest.approx(centre_distance(a, b, 100, 200))
    assert centre_distance(a, [20, 0, 30, 10], 100, 200)[0, 0] == pytest.approx(0.1)
    assert centre_distance(a, [0, 20, 10, 30], 100, 200)[0, 0] == pytest.approx(0.2)


@pytest.mark.parametrize("function", [box_iou, box_giou, rotated_box_iou])
def test_no_boxes_give_an_empty_table(function):
    some = [[0, 0, 1, 1, 0]] if function is rotated_box_iou else [[0, 0, 1, 1]]
    assert function([], some).shape == (0, 1)
    assert function(some, []).shape == (1, 0)
    assert function([], []).shape == (0, 0)


def test_reversed_corners_are_exchanged():
    assert box_iou([10, 10, 0, 0], [0, 0, 10, 10])[0, 0] == 1
    assert box_area([10, 0, 0, 5])[0] == 50


def test_a_box_with_a_nan_overlaps_nothing_and_its_neighbours_keep_their_values():
    boxes = [[0, 0, 10, 10], [math.nan, 0, 10, 10]]
    assert box_iou(boxes, boxes).tolist() == [[1, 0], [0, 0]]
    assert box_giou(boxes, boxes).tolist() == [[1, -1], [-1, -1]]
    assert box_area(boxes).tolist() == [100, 0]
    assert centre_distance(boxes, boxes, 10, 10).tolist() == [[0, math.inf], [math.inf, math.inf]]


def test_a_box_without_area_overlaps_nothing():
    assert box_iou([5, 0, 5, 10], [[5, 0, 5, 10], [0, 0, 10, 10]]).tolist() == [[0, 0]]
    assert box_giou([5, 5, 5, 5], [5, 5, 5, 5])[0, 0] == -1


def test_infinite_boxes_are_cut():
    huge = [-math.inf, -1e300, math.inf, 1e300]
    assert box_area(huge)[0] == pytest.approx(4e18)
    assert box_iou(huge, huge)[0, 0] == 1
    assert clip_boxes(huge, height=20, width=30).tolist() == [[0, 0, 30, 20]]


def test_clipping_keeps_the_rows_of_boxes_outside():
    assert clip_boxes([[-5, -5, 5, 5], [40, 0, 50, 10]], 20, 30).tolist() == [[0, 0, 5, 5], [30, 0, 30, 10]]


@pytest.mark.parametrize("bad", ["box", [["a"] * 4], [[1, 2, 3]], [[1, 2, 3, 4], [1, 2]], np.zeros((2, 2, 4))])
def test_what_is_no_box_is_refused_with_the_form_that_is_wanted(bad):
    with pytest.raises(ValueError, match="left, top, right, bottom"):
        as_boxes(bad)


@given(sets_of_any, sets_of_any)
def test_any_numbers_give_values_in_range_and_symmetry(first, second):
    iou, giou = box_iou(first, second), box_giou(first, second)
    assert iou.shape == giou.shape == (len(first), len(second))
    assert ((iou >= 0) & (iou <= 1)).all() and ((giou >= -1) & (giou <= 1)).all()
    assert (giou <= iou + 1e-9).all()
    np.testing.assert_array_equal(iou.T, box_iou(second, first))
    np.testing.assert_array_equal(giou.T, box_giou(second, first))


@given(sets_of_boxes, st.randoms())
def test_order_of_boxes_only_moves_rows(boxes, random):
    order = list(range(len(boxes)))
    random.shuffle(order)
    np.testing.assert_array_equal(box_iou(boxes, boxes)[order], box_iou([boxes[i] for i in order], boxes))


@given(sets_of_boxes)
def test_iou_is_that_of_drawn_pixels(boxes):
    from segearth.metrics.masks import pairwise_mask_iou

    ordered = as_boxes(boxes).astype(int)
    masks = np.zeros((len(boxes), 20, 20), bool)
    for mask, (left, top, right, bottom) in zip(masks, ordered, strict=True):
        mask[top:bottom, left:right] = True
    drawn = masks.any(axis=(1, 2))
    expected = pairwise_mask_iou(masks[drawn], masks[drawn])
    np.testing.assert_allclose(box_iou(boxes, boxes)[np.ix_(drawn, drawn)], expected)


def test_worked_rotated_overlaps():
    square = [50, 50, 10, 10, 0]
    assert rotated_box_iou(square, square)[0, 0] == pytest.approx(1)
    assert rotated_box_iou(square, [50, 50, 10, 10, 90])[0, 0] == pytest.approx(1, abs=1e-5)
    octagon = 200 * (math.sqrt(2) - 1)  # the corners of each stand out of the other; the octagon between is shared
    assert rotated_box_iou([50, 50, 10, 10, 0], [50, 50, 10, 10, 45])[0, 0] == pytest.approx(
        octagon / (200 - octagon), abs=1e-4
    )
    assert rotated_box_iou(square, [50, 50, 0, 10, 0])[0, 0] == 0
    assert rotated_box_iou(square, [math.nan, 50, 10, 10, 0])[0, 0] == 0


@settings(deadline=None)
@given(turned, turned)
def test_rotated_overlap_is_in_range_and_symmetric(first, second):
    iou = rotated_box_iou(first, second)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_allclose(iou.T, rotated_box_iou(second, first), atol=1e-9)


@settings(deadline=None)
@given(turned)
def test_every_rotated_box_is_itself_also_turned_by_half(boxes):
    turned_by_half = [(x, y, w, h, turn + 180) for x, y, w, h, turn in boxes]
    np.testing.assert_allclose(np.diag(rotated_box_iou(boxes, turned_by_half)), 1, atol=1e-9)


@settings(deadline=None)
@given(sets_of_boxes, sets_of_boxes)
def test_rotated_boxes_that_stand_upright_overlap_as_upright_ones(first, second):
    def as_rotated(boxes):
        ordered = as_boxes(boxes)
        sides = ordered[:, 2:] - ordered[:, :2]
        return np.concatenate([ordered[:, :2] + sides / 2, sides, np.zeros((len(boxes), 1))], axis=1)

    iou = rotated_box_iou(as_rotated(first), as_rotated(second))
    np.testing.assert_allclose(iou, box_iou(first, second), atol=1e-9)
    np.testing.assert_allclose(rotated_to_horizontal(as_rotated(first)), as_boxes(first))


def test_a_thin_box_within_a_wide_one_is_exact():
    """OpenCV's intersection of the two is 4 % too small."""
    iou = rotated_box_iou([0, 0, 26.5, 6.75, 73.40625], [0, 0, 26.5, 0.1015625, 73.40625])
    assert iou[0, 0] == pytest.approx(0.1015625 / 6.75)


def test_far_away_rotated_boxes_keep_their_precision():
    """In 32 bits two places a hundredth apart at a million are one."""
    iou = rotated_box_iou([1e6, 1e6, 0.1, 0.1, 0], [1e6 + 0.05, 1e6, 0.1, 0.1, 0])
    assert iou[0, 0] == pytest.approx(1 / 3, abs=1e-4)


def test_a_thousand_boxes_against_a_thousand_take_no_loop():
    boxes = np.random.default_rng(0).uniform(0, 1000, (1000, 4))
    start = time.perf_counter()
    box_iou(boxes, boxes)
    assert time.perf_counter() - start < 2  # a loop over a million pairs takes several
