"""Settles on the whole scene what no tile can see: the largest of all, the nearest to another, those in the north.

Works on the outlines of what the tiles found, in pixels of the scene (x to the right, y down). Distances are measured
on the ground, in metres, where the scene tells how large a pixel is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import QuestionError
from segearth.geo.scene_questions import Condition

if TYPE_CHECKING:
    from shapely import Geometry

LONG = 0.5  # a shape that spans more than this share of a region, as a road does, is cut at the region's border


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a scene's grid.

    Attributes:
        height: In pixels.
        width: In pixels.
        metres_per_pixel: Along x and along y; ``None`` where the scene does not tell.
        north: Unit vector in pixels that points north on the map; ``None`` without a map.
    """

    height: int
    width: int
    metres_per_pixel: tuple[float, float] | None = None
    north: tuple[float, float] | None = None


def check_settleable(conditions: Sequence[Condition], ground: Ground) -> None:
    """Checks that a scene tells what conditions need; call it before tiles are asked for candidates.

    Raises:
        QuestionError: A condition needs metres or directions of the compass, and the scene has no map.
    """
    for condition in conditions:
        if condition.of_compass and ground.north is None:
            raise QuestionError(
                "the scene has no map, so that nobody knows where north is; ask for left, right, upper or lower instead"
            )
        if condition.kind in ("within", "beyond") and not condition.in_pixels and ground.metres_per_pixel is None:
            raise QuestionError(
                f"{condition.length:g} metres cannot be measured, since the scene does not say how large a pixel is; "
                f"give the distance in pixels, such as {condition.length:g} px"
            )


def settle(
    conditions: Sequence[Condition],
    shapes: Sequence[Geometry],
    others: Mapping[str, Sequence[Geometry]],
    ground: Ground,
) -> list[Geometry]:
    """Chooses among shapes by one condition after the other.

    Args:
        conditions: From :func:`segearth.geo.scene_questions.understand`.
        shapes: Outlines of the candidates, in pixels.
        others: For each ``Condition.other`` the outlines of those things.
        ground: Of the scene.

    Returns:
        The chosen ones, in the order given or by rank; a shape may be cut at the border of a region.

    Raises:
        QuestionError: A condition needs metres or directions of the compass, and the scene has no map.
    """
    check_settleable(conditions, ground)
    chosen = list(shapes)
    for condition in conditions:
        if not chosen:
            return []
        if condition.kind == "region":
            chosen = _in_region(condition, chosen, ground)
        elif condition.kind == "size":
            chosen = _by_size(condition, chosen)
        elif condition.kind == "most":
            chosen = _furthest_that_way(condition, chosen, ground)
        else:
            chosen = _by_others(condition, chosen, others[condition.other], ground)
    return chosen


def _by_size(condition: Condition, shapes: list[Geometry]) -> list[Geometry]:
    areas = np.array([shape.area for shape in shapes])
    order = np.argsort(-areas if condition.rank > 0 else areas, kind="stable")
    first = abs(condition.rank) - 1
    return [shapes[i] for i in order[first : first + condition.number]]


def _furthest_that_way(condition: Condition, shapes: list[Geometry], ground: Ground) -> list[Geometry]:
    """Takes the shape whose centroid lies furthest in a direction."""
    reach = _centroids(shapes) @ np.sum(_axes(condition, ground), axis=0)
    return [shapes[int(reach.argmax())]]


def _in_region(condition: Condition, shapes: list[Geometry], ground: Ground) -> list[Geometry]:
    """Takes the shapes whose centroid lies in a part of the scene; a long one is cut at the border instead."""
    import shapely

    part = _region_outline(condition, ground)
    inside = shapely.contains_xy(part, _centroids(shapes))
    x0, y0, x1, y1 = part.bounds
    bounds = shapely.bounds(shapes)
    spans = np.maximum((bounds[:, 2] - bounds[:, 0]) / (x1 - x0), (bounds[:, 3] - bounds[:, 1]) / (y1 - y0))
    chosen = []
    for shape, within, span in zip(shapes, inside, spans, strict=True):
        if span > LONG and not part.covers(shape):
            cut = shapely.intersection(shape, part)
            if cut.area > 0:
                chosen.append(cut)
        elif within:
            chosen.append(shape)
    return chosen


