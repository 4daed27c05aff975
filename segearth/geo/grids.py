"""Ground resolution: how many metres a pixel measures, and a working grid of another resolution over a scene.

A model knows objects at the resolution it was trained at. A scene of another one is read through a *working grid*,
whose pixels measure what the model is used to; the model's logits are then brought back to the scene's own grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import ConfigError
from segearth.geo.packages import geo_package, rasterio_errors
from segearth.geo.windows import Window

if TYPE_CHECKING:
    from affine import Affine

SAME_SCALE = 0.05  # below a difference of 5 % in resolution, pixels are taken as they are: resampling would blur them
MOST_FINER = 32  # working pixels to a pixel of the scene, along a side: more show nothing new and take for ever
GROUP = 32  # new pixels that are resampled at a time


def metres_per_pixel(crs: Any, transform: Affine, height: int, width: int) -> tuple[float, float] | None:
    """Returns how many metres on the ground a pixel at the scene's centre measures, along a row and along a column.

    The pixel's ends are brought to longitude and latitude and the geodesic between them is taken on the WGS 84
    ellipsoid. So this is right for degrees, feet and rotated grids, across the 180th meridian, at the poles, and for
    Web Mercator, whose "metres" are longer than real ones by 1 / cos(latitude): twice as long in Oslo. Elsewhere a
    distance differs from the CRS's own by its scale factor, which is below 0.1 % in UTM.

    Args:
        crs: A ``rasterio.crs.CRS`` or ``None``.
        transform: From pixels ``(column, row)`` to coordinates.
        height: Rows of the scene.
        width: Its columns.

    Returns:
        Metres from a pixel to the next ``(in its row, in its column)``. ``None`` without a CRS, or where the CRS has no
        place on the earth and no unit of length.
    """
    if crs is None:
        return None
    column, row = width / 2, height / 2
    ends = [place_of(transform, column + dx, row + dy) for dx, dy in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))]
    try:
        found = geo_package("rasterio.warp").transform(crs, "OGC:CRS84", *zip(*ends, strict=True))
    except rasterio_errors():  # a CRS of a building site, tied to no place on the earth
        found = np.full((2, 4), np.nan)
    if np.isfinite(found).all():
        longitudes, latitudes = np.asarray(found)
        pairs = longitudes[::2], latitudes[::2], longitudes[1::2], latitudes[1::2]
        along = geo_package("pyproj").Geod(ellps="WGS84").inv(*pairs)[2]
        return float(along[0]), float(along[1])
    if not crs.is_projected:
        return None
    unit = crs.linear_units_factor[1]
    return unit * math.hypot(transform.a, transform.d), unit * math.hypot(transform.b, transform.e)


def place_of(transform: Affine, column: float, row: float) -> tuple[float, float]:
    """Returns the coordinates of a place in pixels."""
    # Written out, since versions of `affine` differ in which operator does it.
    t = transform
    return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f


@dataclass(frozen=True, slots=True)
class Axis:
    """The rows, or the columns, of a working grid: its pixel ``k`` covers a stretch of ``scale`` pixels of the scene.

    Attributes:
        scene_size: Pixels of the scene along this side.
        scale: Pixels of the scene to one working pixel, above 0; 1 where nothing is resampled.
        offset: Where working pixel 0 begins, in pixels of the scene, in (-scale, 0].
        anchor: Number of working pixel 0, counted from where the CRS has its origin. A piece of the same raster that is
            cut out elsewhere has other pixels 0, but the same ground in pixels of the same number, so that tiles
            placed by number are the same in both.
    """

    scene_size: int
    scale: float = 1.0
    offset: float = 0.0
    anchor: int = 0

    @property
    def size(self) -> int:
        """Number of working pixels."""
        return math.ceil((self.scene_size - self.offset) / self.scale - 1e-9)

    def scene_span(self, start: int, count: int) -> tuple[int, int]:
        """Returns the first pixel of the scene, and the one after the last, that some working pixels are made of."""
        first, last = self._reached(self.offset + start * self.scale, self.scale, count)
        return min(max(first, 0), self.scene_size - 1), max(min(last, self.scene_size), 1)

    def working_span(self, start: int, count: int) -> tuple[int, int]:
        """Returns the first working pixel, and the one after the last, that some pixels of the scene are made of."""
        first, last = self._reached((start - self.offset) / self.scale, 1 / self.scale, count)
        return min(max(first, 0), self.size - 1), max(min(last, self.size), 1)

    @staticmethod
    def _reached(begin: float, step: float, count: int) -> tuple[int, int]:
        # Where pixels grow, each is interpolated between the two centres around its own, up to one pixel beyond it.
        return math.floor(begin) - 1, math.ceil(begin + step * count) + 1


@dataclass(frozen=True, slots=True)
class WorkingGrid:
    """The pixels in which a scene is read and tiled. By default they are the scene's own."""

    rows: Axis
    columns: Axis

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows.size

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns.size

    @property
    def window(self) -> Window:
        """All its pixels."""
        return Window(0, 0, self.height, self.width)

    @property
    def is_native(self) -> bool:
        """Whether its pixels are the scene's own."""
        return self.rows.scale == self.columns.scale == 1

    def transform(self, scene: Affine) -> Affine:
        """Returns the transform from working pixels to coordinates, given that of the scene's own pixels."""
        down, right = self.rows.scale, self.columns.scale
        x, y = place_of(scene, self.columns.offset, self.rows.offset)
        return type(scene)(scene.a * right, scene.b * down, x, scene.d * right, scene.e * down, y)

    def scene_window(self, window: Window) -> Window:
        """Returns the pixels of the scene that working pixels are made of; none reaches over the border."""
        return window if self.is_native else _window(self.rows.scene_span, self.columns.scene_span, window)

    def working_window(self, window: Window) -> Window:
        """Returns the working pixels that pixels of the scene are made of, for :meth:`to_scene`."""
        return window if self.is_native else _window(self.rows.working_span, self.columns.working_span, window)

    def to_working(self, values: np.ndarray, valid: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Resamples pixels of the scene: means where working pixels are larger, else linear between centres.

        A pixel depends on the ground below it alone, not on the window it is read through.

        Args:
            values: ``(C, H, W)``, the pixels of :meth:`scene_window`.
            valid: Boolean ``(H, W)``; other pixels take no part.
            window: In working pixels; it must not reach over the grid's border.

        Returns:
            Values ``(C, h, w)`` of the same type, integers rounded, and which of them are valid: those of which valid
            pixels make up at least half. Values of the others are 0.
        """
        kind = np.result_type(values.dtype, np.float32)
        if valid.all():
            result, enough = self._to_working(values.astype(kind), window), np.ones((window.height, window.width), bool)
        else:
            share = self._to_working(valid.astype(kind), window)
            enough = share >= 0.5 - 1e-6
            result = self._to_working(np.where(valid, values, 0).astype(kind), window)
            result = np.where(enough, result / np.maximum(share, 1e-6), 0)
        if np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo(values.dtype)
            result = result.round().clip(limits.min, limits.max)
        return result.astype(values.dtype), enough

    def _to_working(self, array: np.ndarray, window: Window) -> np.ndarray:
        source, rows, columns = self.scene_window(window), self.rows, self.columns
        begin = rows.offset + window.top * rows.scale - source.top
        array = resampled(array, -2, begin, rows.scale, window.height)
        begin = columns.offset + window.left * columns.scale - source.left
        return resampled(array, -1, begin, columns.scale, window.width)

    def to_scene(self, logits: np.ndarray, window: Window) -> np.ndarray:
        """Brings logits from working pixels back to the scene's own.

        Args:
            logits: Float ``(Q, h, w)``, the working pixels of :meth:`working_window`.
            window: In pixels of the scene; it must not reach over the border.

        Returns:
            ``(Q, H, W)`` of ``window``'s size.
        """
        if self.is_native:
            return logits
        source, rows, columns = self.working_window(window), self.rows, self.columns
        begin = (window.top - rows.offset) / rows.scale - source.top
        logits = resampled(logits, -2, begin, 1 / rows.scale, window.height)
        begin = (window.left - columns.offset) / columns.scale - source.left
        return resampled(logits, -1, begin, 1 / columns.scale, window.width)


def _window(rows: Any, columns: Any, window: Window) -> Window:
    top, bottom = rows(window.top, window.height)
    left, right = columns(window.left, window.width)
    return Window(top, left, bottom - top, right - left)


def working_grid(
    height: int, width: int, transform: Affine, pixel: tuple[float, float] | None, resolution: float | None
) -> WorkingGrid:
    """Returns the grid in which a scene is worked on.

    Args:
        height: Rows of the scene.
        width: Its columns.
        transform: Of the scene.
        pixel: :func:`metres_per_pixel` of the scene.
        resolution: Metres that a working pixel should measure, above 0; ``None``: the scene's own pixels.

    Raises:
        ConfigError: The resolution is not above 0, it is more than :data:`MOST_FINER` times finer than the scene, or
            the scene has no CRS to measure it by.
    """
    scales = (1.0, 1.0)
    if resolution is not None:
        if not (math.isfinite(resolution) and resolution > 0):
            raise ConfigError(f"resolution is {resolution}; give metres per pixel, above 0")
        if pixel is None:
            raise ConfigError("a resolution is asked for, but the scene has no CRS to measure it by; leave it out")
        finer = max(pixel) / resolution
        if finer > MOST_FINER * (1 + 1e-9):
            raise ConfigError(
                f"a resolution of {resolution:g} m a pixel is {finer:,.0f} times finer than the scene's own, "
                f"{max(pixel):.3g} m; give metres, not degrees, at most {MOST_FINER} times finer"
            )
        scales = (_scale(resolution / pixel[0]), _scale(resolution / pixel[1]))
    x, y = place_of(~transform, 0, 0)  # where the CRS's origin lies in pixels of this scene
    return WorkingGrid(_axis(height, scales[1], -y), _axis(width, scales[0], -x))


def _scale(ratio: float) -> float:
    # Three digits are enough, and give cuts of one raster in degrees the same grid although their centres lie at
    # latitudes, and their pixels have widths, that differ a little.
    return 1.0 if abs(ratio - 1) <= SAME_SCALE else float(f"{ratio:.3g}")


def _axis(size: int, scale: float, start: float) -> Axis:
    """Makes an axis for a scene that begins ``start`` of its own pixels after the CRS's origin."""
    if scale == 1:
        return Axis(size, anchor=round(start))  # the pixels stay as they are, wherever between two numbers they lie
    number = math.floor(start / scale + 1e-6)
    return Axis(size, scale, min(number * scale - start, 0.0), number)


def resampled(array: np.ndarray, axis: int, begin: float, step: float, count: int) -> np.ndarray:
    """Resamples along one axis: the mean over each new pixel where it is larger than the old, else linear.

    Args:
        array: Floats ``(…, H, W)``.
        axis: -2 for rows or -1 for columns.
        begin: Where the first new pixel begins, in old pixels.
        step: Length of a new pixel in old pixels.
        count: How many new pixels.

    Returns:
        The array with ``count`` entries along ``axis``. What lies beyond the old pixels takes no part in means, and
        takes on the nearest one in interpolation.
    """
    first, weights = _weights(array.shape[axis], begin, step, count)
    shape = (*array.shape[:-2], count, array.shape[-1]) if axis == -2 else (*array.shape[:-1], count)
    result = np.empty(shape, array.dtype)
    # A few new pixels at a time are a small matrix times the old ones below them, which is faster than picking pixels.
    for start in range(0, count, GROUP):
        new = slice(start, min(start + GROUP, count))
        old = (first[new, None] + np.arange(weights.shape[1])).clip(0, array.shape[axis] - 1)
        low, high = int(old.min()), int(old.max()) + 1
        matrix = np.zeros((len(old), high - low))
        np.add.at(matrix, (np.arange(len(old))[:, None], old - low), weights[new])
        matrix = matrix.astype(array.dtype)
        if axis == -2:
            result[..., new, :] = matrix @ array[..., low:high, :]
        else:
            result[..., new] = array[..., low:high] @ matrix.T
    return result


def _weights(size: int, begin: float, step: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each new pixel the first old one that it is made of, and the weights of that and those after it."""
    edges = begin + step * np.arange(count)
    taps = math.ceil(step) + 1 if step > 1 else 2
    middles = edges + step / 2
    first = np.floor(edges if step > 1 else middles - 0.5).astype(np.int64)
    old = first[:, None] + np.arange(taps)
    if step > 1:  # the length that both share
        shared = np.minimum(old + 1, (edges + step)[:, None]) - np.maximum(old, edges[:, None])
        weights = np.where((old >= 0) & (old < size), np.maximum(shared, 0), 0)
    else:  # how near their centres are
        weights = 1 - np.abs(old + 0.5 - middles[:, None])
    return first, weights / weights.sum(axis=1, keepdims=True)
