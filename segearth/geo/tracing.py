"""From a mask, read strip by strip, to the exact outlines of its regions in pixels.

Words: a *part* is a set of pixels that hang together by their sides, a *region* one of parts that hang together by
sides or corners. A polygon may not touch itself at a point, so a region of several parts is a multipolygon.

How it works: an outline is known from its corners alone, and whether a point of the pixel grid is a corner is seen from
the four pixels around it. So each strip of rows gives its corners, and only corners are kept. In every row of grid
points the corners of a part are joined in pairs, first to second, third to fourth, which gives the horizontal sides;
in every column likewise the vertical ones. The sides are then followed round. A region that runs through many strips
needs no sewing: its corners are simply all there at the end.

Where two regions of different values meet at the side of a third, that side gets a point there too, a *junction*.
Without it the third would share a border with them that has other points, and simplifying would pull them apart.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segearth.geo.packages import geo_package


@dataclass(frozen=True, slots=True)
class Traced:
    """The ``N`` regions of a mask, the largest first; of equal ones the upper, then the left one.

    Attributes:
        polygons: ``(N,)`` polygons and multipolygons in pixels: x to the right, y down, from the upper left corner.
        pixels: ``(N,)`` int64, how many pixels each has.
        values: ``(N,)`` int64, the raster's value in each; 1 where the raster is boolean.
        scores: ``(N,)`` float64, mean of the score raster in each; NaN where there is none.
    """

    polygons: np.ndarray
    pixels: np.ndarray
    values: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, slots=True)
class _Corners:
    """Corners of outlines, in grid points.

    Attributes:
        x: Column, as all that follow ``(n,)``.
        y: Row.
        part: Number of the part that the corner belongs to.
        horizontal: Whether the outline, walked with the part to its right, leaves the corner sideways.
        west: Whether its horizontal side leads to the left.
        north: Whether its vertical side leads upwards.
        pinch: Whether a second corner of the same value is there, so that an outline may touch itself.
    """

    x: np.ndarray
    y: np.ndarray
    part: np.ndarray
    horizontal: np.ndarray
    west: np.ndarray
    north: np.ndarray
    pinch: np.ndarray


# As they are kept: 32 bits hold any row or column, and a large mask has millions of corners.
_CORNER_TYPES = {
    "x": np.int32, "y": np.int32, "part": np.int32, "horizontal": bool, "west": bool, "north": bool, "pinch": bool
}  # fmt: skip


def trace(strips: Iterable[tuple[np.ndarray, np.ndarray | None]], width: int) -> Traced:
    """Traces the outlines of all regions of a raster.

    Args:
        strips: The raster's rows from top to bottom, several at a time: ``(rows, width)`` integers or booleans, of
            which 0 is outside and each other value is of another kind; and the scores there, ``(rows, width)`` floats,
            or ``None``. Scores that are not finite are left out of the mean.
        width: Of the raster, in pixels.

    Returns:
        The regions. Rasterising their polygons gives the raster back exactly. It does not depend on how the rows were
        divided into strips.
    """
    return outlines_of(collect_corners(strips, width))


@dataclass(frozen=True, slots=True)
class Collected:
    """What is known of a raster once all strips were seen; :func:`outlines_of` makes polygons of it.

    Attributes:
        corners: Of all parts.
        sides: ``(n, 2)`` pairs of parts that are one, across the seam of two strips.
        diagonals: ``(n, 2)`` pairs of parts that touch at a corner.
        junctions: ``(n, 2)`` points on horizontal and on vertical sides.
        pixels: ``(P,)`` how many pixels each part has, first part 0, which is outside; as what follows.
        values: The raster's value in each.
        sums: Sum of the scores in each.
        scored: Number of pixels with a score in each.
    """

    corners: _Corners
    sides: np.ndarray
    diagonals: np.ndarray
    junctions: tuple[np.ndarray, np.ndarray]
    pixels: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    scored: np.ndarray


def collect_corners(strips: Iterable[tuple[np.ndarray, np.ndarray | None]], width: int) -> Collected:
    """Finds the corners of all outlines, the first half of :func:`trace`, which takes most of its time.

    Args:
        strips: As there.
        width: As there.
    """
    found = {name: bytearray() for name in _CORNER_TYPES}
    none = np.zeros((0, 2), np.int64)
    sides: list[np.ndarray] = [none]
    diagonals: list[np.ndarray] = [none]
    flat_sides: list[np.ndarray] = [none]
    upright_sides: list[np.ndarray] = [none]
    # Of each part, first of part 0.
    pixels: list[np.ndarray] = [np.zeros(1, np.int64)]
    values: list[np.ndarray] = [np.zeros(1, np.int64)]
    sums: list[np.ndarray] = [np.zeros(1)]
    scored: list[np.ndarray] = [np.zeros(1)]
    above, above_parts = np.zeros(width, np.uint8), np.zeros(width, np.int32)  # the row above the strip
    count, y = 1, 0  # part 0 is everything outside
    for rows, scores in _with_end(strips, width):
        parts, last = _parts_of(rows)  # numbered from 1 in each strip: from count on in the whole raster
        first, bottom = (np.where(row > 0, row + np.int32(count - 1), np.int32(0)) for row in (parts[0], parts[-1]))
        same = (above == rows[0]) & (above != 0)
        sides.append(np.unique(np.stack([above_parts[same], first[same]], axis=1), axis=0))
        points = _Points.between(_framed(above, rows), _framed(above_parts, parts), y, count - 1)
        corners = points.corners()
        for name, kind in _CORNER_TYPES.items():
            # To one growing block of memory each: thousands of small arrays, kept between the large ones of each strip,
            # would leave holes that take several times their own size.
            found[name] += getattr(corners, name).astype(kind).tobytes()
        diagonals.append(points.diagonals())
        for kept, some in zip((flat_sides, upright_sides), points.junctions(), strict=True):
            kept.append(some)
        # Of most masks most pixels are outside, so that it is quicker to look at the others alone.
        inside = np.flatnonzero(rows)
        flat, own = parts.ravel()[inside], rows.ravel()[inside]
        pixels.append(np.bincount(flat, minlength=last + 1)[1:])
        value = np.zeros(last + 1, np.int64)
        value[flat] = own
        values.append(value[1:])
        for kept, weights in zip((sums, scored), _weights(scores, inside), strict=True):
            kept.append(np.zeros(last) if weights is None else np.bincount(flat, weights, minlength=last + 1)[1:])
        above, above_parts = rows[-1].copy(), bottom
        count, y = count + last, y + len(rows)
    corners = _Corners(*(np.frombuffer(found[name], kind) for name, kind in _CORNER_TYPES.items()))
    joints = np.concatenate(flat_sides), np.concatenate(upright_sides)
    of_parts = (np.concatenate(each) for each in (pixels, values, sums, scored))
    return Collected(corners, np.concatenate(sides), np.concatenate(diagonals), joints, *of_parts)


def outlines_of(collected: Collected) -> Traced:
    """Makes the regions of what was collected, the second half of :func:`trace`, which takes most of its memory."""
    count = len(collected.pixels)
    part_of = joined(count, collected.sides)
    region_of = joined(count, part_of[collected.diagonals])[part_of]
    polygons, roots = _polygons(collected.corners, part_of, region_of, *collected.junctions)
    with np.errstate(invalid="ignore"):
        kept = (collected.pixels, collected.sums, collected.scored)
        of = [np.bincount(region_of, each, minlength=count)[roots] for each in kept]
        traced = Traced(polygons, of[0].astype(np.int64), collected.values[roots], of[1] / of[2])
    return _largest_first(traced)


def _with_end(
    strips: Iterable[tuple[np.ndarray, np.ndarray | None]], width: int
) -> Iterable[tuple[np.ndarray, np.ndarray | None]]:
    """Adds an empty row below the last, so that outlines close there."""
    yield from ((rows.view(np.uint8) if rows.dtype == bool else rows, scores) for rows, scores in strips if len(rows))
    yield np.zeros((1, width), np.uint8), None


def _framed(above: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Puts a row above others and a column of zeros on each side: ``(rows + 1, width + 2)``."""
    framed = np.zeros((len(rows) + 1, rows.shape[1] + 2), np.result_type(above, rows))
    framed[0, 1:-1], framed[1:, 1:-1] = above, rows
    return framed


