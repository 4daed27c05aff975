"""Areas of interest: polygons outside of which no answer lies; what does not touch them is not read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import ConfigError
from segearth.geo.packages import geo_package
from segearth.geo.raster import SceneRaster
from segearth.geo.windows import Window
from segearth.utils.files import is_file

WKT_BEGINS = re.compile(r"\s*(SRID\s*=|(MULTI)?POLYGON\s*(Z|M|ZM)?\s*(\(|EMPTY))", re.IGNORECASE)
WIDER = 0.1  # of the scene's span, by which an area may reach beyond the scene before it is cut off
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
    # A file comes first: it may be called "polygon (1).gpkg".
    shapes = _from_text(str(aoi)) if WKT_BEGINS.match(str(aoi)) and not is_file(aoi) else _from_file(Path(aoi))
    if shapes.crs is None:
        if crs is None:
            raise ConfigError(f"the area of interest {_short(aoi)} has no CRS; say which: SRID=4326;POLYGON((x y, …))")
        shapes = shapes.set_crs(crs)
    shapely = geo_package("shapely")
    polygons = shapes[shapes.geom_type.isin(["Polygon", "MultiPolygon"])].make_valid()
    joined = polygons.union_all()
    if joined.is_empty or joined.area == 0:
        raise ConfigError(f"the area of interest {_short(aoi)} has no polygon; draw at least one")
    near = _cut_off(joined, shapes.crs, scene)
    left, bottom, right, top = near.bounds
    bent = shapely.segmentize(near, max(right - left, top - bottom) / BENDS)
    moved = geo_package("geopandas").GeoSeries([bent], crs=shapes.crs).to_crs(scene.crs.to_wkt())
    placed = moved.make_valid().iloc[0] if np.isfinite(moved.total_bounds).all() else moved.iloc[0]
    return _in_pixels(placed, aoi, scene, working)


def _cut_off(polygons: Any, crs: Any, scene: SceneRaster) -> Any:
    """Cuts off what lies far from the scene, where the scene's CRS may have no place for it, as UTM for half the world.

    Polygons of which nothing lies near, or a scene whose place in their CRS is not known, are left as they are.
    """
    pyproj, shapely = geo_package("pyproj"), geo_package("shapely")
    own = pyproj.CRS.from_wkt(scene.crs.to_wkt())
    if crs.is_exact_same(own):
        return polygons
    bounds = geo_package("rasterio.transform").array_bounds(scene.height, scene.width, scene.transform)
    (x0, x1), (y0, y1) = sorted(bounds[::2]), sorted(bounds[1::2])
    left, bottom, right, top = pyproj.Transformer.from_crs(own, crs, always_xy=True).transform_bounds(x0, y0, x1, y1)
    if not np.isfinite([left, bottom, right, top]).all():
        return polygons
    over = 360 if left > right else 0  # across the 180th meridian, to the east or to the west of which polygons may lie
    beside, above = WIDER * (right + over - left), WIDER * (top - bottom)
    boxes = [
        shapely.box(left - turn - beside, bottom - above, right + over - turn + beside, top + above)
        for turn in {0, over}
    ]
    near = polygons.intersection(shapely.union_all(boxes))
    return near if near.area else polygons


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
