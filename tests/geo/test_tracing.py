from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segearth.geo.tracing import Traced, joined, trace
from segearth.structures import connected_regions

shapely = pytest.importorskip("shapely")
features = pytest.importorskip("rasterio.features")

SIZES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
RASTERS = st.one_of(arrays.arrays(bool, SIZES), arrays.arrays(np.uint8, SIZES, elements=st.integers(0, 2)))


def traced(raster: np.ndarray, rows: int = 100, scores: np.ndarray | None = None) -> Traced:
    return trace(
        ((raster[y : y + rows], None if scores is None else scores[y : y + rows]) for y in range(0, len(raster), rows)),
        raster.shape[1],
    )


def mask_of(*lines: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in lines])


@settings(max_examples=150, deadline=None)
@given(RASTERS)
def test_polygons_rasterise_to_the_raster_and_have_its_area(raster: np.ndarray) -> None:
    found = traced(raster)
    assert shapely.is_valid(found.polygons).all()
    np.testing.assert_array_equal(shapely.area(found.polygons), found.pixels)
    painted = np.zeros(raster.shape, np.int32)
    if len(found.polygons):
        painted = features.rasterize(
            zip(found.polygons, found.values.tolist(), strict=True), raster.shape, dtype="int32"
        )
    np.testing.assert_array_equal(painted, raster)


@settings(max_examples=150, deadline=None)
@given(RASTERS, st.integers(1, 4))
def test_strips_change_nothing(raster: np.ndarray, rows: int) -> None:
    scores = np.arange(raster.size, dtype=np.float64).reshape(raster.shape)
    whole, cut = traced(raster, scores=scores), traced(raster, rows, scores)
    assert [polygon.wkt for polygon in cut.polygons] == [polygon.wkt for polygon in whole.polygons]
    np.testing.assert_array_equal(cut.pixels, whole.pixels)
    np.testing.assert_array_equal(cut.values, whole.values)
    np.testing.assert_allclose(cut.scores, whole.scores)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, SIZES))
def test_regions_are_those_of_the_answer_in_its_order(mask: np.ndarray) -> None:
    regions, found = connected_regions(mask), traced(mask)
    assert found.pixels.tolist() == [region.area for region in regions]
    corners = [(region.box[1], region.box[0]) for region in regions]
    assert [(y0, x0) for x0, y0, _, _ in shapely.bounds(found.polygons).reshape(-1, 4)] == corners


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (mask_of("....", ".##.", "...."), "POLYGON ((1 1, 3 1, 3 2, 1 2, 1 1))"),
        (mask_of("###", "#.#", "###"), "POLYGON ((0 0, 3 0, 3 3, 0 3, 0 0), (2 1, 1 1, 1 2, 2 2, 2 1))"),
        # Two pixels that touch at a corner are one region of two polygons.
        (mask_of("#.", ".#"), "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 1, 0 0)), ((1 1, 2 1, 2 2, 1 2, 1 1)))"),
        # A ring closed at a corner alone: its hole touches its outline there.
        (mask_of("##.", "#.#", "###"), "POLYGON ((0 0, 2 0, 2 1, 3 1, 3 3, 0 3, 0 0), (2 1, 1 1, 1 2, 2 2, 2 1))"),
        # Two empty pixels that touch at a corner are two holes.
        (
            mask_of("####", "#.##", "##.#", "####"),
            "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (2 1, 1 1, 1 2, 2 2, 2 1), (3 2, 2 2, 2 3, 3 3, 3 2))",
        ),
    ],
)
def test_worked_examples(mask: np.ndarray, expected: str) -> None:
    (polygon,) = traced(mask).polygons
    assert polygon.is_valid
    assert polygon.normalize().equals_exact(shapely.from_wkt(expected).normalize())


def test_touching_polygons_share_all_points_of_their_border() -> None:
    # The lower side of the first has a point where the other two meet.
    raster = np.array([[1, 1, 1, 1], [2, 3, 3, 2]], np.uint8)
    found = traced(raster)
    assert found.values.tolist() == [1, 3, 2, 2]
    assert shapely.coverage_is_valid(found.polygons)
    expected = shapely.from_wkt("POLYGON ((0 0, 4 0, 4 1, 3 1, 1 1, 0 1, 0 0))")
    assert found.polygons[0].normalize().equals_exact(expected.normalize())
    assert shapely.coverage_is_valid(traced(raster.T).polygons)
    assert shapely.coverage_is_valid(traced(raster[::-1]).polygons)
    assert shapely.coverage_is_valid(traced(raster.T[:, ::-1]).polygons)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.uint8, SIZES, elements=st.integers(0, 3)), st.integers(1, 4))
def test_polygons_of_values_are_a_coverage(raster: np.ndarray, rows: int) -> None:
    found = traced(raster, rows)
    if len(found.polygons):
        assert shapely.coverage_is_valid(found.polygons)


def test_a_region_inside_the_hole_of_another_is_its_own() -> None:
    found = traced(mask_of("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert found.pixels.tolist() == [16, 1]
    assert [len(polygon.interiors) for polygon in found.polygons] == [1, 0]


def test_mean_scores_leave_out_what_is_not_finite() -> None:
    mask = mask_of("##..#", ".....", "...#.")
    scores = np.zeros(mask.shape)
    scores[0, :2], scores[0, 4], scores[2, 3] = [0.2, 0.6], np.nan, 0.9
    np.testing.assert_allclose(traced(mask, 1, scores).scores, [0.4, np.nan, 0.9])
    assert np.isnan(traced(mask).scores).all()


def test_nothing_to_trace() -> None:
    assert len(traced(np.zeros((3, 4), bool)).polygons) == 0
    assert traced(np.zeros((3, 4), bool)).scores.shape == (0,)


def test_joined() -> None:
    assert joined(7, np.array([[5, 3], [1, 2], [3, 2], [4, 4]])).tolist() == [0, 1, 1, 1, 4, 1, 6]
