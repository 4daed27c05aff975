from __future__ import annotations

import contextlib
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from segearth.errors import DatasetError
from segearth.utils import coco_masks
from segearth.utils.coco_masks import decode_cropped, decode_segmentation, encode_mask

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
        ([[0, 0, 10**400, 0, 2, 3]], "finite"),
        ([[True, 0, 3, 0, 3, 3]], "finite"),
        ([[0, 0, 3, 3]], "three or more"),  # pycocotools would take it for a box
        ({"size": [2, 2], "counts": ""}, "add up to 0"),
        ({"size": [2, 2], "counts": "1"}, "add up to 1"),
        ({"size": [2, 2], "counts": "T"}, "cut short"),
        ({"size": [2, 2], "counts": "o" * 7 + "0"}, "too long"),
        ({"size": [2, 2], "counts": "N"}, "a run of -2 pixels"),
        ({"size": [2, 2], "counts": "5"}, "a run of 5 pixels"),
        ({"size": [2, 2], "counts": "11\u00e9"}, "do not fit 2x2"),
        ({"size": [2, 2], "counts": "11\0"}, "characters"),
        ({"size": [0, 0], "counts": []}, "size of 0x0"),
        ({"size": [-2, -2], "counts": [4]}, "size of -2x-2"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "size of 1000000000x1000000000"),
        ({"size": [2.0, 2.0], "counts": [4]}, '"size"'),
        ({"size": "22", "counts": [4]}, '"size"'),
        ({"size": 2, "counts": [4]}, '"size"'),
        ({"size": [2, 2, 1], "counts": [4]}, '"size"'),
    ],
)
def test_contradictions_are_errors(segmentation, message):
    with pytest.raises(DatasetError, match=message):
        decode_segmentation(segmentation, 4, 4)


@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=20))
def test_any_text_is_a_mask_or_an_error(counts):
    with contextlib.suppress(DatasetError):
        assert decode_segmentation({"size": [5, 7], "counts": counts}, 1, 1).shape == (5, 7)


@given(MASKS)
def test_compressed_runs_are_counted_right(mask):
    runs = encode_mask(mask)
    assert coco_masks._total_of_compressed(runs["counts"].encode(), mask.size) == mask.size
    bitmap, (x0, y0, x1, y1) = decode_cropped(runs, *mask.shape)
    whole = np.zeros_like(mask)
    whole[y0:y1, x0:x1] = bitmap
    assert (whole == mask).all()
    assert not mask.any() or (bitmap.any(0)[[0, -1]].all() and bitmap.any(1)[[0, -1]].all())


def test_long_runs_are_counted_right():
    mask = np.zeros((3000, 2000), bool)
    mask[:, 900:1800] = True
    mask[5, 1999] = True
    assert (decode_segmentation(encode_mask(mask), 1, 1) == mask).all()


def test_a_cropped_mask_must_have_the_images_size():
    with pytest.raises(DatasetError, match=r"its size is \[2, 2\], the image's \[2, 3\]"):
        decode_cropped({"size": [2, 2], "counts": [4]}, 2, 3)
    bitmap, box = decode_cropped([], 2, 3)
    assert bitmap.size == 0 and box == (0, 0, 0, 0)


@pytest.fixture
def careful(monkeypatch):
    """Stands before pycocotools and fails where it would be sent far away, which takes gigabytes or the process."""
    original = coco.frPyObjects

    def checked(polygons, height, width):
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        assert np.isfinite(points).all() and np.abs(points).max() <= 2 * max(height, width)
        return original(polygons, height, width)

    monkeypatch.setattr(coco, "frPyObjects", checked)


def stars(scale, number):
    """Polygons of three to eight random corners around an image, ``scale`` times as wide, with the image's size."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        height, width = (int(side) for side in rng.integers(5, 60, 2))
        corners = (rng.random((rng.integers(3, 9), 2)) - 0.5) * scale * max(height, width)
        yield (corners + np.array([width / 2, height / 2])).ravel().tolist(), height, width


def unclipped(polygon, height, width):
    return coco.decode(coco.merge(coco.frPyObjects([polygon], height, width))).astype(bool)


@pytest.mark.parametrize("scale", [1, 1.9])
def test_polygons_that_leave_the_image_a_little_stay_exactly_as_they_were(scale):
    for star in stars(scale, 300):
        assert (decode_segmentation([star[0]], *star[1:]) == unclipped(*star)).all()


@pytest.mark.parametrize("scale", [10, 500])
def test_polygons_that_leave_it_far_keep_their_inside(scale):
    differing, pixels = 0, 0
    for polygon, height, width in stars(scale, 300):
        found, expected = decode_segmentation([polygon], height, width), unclipped(polygon, height, width)
        wider = unclipped([value + 2 for value in polygon], height + 4, width + 4)
        border = cv2.morphologyEx(wider.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))[2:-2, 2:-2] > 0
        assert not ((found != expected) & ~border).any()
        differing, pixels = differing + (found != expected).sum(), pixels + found.size
    assert differing < 0.001 * pixels


@pytest.mark.parametrize("far", [1e3, 1e12, 1e300, 1.7e308, 10**300])
@pytest.mark.usefixtures("careful")
def test_coordinates_of_any_size_are_cut_to_the_image(far):
    assert decode_segmentation([[-far, -far, far, -far, far, far, -far, far]], 8, 10).all()
    left_half = decode_segmentation([-far, -far, 5, -far, 5, far, -far, far], 8, 10)
    assert left_half[:, :5].all() and not left_half[:, 5:].any()
    assert not decode_segmentation([[far, 0, far, far, far / 2, far]], 8, 10).any()
    assert decode_segmentation([[far, 0, far, far, far / 2, far], [0, 0, 3, 0, 3, 2, 0, 2]], 8, 10).sum() == 6


def test_an_outline_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(coco_masks, "MAX_OUTLINE", 1000)
    around = [0, 0, 100, 0, 100, 100, 0, 100]
    assert decode_segmentation([around, around], 100, 100).all()
    for polygons in ([around] * 3, [around * 3]):
        with pytest.raises(DatasetError, match="outline is longer than 1000 pixels; give run lengths"):
            decode_segmentation(polygons, 100, 100)