def _weights(scores: np.ndarray | None, inside: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the scores of the pixels inside, 0 where they are not finite, and 1 where they are."""
    if scores is None:
        return None, None
    own = scores.ravel()[inside]
    finite = np.isfinite(own)
    return np.where(finite, own, 0).astype(np.float64), finite.astype(np.float64)


def _parts_of(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the parts of a strip from 1; returns the numbers, of the strip's shape, and how many there are."""
    import cv2

    inside = rows != 0
    kinds = rows[inside]
    if not len(kinds) or kinds.min() == kinds.max():
        count, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
        return parts, count - 1
    # OpenCV only knows inside and outside. On a grid of double width and height, where the cell between two pixels is
    # inside if they have the same value, pixels of different values do not hang together.
    height, width = rows.shape
    cells = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    cells[::2, ::2] = inside
    cells[1::2, ::2] = inside[1:] & (rows[1:] == rows[:-1])
    cells[::2, 1::2] = inside[:, 1:] & (rows[:, 1:] == rows[:, :-1])
    count, parts = cv2.connectedComponents(cells, connectivity=4)
    return parts[::2, ::2], count - 1


@dataclass(frozen=True, slots=True)
class _Points:
    """The ``n`` grid points at which something may turn or meet, with the four pixels around each.

    Quadrants 0 and 1 are above the point (left, right), 2 and 3 below. The number with bit 0 flipped is beside it, with
    bit 1 flipped above or below it, with both flipped across the point.

    Attributes:
        x: ``(n,)`` columns of grid points.
        y: ``(n,)`` their rows.
        value: Of each quadrant ``(n,)``.
        part: Of each quadrant ``(n,)`` numbers of parts.
    """

    x: np.ndarray
    y: np.ndarray
    value: tuple[np.ndarray, ...]
    part: tuple[np.ndarray, ...]

    @classmethod
    def between(cls, values: np.ndarray, parts: np.ndarray, y: int, before: int) -> _Points:
        """Finds the points between the rows of a strip.

        Args:
            values: ``(rows + 1, width + 2)``: the row above the strip, the strip, and a column of zeros on each side.
            parts: The numbers of their parts: in the row above the strip those of the raster, in the strip its own.
            y: Row of the first grid points.
            before: How many parts there are before the strip's.
        """
        beside, below = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
        rows, columns = np.nonzero((beside[:-1] | beside[1:]) & (below[:, 1:] | below[:, :-1]))
        value = tuple(values[rows + q // 2, columns + q % 2] for q in range(4))
        part = []
        for q in range(4):
            row = rows + q // 2
            number = parts[row, columns + q % 2]
            part.append(np.where((row > 0) & (number > 0), number + np.int32(before), number))
        return cls(columns, rows + y, value, tuple(part))

    def corners(self) -> _Corners:
        """Returns the corners of all parts; where four meet there are four."""
        found = []
        for q in range(4):
            own, sideways, upright, across = (self.value[q ^ flip] for flip in range(4))
            outward = (own != 0) & (own != sideways) & (own != upright)
            inward = (across != 0) & (across == sideways) & (across == upright) & (across != own)
            for chosen, part, leaves_sideways in (
                (outward, self.part[q], q in (0, 3)),
                (inward, self.part[q ^ 3], q in (1, 2)),
            ):
                at = np.flatnonzero(chosen)
                horizontal, west, north = (np.full(len(at), flag) for flag in (leaves_sideways, q % 2 == 0, q < 2))
                pinch = (outward & (own == across))[at]
                found.append(_Corners(self.x[at], self.y[at], part[at], horizontal, west, north, pinch))
        return _concatenated(found)

    def diagonals(self) -> np.ndarray:
        """Returns ``(m, 2)`` pairs of parts of the same value that touch at a corner."""
        pairs = []
        for q in (0, 1):
            own, sideways, upright, across = (self.value[q ^ flip] for flip in range(4))
            touching = (own != 0) & (own == across) & (own != sideways) & (own != upright)
            pairs.append(np.stack([self.part[q], self.part[q ^ 3]], axis=1)[touching])
        return np.concatenate(pairs)

    def junctions(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ``(m, 2)`` points x, y at which two values meet at a horizontal, and at a vertical, side."""
        found = []
        for step in (1, 2):  # from a quadrant to its neighbour along the side
            meets = np.zeros(len(self.x), bool)
            for q in (0, 3 - step):
                own, near, far = self.value[q], self.value[q ^ 3 ^ step], self.value[q ^ 3]
                meets |= (own != 0) & (own == self.value[q ^ step]) & (own != near) & (own != far) & (near != far)
            found.append(np.stack([self.x, self.y], axis=1)[meets])
        return found[0], found[1]


def _concatenated(corners: list[_Corners]) -> _Corners:
    return _Corners(*(np.concatenate([getattr(one, name) for one in corners]) for name in _Corners.__slots__))


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """Returns for each number below ``count`` the least one that ``(n, 2)`` pairs connect it with."""
    least = list(range(count))
    for pair in np.unique(pairs, axis=0).tolist():
        roots = []
        for number in pair:
            while least[number] != number:
                least[number] = least[least[number]]
                number = least[number]
            roots.append(number)
        least[max(roots)] = min(roots)
    root = np.array(least, np.int64)
    while not np.array_equal(root[root], root):
        root = root[root]
    return root


def _polygons(
    corners: _Corners, part_of: np.ndarray, region_of: np.ndarray, flat_sides: np.ndarray, upright_sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joins corners to polygons, one for each region, and returns them with the regions' numbers."""
    shapely: Any = geo_package("shapely")

    if not len(corners.x):
        return np.zeros(0, object), np.zeros(0, np.int64)
    # From the top down, so that where a ring begins, and which part comes first, does not depend on the strips.
    order = np.lexsort((corners.x, corners.y))
    corners = _Corners(*(getattr(corners, name)[order] for name in _Corners.__slots__))
    part = part_of[corners.part]
    beside = _partners(part, corners.y, corners.x, corners.west)
    below = _partners(part, corners.x, corners.y, corners.north)
    points, starts = _rings(np.where(corners.horizontal, beside, below), corners)
    x, y = corners.x[points].astype(np.int64), corners.y[points].astype(np.int64)  # they are multiplied below
    ring = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(points))))
    after = np.arange(1, len(points) + 1)
    after[np.append(starts[1:], len(points)) - 1] = starts
    hole = np.add.reduceat(x * y[after] - x[after] * y, starts) < 0  # outlines run one way round, holes the other
    # In the order of regions, then parts, each by its first corner; each part's outline before its holes.
    region = region_of[part[points[starts]]]
    order = np.lexsort((hole, _first_corner(part)[points[starts]], _first_corner(region_of[part])[points[starts]]))
    lengths = np.bincount(ring)[order]
    ends = np.cumsum(lengths + 1)  # a ring's first point is repeated at its end
    place = np.arange(ends[-1]) - np.repeat(ends - lengths - 1, lengths + 1)
    place = np.repeat(starts[order], lengths + 1) + np.where(place == np.repeat(lengths, lengths + 1), 0, place)
    coordinates, ends = np.stack([x[place], y[place]], axis=1), np.append(0, ends)
    coordinates, ends = _with_junctions(coordinates, ends, flat_sides, axis=0)
    coordinates, ends = _with_junctions(coordinates, ends, upright_sides, axis=1)
    first = np.flatnonzero(~hole[order])
    rings = (ends, np.append(first, len(order)))
    singles = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates.astype(np.float64), rings)
    roots = region[order][first]
    firsts = np.flatnonzero(np.append(True, roots[1:] != roots[:-1]))
    counts = np.diff(np.append(firsts, len(roots)))
    polygons, roots = singles[firsts], roots[firsts]
    several = np.repeat(counts > 1, counts)
    if several.any():
        index = np.repeat(np.arange(len(roots)), counts)[several]
        shapely.multipolygons(singles[several], indices=index, out=polygons)
    return polygons, roots


