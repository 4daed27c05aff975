from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segearth.errors import MissingExtraError
from segearth.geo.outlines import _redrawn_ring, right_angled, simplified
from segearth.geo.tracing import trace

shapely = pytest.importorskip("shapely", minversion="2.1")
cv2 = pytest.importorskip("cv2")


def polygons_of(raster: np.ndarray) -> np.ndarray:
    return trace([(raster, None)], raster.shape[1]).polygons


def building(*sides: float, degrees: float = 0, size: int = 90, notch: bool = False) -> np.ndarray:
    """A mask of a rectangle, or one without a quarter, turned about the middle of the image."""
    mask = np.zeros((size, size), np.uint8)
    wide, high = sides[0] / 2, sides[1] / 2
    corners = [(-wide, -high), (wide, -high), (wide, high), (-wide, high)]
    if notch:
        corners = [(-wide, -high), (0, -high), (0, 0), (wide, 0), (wide, high), (-wide, high)]
    turn = np.radians(degrees)
    turned = np.array(corners) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + size / 2
    cv2.fillPoly(mask, [np.round(turned).astype(np.int32)], 1)
    return mask.astype(bool)


def cosines(polygon: object) -> np.ndarray:
    """Of the corners of all rings: 0 is a right angle."""
    found = []
    for ring in shapely.get_rings(shapely.get_parts(polygon)):
        side = np.diff(shapely.get_coordinates(ring), axis=0)
        side /= np.linalg.norm(side, axis=1)[:, None]
        found.append((side * np.roll(side, 1, axis=0)).sum(axis=1))
    return np.concatenate(found)


def iou(one: object, other: object) -> float:
    return shapely.area(shapely.intersection(one, other)) / shapely.area(shapely.union(one, other))


# Blocks of a few pixels, so that there is something to simplify.
LABELS = arrays.arrays(np.uint8, (7, 7), elements=st.integers(0, 3)).map(
    lambda blocks: np.kron(blocks, np.ones((3, 3), np.uint8))
)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.sampled_from([1.0, 2.5, 5.0]))
def test_simplified_touching_polygons_leave_no_gap_and_do_not_overlap(labels: np.ndarray, tolerance: float) -> None:
    labels = np.maximum(labels, 1)  # all covered, so that every inner border is shared
    before = polygons_of(labels)
    after = simplified(before, tolerance)
    assert shapely.is_valid(after).all()
    assert shapely.coverage_is_valid(after)
    whole = shapely.union_all(after)
    assert sum(shapely.area(after)) == pytest.approx(whole.area)  # no overlap
    assert not shapely.get_num_interior_rings(shapely.get_parts(whole)).any()  # no gap


@settings(max_examples=60, deadline=None)
@given(LABELS, st.sampled_from([1.0, 4.0]))
def test_simplified_polygons_stay_apart(labels: np.ndarray, tolerance: float) -> None:
    after = simplified(polygons_of(labels), tolerance)
    one, other = shapely.STRtree(after).query(after, predicate="intersects")
    pairs = one < other
    assert not shapely.relate_pattern(after[one[pairs]], after[other[pairs]], "T********").any()


def test_simplified_takes_a_staircase_for_its_slope() -> None:
    (before,) = polygons_of(np.tri(30, dtype=bool))
    (after,) = simplified(np.array([before]), 1.0)
    assert len(before.exterior.coords) > 60
    assert len(after.exterior.coords) < 8
    assert iou(before, after) > 0.95


def test_groups_far_apart_are_simplified_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segearth.geo.outlines._AT_ONCE", 2)
    rng = np.random.default_rng(0)
    raster = np.kron(rng.integers(1, 3, (16, 16)) * (rng.random((16, 16)) > 0.6), np.ones((3, 3), int))
    polygons = polygons_of(raster)
    after = simplified(polygons, 2.0)
    together = shapely.coverage_simplify(polygons, 2.0)
    assert len(polygons) > 25
    assert all(a.equals(b) for a, b in zip(after, together, strict=True))


def test_what_overlaps_already_is_simplified_by_itself() -> None:
    rng = np.random.default_rng(0)
    crossing = np.concatenate(
        [polygons_of(np.kron(rng.random((8, 8)) > 0.4, np.ones((3, 3))) > 0)[:1] for _ in range(2)]
    )
    after = simplified(crossing, 4.0)
    assert not shapely.coverage_is_valid(crossing)
    assert after[0].equals(simplified(crossing[:1], 4.0)[0])
    assert after[1].equals(simplified(crossing[1:], 4.0)[0])


