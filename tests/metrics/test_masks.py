from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.metrics import masks
from segearth.metrics.masks import count_pixels, mask_iou, pairwise_mask_iou

# One bit a pixel: much faster to draw than an array of booleans.
MASKS = st.integers(0, 2**20 - 1).map(lambda bits: (bits >> np.arange(20) & 1).astype(bool).reshape(4, 5))


def test_any_value_but_zero_is_mask():
    prediction = np.array([[255, 0, 2, 0]], np.uint8)
    target = np.array([[1, 255, 0, 0]], np.uint8)
    assert count_pixels(prediction, target) == {
        "intersection": 1, "union": 3, "target_area": 2, "predicted_area": 2,
    }  # fmt: skip
    assert mask_iou(prediction, target) == pytest.approx(1 / 3)


def test_unequal_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        count_pixels(np.ones((2, 3)), np.ones((3, 2)))


@given(MASKS, MASKS)
def test_iou_is_symmetric_bounded_and_one_only_for_equal_masks(a, b):
    iou = mask_iou(a, b)
    assert iou == mask_iou(b, a)
    assert 0 <= iou <= 1
    assert (iou == 1) == bool((a == b).all())


@given(MASKS, MASKS)
def test_counts_are_those_of_sets_of_pixels(a, b):
    predicted, target = (set(zip(*np.nonzero(mask), strict=True)) for mask in (a, b))
    assert count_pixels(a, b) == {
        "intersection": len(predicted & target),
        "union": len(predicted | target),
        "target_area": len(target),
        "predicted_area": len(predicted),
    }


def test_docstrings_hold():
    assert doctest.testmod(masks).failed == 0


@given(st.lists(MASKS, max_size=4), st.lists(MASKS, max_size=4))
def test_the_table_of_many_masks_is_that_of_single_ones(first, second):
    expected = [[mask_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(pairwise_mask_iou(first, second), np.array(expected).reshape(len(first), len(second)))


def test_masks_larger_than_a_block_are_summed_exactly(monkeypatch):
    monkeypatch.setattr("segearth.metrics.masks.BLOCK", 5)
    rng = np.random.default_rng(0)
    masks = rng.random((3, 7, 9)) < 0.5
    expected = [[mask_iou(a, b) for b in masks] for a in masks]
    np.testing.assert_array_equal(pairwise_mask_iou(masks, masks), expected)


def test_tables_of_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="height and width must be equal"):
        pairwise_mask_iou(np.ones((1, 2, 3)), np.ones((1, 3, 2)))
