"""Areas of interest: polygons outside of which no answer lies; what does not touch them is not read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import ConfigError
from segearth.geo.packages import geo_package
from segearth.geo.raster import SceneRaster
from segearth.geo.windows import Window

WKT_BEGINS = ("POLYGON", "MULTIPOLYGON", "SRID")
BENDS = 64  # points put on a side as long as the area, so that it stays where it is when it becomes a curve


@dataclass(frozen=True, slots=True)
class AreaOfInterest:
    """Polygons over a scene, in pixels of its working grid or of its own.

    Attributes:
        outline: ``shapely`` geometry in pixels ``(column, row)``, cut off at the scene's border.
        window: The pixels that it reaches into.
    """

    outline: Any
    window: Window

    def touches(self, window: Window) -> bool:
        """Whether a part of the area lies in a window."""
        return bool(self.outline.intersects(_box(window)))

    def mask(self, window: Window) -> np.ndarray:
        """Returns which pixels of a window have their centre inside the area: boolean ``(h, w)``."""
        rasterio = geo_package("rasterio")
        inside = self.outline.intersection(_box(window))
        if inside.is_empty:
            return np.zeros((window.height, window.width), bool)
        burned = geo_package("rasterio.features").rasterize(
            [inside], (window.height, window.width), transform=rasterio.Affine(1, 0, window.left, 0, 1, window.top)
        )
        return np.asarray(burned > 0)


def area_of_interest(aoi: str | Path, scene: SceneRaster, *, crs: Any = None, working: bool = True) -> AreaOfInterest:
    """Reads an area of interest and brings it to a scene's pixels.

    Args:
        aoi: A file of polygons (GeoJSON, GeoPackage, a shapefile or anything else GDAL reads), or a polygon as text:
            ``"SRID=4326;POLYGON((85.5 27.6, …))"``.
        scene: The scene.
        crs: Of polygons that do not state theirs, such as ``"EPSG:4326"``. GeoJSON without one is in longitude and
            latitude, as the format says (RFC 7946).
        working: Take pixels of the working grid; else the scene's own.

    Raises:
        MissingExtraError: ``geopandas`` or ``rasterio`` is not installed.
        ConfigError: The file is missing or damaged or has no polygons, the polygons or the scene have no CRS, or the
            area lies outside of the scene.
    """
    if scene.crs is None:
        raise ConfigError(f"{scene.name} has no CRS, so an area of interest has no place on it; leave it out")
    shapes = _from_text(str(aoi)) if str(aoi).lstrip().upper().startswith(WKT_BEGINS) else _from_file(Path(aoi))
    if shapes.crs is None:
        if crs is None:
            raise ConfigError(f"the area of interest {_short(aoi)} has no CRS; say which: SRID=4326;POLYGON((x y, …))")
        shapes = shapes.set_crs(crs)
    shapely = geo_package("shapely")
    polygons = shapes[shapes.geom_type.isin(["Polygon", "MultiPolygon"])].make_valid()
    joined = polygons.union_all()
    if joined.is_empty or joined.area == 0:
        raise ConfigError(f"the area of interest {_short(aoi)} has no polygon; draw at least one")
    left, bottom, right, top = joined.bounds
    bent = shapely.segmentize(joined, max(right - left, top - bottom) / BENDS)
    placed = geo_package("geopandas").GeoSeries([bent], crs=shapes.crs).to_crs(scene.crs.to_wkt()).iloc[0]
    return _in_pixels(placed, aoi, scene, working)


def _in_pixels(placed: Any, aoi: str | Path, scene: SceneRaster, working: bool) -> AreaOfInterest:
    if working:
        transform, border = scene.working_transform, scene.grid.window
    else:
        transform, border = scene.transform, scene.own_window
    t = ~transform
    outline = None
    if np.isfinite(placed.bounds).all():  # infinite are places that the scene's CRS cannot express
        pixels = geo_package("shapely.affinity").affine_transform(placed, [t.a, t.b, t.d, t.e, t.c, t.f])
        outline = pixels.intersection(_box(border))
    if outline is None or outline.area == 0:
        spans = ", ".join(f"{value:.6g}" for value in placed.bounds)
        raise ConfigError(
            f"the area of interest {_short(aoi)} lies outside of {scene.name} (it spans {spans} in the scene's CRS); "
            "draw it over the scene, and look whether its CRS and the order of its coordinates are right"
        )
    left, top, right, bottom = outline.bounds
    first, above = math.floor(left), math.floor(top)
    return AreaOfInterest(outline, Window(above, first, math.ceil(bottom) - above, math.ceil(right) - first))


def _from_text(text: str) -> Any:
    """Reads WKT, with or without ``SRID=…;`` before it, as a ``GeoSeries``."""
    shapely, geopandas = geo_package("shapely"), geo_package("geopandas")
    head, _, rest = text.strip().rpartition(";")
    number = head.upper().removeprefix("SRID=").strip()
    try:
        crs = geo_package("pyproj").CRS.from_epsg(int(number)) if head else None
        return geopandas.GeoSeries([shapely.from_wkt(rest)], crs=crs)
    except (ValueError, shapely.errors.ShapelyError, geo_package("pyproj.exceptions").CRSError) as error:
        raise ConfigError(f"{_short(text)} is no polygon ({error}); write SRID=4326;POLYGON((x y, …))") from error


def _from_file(path: Path) -> Any:
    geopandas, problems = geo_package("geopandas"), geo_package("pyogrio.errors")
    if not path.exists():
        raise ConfigError(f"no area of interest {path}; name a file of polygons, or write SRID=4326;POLYGON((x y, …))")
    try:
        return geopandas.read_file(path).geometry
    except (problems.DataSourceError, problems.DataLayerError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} is no file of polygons ({error}); give GeoJSON or GeoPackage") from error


def _box(window: Window) -> Any:
    return geo_package("shapely").box(window.left, window.top, window.right, window.bottom)


def _short(aoi: str | Path) -> str:
    text = str(aoi)
    return text if len(text) <= 80 else text[:79] + "…"