def test_an_old_shapely_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(shapely, "coverage_simplify")
    with pytest.raises(MissingExtraError, match=r"shapely 2\.1.*segearth\[geo\]"):
        simplified(np.array([shapely.box(0, 0, 1, 1)]), 1.0)


@pytest.mark.parametrize("degrees", [0, 7, 25, 45, 80, 110])
@pytest.mark.parametrize("notch", [False, True])
def test_right_angles_of_a_turned_building(degrees: float, notch: bool) -> None:
    exact = polygons_of(building(50, 32, degrees=degrees, notch=notch))
    (drawn,) = right_angled(exact, exact)
    assert drawn.is_valid
    assert np.abs(cosines(drawn)).max() < 1e-6
    assert len(drawn.exterior.coords) == (7 if notch else 5)
    assert iou(drawn, exact[0]) > 0.95


@pytest.mark.parametrize("first", range(6))
def test_a_short_step_becomes_one_straight_side_wherever_the_ring_begins(first: int) -> None:
    # Two halves of a side, ten long each, a step of 1 apart: their mean is half way.
    ring = np.roll(np.array([(10, 0), (10, 1), (20, 1), (20, 12), (0, 12), (0, 0)], float), -first, axis=0)
    corners = _redrawn_ring(np.vstack([ring, ring[:1]]))
    assert corners is not None
    assert sorted(map(tuple, corners.tolist())) == [(0, 0.5), (0, 12), (20, 0.5), (20, 12)]
    assert shapely.Polygon(corners).is_valid


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_right_angles_are_right_or_the_outline_is_kept(labels: np.ndarray) -> None:
    exact = polygons_of(labels)
    marker = np.array([shapely.Point(-9, -9)] * len(exact), object)
    drawn = right_angled(exact, marker, least_iou=0.7)
    for before, after in zip(exact, drawn, strict=True):
        if after.geom_type == "Point":
            continue
        assert after.is_valid
        assert np.abs(cosines(after)).max() < 1e-6
        assert iou(before, after) >= 0.7 - 1e-9
    one, other = shapely.STRtree(drawn).query(drawn, predicate="intersects")
    pairs = (one < other) & (shapely.get_dimensions(drawn[one]) == 2) & (shapely.get_dimensions(drawn[other]) == 2)
    assert not shapely.relate_pattern(drawn[one[pairs]], drawn[other[pairs]], "T********").any()


def test_what_is_round_is_left_as_it_was() -> None:
    mask = np.zeros((80, 80), np.uint8)
    cv2.circle(mask, (40, 40), 30, 1, -1)
    exact = polygons_of(mask.astype(bool))
    assert right_angled(exact, exact, least_iou=0.95)[0] is exact[0]


def test_angles_are_right_on_the_ground_where_pixels_are_not_square() -> None:
    # A degree of longitude is half as long at 60 degrees north: a square turned by 30 degrees looks skewed in pixels.
    mask = building(40, 40, degrees=30)
    wide = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=1, interpolation=cv2.INTER_NEAREST).astype(bool)
    exact, frame = polygons_of(wide), np.diag([0.5e-5, -1e-5])
    (drawn,) = right_angled(exact, exact, frame)
    on_ground = shapely.transform(drawn, lambda points: points @ frame.T)
    assert np.abs(cosines(on_ground)).max() < 1e-6
    assert len(drawn.exterior.coords) == 5
    assert iou(drawn, exact[0]) > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1)])
def test_what_is_too_thin_to_draw_is_left_as_it_was(size: tuple[int, int]) -> None:
    exact = polygons_of(np.pad(np.ones(size, bool), 3))
    assert right_angled(exact, exact)[0] is exact[0]


def test_a_courtyard_stays() -> None:
    mask = building(60, 60, degrees=20) & ~building(20, 20, degrees=20)
    exact = polygons_of(mask)
    (drawn,) = right_angled(exact, exact)
    assert len(drawn.interiors) == 1
    assert np.abs(cosines(drawn)).max() < 1e-6


def test_outlines_that_would_overlap_are_kept_as_they_were() -> None:
    # The diagonal border of two triangles becomes steps on neither side: two drawn boxes would lie on one another.
    mask = np.tri(40, dtype=np.uint8) + 1
    exact = polygons_of(mask)
    drawn = right_angled(exact, exact, least_iou=0.1)
    assert not shapely.relate_pattern(*drawn, "T********")


def test_nothing_to_draw() -> None:
    nothing = np.zeros(0, object)
    assert len(simplified(nothing, 1.0)) == len(right_angled(nothing, nothing)) == 0
