"""Cuts a scene into overlapping tiles, and blends what a model says of each into strips of the whole scene.

Neighbouring tiles see other surroundings of a pixel, so their logits differ there. Where tiles overlap, each fades out
towards its own side as the other fades in, so that no seam is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np

from segearth.errors import ConfigError
from segearth.geo.windows import Window

UNSEEN = -100.0  # logit of a pixel on which no tile lies: a probability of 0. Infinity would not survive interpolation
OPEN_BYTES = 1 << 30  # of logits of open rows, at most
EMPTY_ROWS = 512  # of a strip where there is no tile


def plan_tiles(
    height: int, width: int, tile_size: int, overlap: int, anchor: tuple[int, int] = (0, 0)
) -> list[Window]:
    """Returns tiles that cover a scene.

    Tiles begin at multiples of ``tile_size - overlap``, counted from a fixed point of the ground. So a cut-out of a
    scene is tiled as the scene is, and a model answers alike to both, away from the cut. Only a tile that would reach
    over the border is moved inwards until it ends there: it is full of ground, where padding would show the model an
    edge that is not there. A tile therefore overlaps with the last one by more than the rest do.

    Args:
        height: Rows of the scene.
        width: Its columns.
        tile_size: Side of a tile. Along a side of the scene that is shorter there is one tile, as long as that side.
        overlap: Pixels that neighbouring tiles share, from 0 to half a tile.
        anchor: Number of the scene's first row and column, counted from that fixed point; of a working grid
            ``(grid.rows.anchor, grid.columns.anchor)``.

    Returns:
        From top to bottom, and in a row from left to right.

    Raises:
        ConfigError: A number is out of range.

    Example:
        >>> [tile.left for tile in plan_tiles(4, 10, tile_size=4, overlap=1)]
        [0, 3, 6]
        >>> [tile.left for tile in plan_tiles(4, 9, tile_size=4, overlap=1, anchor=(0, 2))]  # 3 and 6 lie at 1 and 4
        [0, 1, 4, 5]
    """
    if min(height, width) < 1:
        raise ConfigError(f"a scene of {width} x {height} pixels cannot be tiled; give at least one pixel")
    if tile_size < 1 or not 0 <= overlap <= tile_size // 2:
        raise ConfigError(f"tiles of {tile_size} px that overlap by {overlap}; give an overlap from 0 to half a tile")
    rows = _starts(height, tile_size, tile_size - overlap, anchor[0])
    columns = _starts(width, tile_size, tile_size - overlap, anchor[1])
    size = min(height, tile_size), min(width, tile_size)
    return [Window(top, left, *size) for top in rows for left in columns]


def _starts(size: int, tile: int, stride: int, anchor: int) -> list[int]:
    if size <= tile:
        return [0]
    first = -(anchor % stride)  # the last multiple of the stride at or before the border
    last = size - tile
    inner = [start for start in range(first, size, stride) if 0 < start < last]
    return [0, *inner, last]


def rows_of_tiles(tiles: Iterable[Window]) -> list[list[Window]]:
    """Groups tiles that begin at the same row. Batches that end with a row of tiles can be run again one by one."""
    return [list(row) for _, row in groupby(sorted(tiles), key=lambda tile: tile.top)]


@dataclass(frozen=True, slots=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        window: Which pixels.
        logits: Float32 ``(Q, h, w)``, of ``Q`` questions.
    """

    window: Window
    logits: np.ndarray


def blended(
    tiles: Iterable[tuple[Window, np.ndarray]], area: Window, scene: tuple[int, int], overlap: int, questions: int
) -> Iterator[Strip]:
    """Blends logits of tiles, and gives rows out as soon as no further tile reaches into them.

    Never are more rows in memory than a tile is high, so its size grows with the scene's width alone.

    Args:
        tiles: Tiles from top to bottom, with float logits ``(Q, h, w)`` of each. They are taken one by one.
        area: The pixels to give out; what tiles hold beyond is passed over. To go on with a scene whose first rows are
            there already, leave them out of the area, and give all tiles that reach into it.
        scene: Rows and columns of the whole scene.
        overlap: As for :func:`plan_tiles`: how far a tile fades out on each side, except along the scene's border.
        questions: ``Q``.

    Yields:
        Strips as wide as the area that follow one another without gaps; at most as high as the highest tile. A pixel
        that no tile covers has the logit :data:`UNSEEN`.

    Raises:
        ConfigError: The open rows would take more than a gibibyte, or a tile comes after one that lies further down.
    """
    rows: _OpenRows | None = None
    highest = area.top  # of the tiles so far, the row at which the last began
    for tile, logits in tiles:
        if rows is None:
            rows, highest = _open_rows(area, tile.height, questions), tile.top
        if tile.height != rows.capacity or tile.top < highest:
            raise ConfigError("tiles of different heights, or not from top to bottom; take them from plan_tiles")
        highest = tile.top
        yield from rows.finished(tile.top)
        rows.add(tile, logits, tile_weights(tile, scene, overlap))
    if rows is None:  # no tile at all, such as where none touches the area of interest
        rows = _open_rows(area, min(area.height, EMPTY_ROWS), questions)
    yield from rows.finished(area.bottom)


