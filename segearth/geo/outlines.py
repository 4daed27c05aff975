"""Outlines with fewer corners: simplified with shared borders kept, or at right angles as buildings have them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from segearth.errors import MissingExtraError
from segearth.geo.packages import geo_package
from segearth.geo.tracing import joined

LEAST_IOU = 0.85  # with the region, below which a right-angled outline is not taken

_SHORTEST_SIDE = 1.5  # of a right-angled outline, in pixels: shorter ones are steps that the raster made
_AT_ONCE = 200  # polygons that are simplified together even though they are far apart: a call each would be slow
_GOOD_IOU = 0.9  # from which on no second direction is tried
_STEPS = 1.0  # tolerance in pixels at which the raster's steps disappear, so that directions can be read off

logger = logging.getLogger(__name__)


def simplified(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Leaves out corners that matter little; a border that two polygons share stays shared.

    Args:
        polygons: ``(N,)`` polygons and multipolygons.
        tolerance: In the polygons' unit: a corner goes where the triangle with its neighbours is smaller than its
            square (Visvalingam and Whyatt's measure, https://doi.org/10.1179/000870493786962263). 0 changes nothing.

    Returns:
        ``(N,)`` in the same order. No polygon vanishes, and none overlaps another that it did not overlap before. Where
        some overlap already there are no common borders to keep, and each is simplified by itself.

    Raises:
        MissingExtraError: shapely is missing or older than 2.1.
    """
    shapely: Any = geo_package("shapely")
    if not hasattr(shapely, "coverage_simplify"):
        raise MissingExtraError("shapely 2.1", "geo")
    if tolerance == 0 or not len(polygons):
        return polygons
    result = np.empty(len(polygons), object)
    for group in _neighbourhoods(polygons):
        together = [group] if shapely.coverage_is_valid(polygons[group]) else np.split(group, len(group))
        for numbers in together:
            result[numbers] = shapely.coverage_simplify(polygons[numbers], tolerance)
    return result


def _neighbourhoods(polygons: np.ndarray) -> list[np.ndarray]:
    """Groups polygons so that the bounding boxes of different groups do not touch; returns their numbers.

    An outline whose corners are fewer stays in its box, so groups cannot get in each other's way. Simplified all at
    once, ten thousand polygons would take five times as long.
    """
    shapely: Any = geo_package("shapely")
    boxes = shapely.box(*shapely.bounds(polygons).T)
    pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects").T
    root = joined(len(polygons), pairs[pairs[:, 0] < pairs[:, 1]])
    order = np.argsort(root, kind="stable")
    firsts = np.flatnonzero(np.append(True, np.diff(root[order]) > 0))
    apart = [0]  # at the first polygon of a neighbourhood, once enough have come together
    for first in firsts.tolist():
        if first - apart[-1] >= _AT_ONCE:
            apart.append(first)
    return np.split(order, apart[1:])


def right_angled(
    polygons: np.ndarray, otherwise: np.ndarray, frame: np.ndarray | None = None, least_iou: float = LEAST_IOU
) -> np.ndarray:
    """Draws outlines with right angles alone, in the direction of each region's longest sides.

    Sides are sorted into those along that direction and those across it. Neighbours of the same sort become one
    straight side at their mean place, steps shorter than 1.5 pixels go, and the sides are cut with each other.

    Args:
        polygons: ``(N,)`` exact outlines, in pixels.
        otherwise: ``(N,)`` what is taken where the result is not valid, has an IoU with the region below ``least_iou``,
            or would overlap another region.
        frame: ``(2, 2)``: takes a step in pixels to one on the ground, in which angles are right; ``None``: pixels are
            square. Its scale does not matter.
        least_iou: In [0, 1].

    Returns:
        ``(N,)`` in pixels. Touching regions do not keep their common border; they do not overlap either.
    """
    shapely: Any = geo_package("shapely")
    if not len(polygons):
        return polygons
    frame = np.eye(2) if frame is None else frame / np.linalg.norm(frame, axis=0).max()  # a pixel's longer side is 1
    ground = shapely.transform(polygons, lambda points: points @ frame.T)
    smooth = shapely.simplify(ground, _STEPS, preserve_topology=True)
    best, best_iou = otherwise.copy(), np.full(len(polygons), -1.0)
    for outlines in (smooth, shapely.oriented_envelope(smooth)):  # whose sides give the direction
        tried = np.flatnonzero(best_iou < _GOOD_IOU)
        angles = _directions(outlines[tried])
        drawn = np.array([_redrawn(smooth[n], angle) for n, angle in zip(tried, angles, strict=True)], object)
        valid = shapely.is_valid(drawn)
        tried, drawn = tried[valid], drawn[valid]
        common = shapely.area(shapely.intersection(drawn, ground[tried]))
        iou = common / (shapely.area(drawn) + shapely.area(ground[tried]) - common)
        better = (iou >= least_iou) & (iou > best_iou[tried])
        best[tried[better]] = shapely.transform(drawn[better], lambda points: points @ np.linalg.inv(frame).T)
        best_iou[tried[better]] = iou[better]
    changed = _without_overlaps(best, otherwise, best_iou >= 0)
    logger.info("%d of %d outlines have right angles", np.count_nonzero(changed), len(polygons))
    return np.where(changed, best, otherwise)