def _region_outline(condition: Condition, ground: Ground) -> Geometry:
    import shapely

    frame = shapely.box(0, 0, ground.width, ground.height)
    if condition.box is not None:
        x0, y0, x1, y1 = condition.box
        return shapely.box(x0 * ground.width, y0 * ground.height, x1 * ground.width, y1 * ground.height)
    centre = np.array([ground.width, ground.height]) / 2
    far = 2.0 * (ground.width + ground.height)  # beyond every corner of the scene, seen from its centre
    for axis in _axes(condition, ground):
        across = np.array([-axis[1], axis[0]])
        corners = [centre - far * across, centre + far * across]
        corners += [corners[1] + far * axis, corners[0] + far * axis]
        frame = shapely.intersection(frame, shapely.Polygon(corners))
    return frame


def _by_others(
    condition: Condition, shapes: list[Geometry], others: Sequence[Geometry], ground: Ground
) -> list[Geometry]:
    import shapely

    if not len(others):
        return shapes if condition.kind == "beyond" else []  # everything is far from what is not there
    if condition.kind == "side":
        return _on_side(condition, shapes, others, ground)
    scale = (1.0, 1.0) if condition.in_pixels or ground.metres_per_pixel is None else ground.metres_per_pixel
    tree = shapely.STRtree(_scaled(others, scale))
    _, distances = tree.query_nearest(_scaled(shapes, scale), return_distance=True, all_matches=False)
    if condition.kind == "within":
        return [shape for shape, distance in zip(shapes, distances, strict=True) if distance <= condition.length]
    if condition.kind == "beyond":
        return [shape for shape, distance in zip(shapes, distances, strict=True) if distance > condition.length]
    return [shapes[int(distances.argmin() if condition.kind == "nearest" else distances.argmax())]]


def _on_side(
    condition: Condition, shapes: list[Geometry], others: Sequence[Geometry], ground: Ground
) -> list[Geometry]:
    """Takes the shapes that lie within 45 degrees of a direction, seen from the nearest point of the others."""
    import shapely

    direction = np.sum(_axes(condition, ground), axis=0)
    direction /= np.linalg.norm(direction)
    tree = shapely.STRtree(others)
    nearest = tree.query_nearest(shapes, all_matches=False)[1]
    chosen = []
    for shape, index in zip(shapes, nearest, strict=True):
        centre = shape.centroid
        line = shapely.shortest_line(others[int(index)], centre)
        start, end = np.array(line.coords)
        offset = end - start
        along = float(offset @ direction)
        if along > 0 and along >= abs(float(offset @ [-direction[1], direction[0]])):
            chosen.append(shape)
    return chosen


def _axes(condition: Condition, ground: Ground) -> list[np.ndarray]:
    """Returns the unit vectors, in pixels, that a direction is made of; "upper left" has two."""
    x, y = condition.direction
    if not condition.of_compass:
        return [np.array(axis, float) for axis in ((x, 0), (0, y)) if any(axis)]
    north = np.array(ground.north, float)  # settle() has seen to it that there is one
    east = np.array([-north[1], north[0]])  # a quarter turn clockwise, as y points down
    return [axis for axis in (x * east, -y * north) if axis.any()]


def _centroids(shapes: Sequence[Geometry]) -> np.ndarray:
    import shapely

    return shapely.get_coordinates(shapely.centroid(list(shapes)))


def _scaled(shapes: Sequence[Geometry], scale: Any) -> np.ndarray:
    import shapely

    return shapely.transform(np.asarray(list(shapes), dtype=object), lambda points: points * np.array(scale))