def _open_rows(area: Window, capacity: int, questions: int) -> _OpenRows:
    size = 4 * (questions + 1) * capacity * area.width
    if size > OPEN_BYTES:
        raise ConfigError(
            f"{questions} questions on {area.width} columns need {size >> 20} MiB for one row of tiles; ask fewer at a "
            "time, take smaller tiles, or cut the scene (gdal_translate -srcwin)"
        )
    return _OpenRows(area, capacity, questions)


class _OpenRows:
    """Sums of weighted logits, and of weights, of the rows that tiles still reach into.

    Attributes:
        capacity: How many rows there are at most.
    """

    def __init__(self, area: Window, capacity: int, questions: int) -> None:
        self.capacity = capacity
        self._area, self._first = area, area.top  # the first row that has not been given out
        self._sums = np.zeros((questions, capacity, area.width), np.float32)
        self._weights = np.zeros((capacity, area.width), np.float32)

    def finished(self, until: int) -> Iterator[Strip]:
        """Gives out all rows above ``until``."""
        until = min(until, self._area.bottom)
        while self._first < until:
            count = min(until - self._first, self.capacity)
            sums, weights = self._sums[:, :count], self._weights[:count]
            logits = np.full(sums.shape, UNSEEN, np.float32)
            np.divide(sums, weights, out=logits, where=weights > 0)
            yield Strip(Window(self._first, self._area.left, count, self._area.width), logits)
            self._drop(count)

    def _drop(self, count: int) -> None:
        for sums in (*self._sums, self._weights):
            sums[: self.capacity - count] = sums[count:].copy()
            sums[self.capacity - count :] = 0
        self._first += count

    def add(self, tile: Window, logits: np.ndarray, weights: np.ndarray) -> None:
        """Adds one tile; it may begin above the open rows, but not below those that there is room for."""
        height = min(self.capacity, self._area.bottom - self._first)
        room = Window(self._first, self._area.left, max(height, 1), self._area.width)
        both = tile.intersection(room)
        if both is None:
            return
        (rows, columns), (tile_rows, tile_columns) = both.slices_in(room), both.slices_in(tile)
        counting = weights[tile_rows, tile_columns]
        self._sums[:, rows, columns] += logits[:, tile_rows, tile_columns] * counting
        self._weights[rows, columns] += counting


def tile_weights(tile: Window, scene: tuple[int, int], overlap: int) -> np.ndarray:
    """Returns how much each pixel of a tile counts: 1 inside, fading out over ``overlap`` pixels towards each side.

    Along the scene's border, where no neighbour could take over, nothing fades. The fade is half a period of a cosine:
    where two tiles of :func:`plan_tiles` overlap by just ``overlap``, their weights add up to 1.

    Args:
        tile: Which pixels; inside the scene.
        scene: Rows and columns of the whole scene.
        overlap: As for :func:`plan_tiles`.

    Returns:
        Float32 ``(h, w)``, above 0.
    """
    rows = _fade(tile.height, overlap if tile.top > 0 else 0, overlap if tile.bottom < scene[0] else 0)
    columns = _fade(tile.width, overlap if tile.left > 0 else 0, overlap if tile.right < scene[1] else 0)
    return rows[:, None] * columns


@lru_cache(maxsize=64)
def _fade(size: int, before: int, after: int) -> np.ndarray:
    places = np.arange(size) + 0.5
    share = np.ones(size)
    if before:
        share = np.minimum(share, places / before)
    if after:
        share = np.minimum(share, (size - places) / after)
    return (np.sin(np.pi / 2 * share) ** 2).astype(np.float32)