def _with_junctions(
    coordinates: np.ndarray, ends: np.ndarray, junctions: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Puts junctions into the sides on which they lie.

    Args:
        coordinates: ``(n, 2)`` integer points of closed rings, one after another.
        ends: Where in them rings begin, and the end of the last.
        junctions: ``(m, 2)`` points.
        axis: 0 for horizontal sides, 1 for vertical ones.

    Returns:
        The new points and ends.
    """
    if not len(junctions):
        return coordinates, ends
    span = int(max(coordinates.max(), junctions.max())) + 1
    known = np.unique(junctions[:, 1 - axis] * np.int64(span) + junctions[:, axis])
    here, there = coordinates[:-1], coordinates[1:]
    line, along, until = here[:, 1 - axis] * np.int64(span), here[:, axis], there[:, axis]
    first = np.searchsorted(known, line + np.minimum(along, until), "right")
    last = np.searchsorted(known, line + np.maximum(along, until), "left")
    counts = np.where(here[:, 1 - axis] == there[:, 1 - axis], np.maximum(last - first, 0), 0)
    counts[ends[1:-1] - 1] = 0  # from one ring to the next there is no side
    side = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = known[np.where(along <= until, first, last - 1)[side] + np.where(along <= until, 1, -1)[side] * nth]
    added = np.empty((len(side), 2), coordinates.dtype)
    added[:, axis], added[:, 1 - axis] = chosen % span, chosen // span
    total = np.append(0, np.cumsum(counts))  # before each point
    return np.insert(coordinates, side + 1, added, axis=0), ends + np.append(total, total[-1])[ends]


def _first_corner(owner: np.ndarray) -> np.ndarray:
    """Returns for each corner the number of the first one with the same owner."""
    _, first, inverse = np.unique(owner, return_index=True, return_inverse=True)
    return first[inverse]


def _partners(part: np.ndarray, line: np.ndarray, place: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Joins the corners of each part on each line in pairs, and returns for each corner the other's number.

    Args:
        part: ``(n,)`` part of each corner.
        line: On which row or column of grid points it is.
        place: Where on that line.
        back: Whether its side leads back to a lesser place. Where two corners share a place, the side that ends there
            comes before the one that begins.
    """
    order = np.lexsort((~back, place, line, part))
    partners = np.empty(len(order), np.int64)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    return partners


def _rings(following: np.ndarray, corners: _Corners) -> tuple[np.ndarray, np.ndarray]:
    """Follows the corners round, and cuts each ring where it touches itself.

    Returns:
        The corners' numbers, ring after ring, and where in them each ring begins.
    """
    after, pinches, xs, ys = following.data, corners.pinch.data, corners.x.data, corners.y.data
    seen = bytearray(len(following))
    points, starts = array("q"), array("q")  # lists of millions of numbers would take five times the memory
    for corner in range(len(following)):
        ring: list[int] = []
        places: dict[tuple[int, int], int] = {}
        while not seen[corner]:
            seen[corner] = 1
            if pinches[corner]:
                point = xs[corner], ys[corner]
                if point in places:  # what came since the ring was here before is a ring of its own
                    starts.append(len(points))
                    points.extend(ring[places[point] :])
                    del ring[places[point] :]
                places[point] = len(ring)
            ring.append(corner)
            corner = after[corner]
        if ring:
            starts.append(len(points))
            points.extend(ring)
    return np.array(points, np.int64), np.array(starts, np.int64)


def _largest_first(traced: Traced) -> Traced:
    bounds = geo_package("shapely").bounds(traced.polygons).reshape(-1, 4)
    order = np.lexsort((bounds[:, 0], bounds[:, 1], -traced.pixels))
    return Traced(*(getattr(traced, name)[order] for name in Traced.__slots__))
