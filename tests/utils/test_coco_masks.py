from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segearth.errors import DatasetError
from segearth.utils.coco_masks import decode_segmentation, encode_mask

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@given(MASKS)
def test_encoding_comes_back_through_json(mask):
    assert (decode_segmentation(json.loads(json.dumps(encode_mask(mask))), 1, 1) == mask).all()


@given(MASKS)
def test_runs_as_numbers_equal_runs_as_text(mask):
    column_wise = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], column_wise)).astype(int)) != 0)
    counts = np.diff(np.concatenate(([0], edges, [mask.size]))).tolist()
    decoded = decode_segmentation({"size": list(mask.shape), "counts": counts}, 1, 1)
    assert (decoded == mask).all()


def test_worked_example():
    # 2 rows, 3 columns, read down the columns: one off, three on, two off
    mask = decode_segmentation({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3)
    assert mask.tolist() == [[False, True, False], [True, True, False]]


def test_parts_are_united():
    left, right = [0, 0, 3, 0, 3, 2, 0, 2], [2, 0, 4, 0, 4, 2, 2, 2]
    mask = decode_segmentation([left, right], 3, 5)
    assert mask.dtype == bool and mask.sum() == 8 and mask[:2, :4].all()
    runs = [encode_mask(decode_segmentation(part, 3, 5)) for part in (left, right)]
    assert (decode_segmentation(runs, 9, 9) == mask).all()


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_is_an_empty_mask(nothing):
    assert decode_segmentation(nothing, 2, 3).tolist() == [[False] * 3] * 2


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("abc", "segmentation is str"),
        ([[0, 0, 1, 1]], "three or more"),
        ([[0, 0, 1, 1, 2, 2, 3]], "three or more"),
        ([[0, 0, 1, 1, 2, float("nan")]], "finite"),
        ([[0, 0, 1, 1, 2, "x"]], "three or more"),
        ([[0, 0, 3, 0, 3, 3], {"size": [1, 1], "counts": [1]}], "mixes"),
        ({"counts": [1]}, '"size"'),
        ({"size": [2, 2]}, '"counts"'),
        ({"size": [2, 2], "counts": 4}, '"counts" must be'),
        ({"size": [2, 2], "counts": [1, 2]}, "add up to 3, not to 4"),
        ({"size": [2, 2], "counts": [5, -1]}, '"counts" must be'),
        ({"size": [2, 2], "counts": [1, "x"]}, '"counts" must be'),
        ({"size": [2, 2], "counts": "zzzz"}, "do not fit 2x2"),
        ([{"size": [1, 1], "counts": [1]}, {"size": [1, 2], "counts": [2]}], "different sizes"),
    ],
)
def test_contradictions_are_errors(segmentation, message):
    with pytest.raises(DatasetError, match=message):
        decode_segmentation(segmentation, 4, 4)


@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=20))
def test_any_text_is_a_mask_or_an_error(counts):
    with contextlib.suppress(DatasetError):
        assert decode_segmentation({"size": [5, 7], "counts": counts}, 1, 1).shape == (5, 7)