def _directions(polygons: np.ndarray) -> np.ndarray:
    """Returns the direction of each polygon's sides in radians, in [-pi/4, pi/4]: the mean, long sides counting more.

    Directions that differ by a right angle are the same here. So angles are multiplied by four before the mean is
    taken, which puts such directions on one another, and the mean is divided by four.
    """
    shapely: Any = geo_package("shapely")
    parts, polygon = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    of_one_ring = ring[1:] == ring[:-1]
    side = np.diff(points, axis=0)[of_one_ring]
    owner = polygon[part[ring[1:][of_one_ring]]]
    length, angle = np.hypot(side[:, 0], side[:, 1]), np.arctan2(side[:, 1], side[:, 0])
    upward, rightward = (
        np.bincount(owner, length**2 * turned, minlength=len(polygons))
        for turned in (np.sin(4 * angle), np.cos(4 * angle))
    )
    return np.arctan2(upward, rightward) / 4


def _redrawn(polygon: Any, angle: float) -> Any:
    """Returns a polygon or multipolygon with right angles alone, ``None`` where an outline has no such form."""
    shapely: Any = geo_package("shapely")
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    parts = []
    for part in shapely.get_parts(polygon):
        rings = [_redrawn_ring(np.asarray(ring.coords) @ turn) for ring in (part.exterior, *part.interiors)]
        if rings[0] is None:
            return None
        parts.append(shapely.Polygon(rings[0] @ turn.T, [ring @ turn.T for ring in rings[1:] if ring is not None]))
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _redrawn_ring(points: np.ndarray) -> np.ndarray | None:
    """Returns the ``(n, 2)`` corners of a closed ring drawn along the axes, ``None`` if fewer than four sides are left.

    Args:
        points: ``(m, 2)``, the last like the first.
    """
    step = np.abs(points[1:] - points[:-1])
    flat = step[:, 0] >= step[:, 1]
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if len(turns) < 3:
        return None
    # Begin where the sort changes, so that no run of sides of one sort lies across the end.
    around = np.append(np.arange(turns[0], len(flat)), np.arange(turns[0]))
    flat = flat[around]
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    weight = step.max(axis=1)[around]
    middle = (points[1:] + points[:-1])[around] / 2
    place = np.where(flat, middle[:, 1], middle[:, 0])
    weights = np.add.reduceat(weight, starts)
    places, weights = (np.add.reduceat(weight * place, starts) / weights).tolist(), weights.tolist()
    first_is_flat = bool(flat[0])
    while True:
        count = len(places)
        lengths = [abs(places[(k + 1) % count] - places[k - 1]) for k in range(count)]
        shortest = min(range(count), key=lengths.__getitem__)
        if lengths[shortest] >= _SHORTEST_SIDE:
            break
        if count == 4:
            return None
        # The sides before and after the shortest are of one sort and become one.
        before, after = (shortest - 1) % count, (shortest + 1) % count
        total = weights[before] + weights[after]
        places[before] = (places[before] * weights[before] + places[after] * weights[after]) / total
        weights[before] = total
        for gone in sorted((shortest, after), reverse=True):
            del places[gone], weights[gone]
        if after == 0:  # the first side went and the second, which is of the other sort, is the first now
            first_is_flat = not first_is_flat
    corners = np.array([places, places[1:] + places[:1]]).T  # of each side with the next: x and y, or y and x
    flat_sides = slice(0 if first_is_flat else 1, None, 2)
    corners[flat_sides] = corners[flat_sides, ::-1]
    return corners


def _without_overlaps(drawn: np.ndarray, otherwise: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Returns which outlines may stay as drawn, ``(N,)`` booleans: those that overlap another one go."""
    shapely: Any = geo_package("shapely")
    changed = changed.copy()
    while changed.any():  # one that goes leaves its place to another outline, which may overlap the next
        now = np.where(changed, drawn, otherwise)
        one, other = shapely.STRtree(now).query(now[changed], predicate="intersects")
        one = np.flatnonzero(changed)[one]
        pairs = one != other
        one, other = one[pairs], other[pairs]
        overlap = shapely.relate_pattern(now[one], now[other], "T********")
        if not overlap.any():
            break
        changed[one[overlap]] = False
    return changed
