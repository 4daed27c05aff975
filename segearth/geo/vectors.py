"""From a mask raster to polygons with what is known of them, in the raster's own coordinate reference system."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import ConfigError, ImageError
from segearth.geo.outlines import right_angled, simplified
from segearth.geo.packages import geo_package
from segearth.geo.tracing import Traced, trace

if TYPE_CHECKING:
    import geopandas

PIXELS_AT_A_TIME = 1 << 21  # about 150 MB while a strip of that many is traced
TRUE_SCALE = 0.01  # up to this share a projection may distort areas and still be measured in directly


def vectorise(
    mask: Any, *, transform: Any = None, crs: Any = None, question: str = "", answer: str | None = None,
    source: str = "", model: str = "", score: float | None = None, scores: Any = None, logits: bool = False,
    each_value: bool = False, min_area: float = 0.0, simplify: float = 0.0, right_angles: bool = False,
    points: bool = False,
) -> geopandas.GeoDataFrame:  # fmt: skip
    """Makes a polygon of each connected region of a mask, holes left out of it; pixels that touch at a corner connect.

    A raster in a file is read some rows at a time, so that memory is bounded by the outlines, not by the raster.

    Args:
        mask: ``(H, W)`` boolean or integer array, a band ``rasterio.band(dataset, 1)``, an open rasterio dataset (its
            first band) or a file. 0 and nodata are outside.
        transform: Affine from pixels to the CRS, rotated ones too. ``None``: the dataset's; of an array, none, and
            polygons are in pixels, y down.
        crs: Anything that pyproj takes. ``None``: the dataset's, or none.
        question: What was asked, for the table, as are ``answer`` (in words), ``source`` and ``model``.
        answer: See above.
        source: Name of the image.
        model: Name of the weights.
        score: Of every region, in [0, 1].
        scores: In place of ``score`` a raster of the mask's size, in any of its forms; a region's score is the mean in
            it. Values that are not finite do not count.
        logits: ``scores`` are logits, of which the mean probability is taken; else they are probabilities.
        each_value: Each value above 0 is another thing: regions of different values are apart though they touch, and
            a column ``value`` tells them. Else everything that is not 0 is alike.
        min_area: Smaller regions are left out; in the unit of the column ``area``, before outlines are simplified.
        simplify: In pixels, see :func:`segearth.geo.outlines.simplified`; 0 keeps the raster's steps.
        right_angles: Also draw outlines at right angles where that fits, see
            :func:`segearth.geo.outlines.right_angled`.
        points: Add ``point_x`` and ``point_y``, a point inside each region, in the CRS.

    Returns:
        The largest region first, of equal ones the upper, then the left one, numbered from 1 in the column ``region``.
        ``area`` is that of the polygon: in m² on the ground where the CRS allows, else in pixels, as ``area_unit``
        says. No row where the mask is empty.

    Raises:
        MissingExtraError: A package for maps is missing.
        ImageError: The mask is no mask, or the scores are of another size.
        ConfigError: An option makes no sense.
    """
    _check_options(score, scores, min_area, simplify)
    with _opened(mask, "mask") as raster, _opened(scores, "scores") as weights:
        height, width = raster.shape
        if weights is not None and weights.shape != raster.shape:
            raise ImageError(
                f"the scores are {weights.shape[1]}x{weights.shape[0]} px, the mask {width}x{height}; give one grid"
            )
        transform = raster.transform if transform is None else transform
        crs = raster.crs if crs is None else crs
        traced = trace(_strips(raster, weights, each_value, logits), width)
    if scores is None:
        traced = Traced(traced.polygons, traced.pixels, traced.values, np.full(len(traced.pixels), score, np.float64))
    frame = table_of(
        traced, (height, width), transform=transform, crs=crs, min_area=min_area, simplify=simplify,
        right_angles=right_angles, points=points,
        facts={"question": question, "answer": answer, "source": source, "model": model},
    )  # fmt: skip
    return frame if each_value else frame.drop(columns="value")


def table_of(
    traced: Traced, shape: tuple[int, int], *, transform: Any, crs: Any, facts: dict[str, str | None],
    min_area: float = 0.0, simplify: float = 0.0, right_angles: bool = False, points: bool = False,
) -> geopandas.GeoDataFrame:  # fmt: skip
    """Makes the table of :func:`vectorise` of traced regions.

    Args:
        traced: In pixels; their order is kept.
        shape: Height and width of the raster.
        transform: As for :func:`vectorise`, as what follows.
        crs: See there.
        facts: Columns of text that are the same in every row.
        min_area: See there.
        simplify: See there.
        right_angles: See there.
        points: See there.
    """
    shapely, geopandas = (geo_package(name) for name in ("shapely", "geopandas"))
    area_of = Areas(transform, crs, shape)
    matrix, crs = area_of.matrix, area_of.crs
    numbers = np.arange(1, len(traced.pixels) + 1)
    exact = traced.polygons
    if min_area > 0:
        kept = area_of(exact) >= min_area
        exact, numbers = exact[kept], numbers[kept]
    drawn = simplified(exact, simplify) if simplify > 0 else exact
    if right_angles:
        drawn = right_angled(exact, drawn, area_of.ground)
    placed = shapely.transform(drawn, lambda at: at @ matrix[:, :2].T + matrix[:, 2])
    at = numbers - 1
    columns: dict[str, Any] = {"region": numbers.astype(np.int32)}
    columns |= {name: np.array([text] * len(at), object) for name, text in facts.items()}
    columns |= {
        "score": np.round(traced.scores[at], 6),
        "area": area_of(drawn),
        "area_unit": np.array([area_of.unit] * len(at), object),
        "value": traced.values[at],
    }
    if points:
        inside = shapely.point_on_surface(placed)
        columns |= {"point_x": shapely.get_x(inside), "point_y": shapely.get_y(inside)}
    return geopandas.GeoDataFrame(columns, geometry=geopandas.GeoSeries(placed, crs=crs), crs=crs)


class Areas:
    """Measures polygons that are in pixels.

    Projected coordinates are measured as they are where the projection keeps areas to 1 %, as UTM and the grids of
    countries do. On the ellipsoid, which takes longer, are measured degrees and projections such as Web Mercator, in
    which a roof in Oslo is four times as large as it is.

    Attributes:
        matrix: ``(2, 3)``, takes pixels to coordinates.
        crs: ``pyproj.CRS`` or ``None``.
        unit: ``"m2"`` or ``"pixels"``.
        ground: ``(2, 2)``, takes a step in pixels to one on the ground.
    """

    def __init__(self, transform: Any, crs: Any, shape: tuple[int, int]) -> None:
        """Prepares measuring.

        Args:
            transform: As for :func:`vectorise`, as is ``crs``.
            crs: See there.
            shape: Height and width of the raster.

        Raises:
            ConfigError: The transform maps every pixel to one line.
        """
        crs = None if crs is None else geo_package("pyproj").CRS.from_user_input(crs)
        matrix = np.array([[1, 0, 0], [0, 1, 0]] if transform is None else [transform[:3], transform[3:6]], np.float64)
        if abs(np.linalg.det(matrix[:, :2])) == 0:
            raise ConfigError("the transform maps every pixel to one line; give that of the image")
        self.matrix, self.crs = matrix, crs
        self.unit, self.ground, self.square = "pixels", np.eye(2), 1.0
        self.geod = self.to_degrees = None
        if crs is None or not (crs.is_projected or crs.is_geographic):
            return
        pyproj = geo_package("pyproj")
        self.unit = "m2"
        x, y = matrix[:, :2] @ (shape[1] / 2, shape[0] / 2) + matrix[:, 2]
        if crs.is_projected:
            # The unit of both axes is the same in every projection that is in use.
            self.ground = matrix[:, :2] * crs.axis_info[0].unit_conversion_factor
            self.square = abs(np.linalg.det(self.ground))
            self.to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
            longitude, latitude = self.to_degrees.transform(x, y)
            scale = pyproj.Proj(crs).get_factors(longitude, latitude).areal_scale
            if abs(scale - 1) > TRUE_SCALE and math.isfinite(scale):
                self.geod = crs.get_geod()
        else:
            self.geod = crs.get_geod()
            # A degree of longitude beside one of latitude: the radii of the ellipsoid across and along the meridian.
            sine, squeezed = math.sin(math.radians(y)), self.geod.es
            radii = (1 - squeezed * sine**2) / (1 - squeezed)
            self.ground = np.diag([radii * math.cos(math.radians(y)), 1.0]) @ matrix[:, :2]

    def __call__(self, polygons: np.ndarray) -> np.ndarray:
        """Returns ``(N,)`` areas in the unit."""
        shapely = geo_package("shapely")
        if self.geod is None:
            return shapely.area(polygons) * self.square

        def placed(points: np.ndarray) -> np.ndarray:
            moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
            return moved if self.to_degrees is None else np.stack(self.to_degrees.transform(*moved.T), axis=1)

        # One way round for outlines, the other for holes, without which holes would be added. In pixels, since in
        # degrees a ring across the 180th meridian or round a pole seems to run the other way.
        on_globe = shapely.transform(shapely.orient_polygons(polygons), placed)
        return np.array([abs(self.geod.geometry_area_perimeter(polygon)[0]) for polygon in on_globe], np.float64)


class _Raster:
    """A mask or its scores, in memory or in a file, read by rows."""

    def __init__(self, given: Any, what: str) -> None:
        self.transform = self.crs = None
        self.dataset: Any = None
        self.band = 1
        if isinstance(given, np.ndarray):
            if given.ndim != 2:
                raise ImageError(f"{what} has the shape {given.shape}; give one band, (H, W)")
            self.array, self.shape, self.dtype, self.block = given, given.shape, given.dtype, 1
        else:
            self.dataset, self.band = (given.ds, given.bidx) if hasattr(given, "bidx") else (given, 1)
            self.shape, self.dtype = self.dataset.shape, np.dtype(self.dataset.dtypes[self.band - 1])
            self.block = self.dataset.block_shapes[self.band - 1][0]
            self.crs = self.dataset.crs
            if self.dataset.gcps[0] and not self.crs:
                raise ImageError(
                    f"{self.dataset.name} is placed by ground control points; warp it first: gdalwarp in.tif out.tif"
                )
            self.transform = self.dataset.transform if self.crs or not self.dataset.transform.is_identity else None
        if not all(self.shape):
            raise ImageError(f"{what} has the size {self.shape[1]}x{self.shape[0]} px; give one with pixels")

    def rows(self, y: int, count: int) -> np.ndarray:
        """Returns rows ``y`` to ``y + count``; nodata of a file is 0 in a mask and NaN in scores."""
        if self.dataset is None:
            return self.array[y : y + count]
        window = geo_package("rasterio.windows").Window(0, y, self.shape[1], count)
        read = self.dataset.read(self.band, window=window, masked=True)
        return read.filled(np.nan if self.dtype.kind == "f" else 0)


@contextlib.contextmanager
def _opened(given: Any, what: str) -> Iterator[Any]:
    if given is None:
        yield None
    elif isinstance(given, (str, Path)):
        rasterio = geo_package("rasterio")
        try:
            dataset = rasterio.open(given)
        except rasterio.errors.RasterioIOError as error:
            raise ImageError(f"{given}: no raster that GDAL reads ({error}); name a GeoTIFF") from error
        with dataset:
            yield _Raster(dataset, what)
    else:
        yield _Raster(given, what)


def _strips(
    raster: _Raster, weights: _Raster | None, each_value: bool, logits: bool
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Reads mask and scores by rows, as many at a time as fit, whole blocks of the file where possible."""
    if raster.dtype.kind not in "biu":
        raise ImageError(f"the mask has values of type {raster.dtype}; give 0 and 1, such as scores > 0.5")
    height, width = raster.shape
    count = max(1, PIXELS_AT_A_TIME // width)
    count = max(count // raster.block * raster.block, 1) if count >= raster.block else count
    for y in range(0, height, count):
        rows = raster.rows(y, min(count, height - y))
        values = None if weights is None else weights.rows(y, len(rows)).astype(np.float64)
        if values is not None and logits:
            values = 1 / (1 + np.exp(-np.clip(values, -500, 500)))  # beyond, it is 0 or 1 and exp would overflow
        yield (np.maximum(rows, 0) if rows.dtype.kind == "i" else rows) if each_value else rows != 0, values


def _check_options(score: float | None, scores: Any, min_area: float, simplify: float) -> None:
    if score is not None and scores is not None:
        raise ConfigError("both score and scores are given; give one score for all regions, or a raster of them")
    for name, value in (("min_area", min_area), ("simplify", simplify)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {value}; give a number from 0 up")
