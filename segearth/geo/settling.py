"""Settles on the whole scene what no tile can see: the largest of all, the nearest to another, those in the north.

Works on the outlines of what the tiles found, in pixels of the scene (x to the right, y down). Distances, areas and
directions of the compass are measured on the ground where the scene tells how large a pixel is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        compass: ``(2, 2)``, takes a step ``(x, y)`` in pixels to one ``(east, north)`` on the map, both in the same
            unit; ``None`` without a map.
        areas: Takes outlines in pixels to their areas ``(N,)``; by default in pixels.
    """

    height: int
    width: int
    metres_per_pixel: tuple[float, float] | None = None
    compass: np.ndarray | None = None
    areas: Callable[[np.ndarray], np.ndarray] | None = None


def check_settleable(conditions: Sequence[Condition], ground: Ground) -> None:
    """Checks that a scene tells what conditions need; call it before tiles are asked for candidates.

    Raises:
        QuestionError: A condition needs metres or directions of the compass, and the scene has no map.
    """
    for condition in conditions:
        if condition.of_compass and ground.compass is None:
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
            chosen = _by_size(condition, chosen, ground)
        elif condition.kind == "most":
            chosen = _furthest_that_way(condition, chosen, ground)
        else:
            chosen = _by_others(condition, chosen, others[condition.other], ground)
    return chosen


def _by_size(condition: Condition, shapes: list[Geometry], ground: Ground) -> list[Geometry]:
    import shapely

    areas = (ground.areas or shapely.area)(np.asarray(shapes, dtype=object))
    order = np.argsort(-areas if condition.rank > 0 else areas, kind="stable")
    first = abs(condition.rank) - 1
    return [shapes[i] for i in order[first : first + condition.number]]


def _furthest_that_way(condition: Condition, shapes: list[Geometry], ground: Ground) -> list[Geometry]:
    """Takes the shape whose centroid lies furthest in a direction."""
    frame, direction = _frame(condition, ground)
    reach = _centroids(shapes) @ frame.T @ direction
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

    part = shapely.box(0, 0, ground.width, ground.height)
    if condition.box is not None:
        x0, y0, x1, y1 = condition.box
        return shapely.box(x0 * ground.width, y0 * ground.height, x1 * ground.width, y1 * ground.height)
    centre = np.array([ground.width, ground.height]) / 2
    far = 2.0 * (ground.width + ground.height)  # beyond every corner of the scene, seen from its centre
    frame, direction = _frame(condition, ground)
    for axis in (frame * direction[:, None])[direction != 0]:  # "upper left" has two
        axis = axis / np.linalg.norm(axis)
        across = np.array([-axis[1], axis[0]])
        corners = [centre - far * across, centre + far * across]
        corners += [corners[1] + far * axis, corners[0] + far * axis]
        part = shapely.intersection(part, shapely.Polygon(corners))
    return part


def _by_others(
    condition: Condition, shapes: list[Geometry], others: Sequence[Geometry], ground: Ground
) -> list[Geometry]:
    import shapely

    if not len(others):
        return shapes if condition.kind == "beyond" else []  # everything is far from what is not there
    if condition.kind == "side":
        return _on_side(condition, shapes, others, ground)
    scale = (1.0, 1.0) if condition.in_pixels or ground.metres_per_pixel is None else ground.metres_per_pixel
    tree = shapely.STRtree(_moved(others, np.diag(scale)))
    _, distances = tree.query_nearest(_moved(shapes, np.diag(scale)), return_distance=True, all_matches=False)
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

    frame, direction = _frame(condition, ground)
    seen, from_where = _moved(shapes, frame), _moved(others, frame)
    nearest = shapely.STRtree(from_where).query_nearest(seen, all_matches=False)[1]
    chosen = []
    for shape, placed, index in zip(shapes, seen, nearest, strict=True):
        start, end = np.array(shapely.shortest_line(from_where[index], placed.centroid).coords)
        offset = end - start
        along = float(offset @ direction)
        if along > 0 and along >= abs(float(offset @ [-direction[1], direction[0]])):
            chosen.append(shape)
    return chosen


def _frame(condition: Condition, ground: Ground) -> tuple[np.ndarray, np.ndarray]:
    """Returns what takes a step in pixels to one in which a direction is meant, ``(2, 2)``, and the direction there."""
    x, y = condition.direction
    if ground.compass is None or not condition.of_compass:  # settle() has seen to it that the compass is there
        return np.eye(2), np.array([x, y], np.float64)
    return ground.compass, np.array([x, -y], np.float64)


def _centroids(shapes: Sequence[Geometry]) -> np.ndarray:
    import shapely

    return shapely.get_coordinates(shapely.centroid(list(shapes)))


def _moved(shapes: Sequence[Geometry], matrix: np.ndarray) -> np.ndarray:
    import shapely

    return shapely.transform(np.asarray(list(shapes), dtype=object), lambda points: points @ matrix.T)
