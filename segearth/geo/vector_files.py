"""Writes tables of polygons as GeoJSON, GeoPackage or FlatGeobuf, by the file's suffix."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segearth.errors import ConfigError, OutputError
from segearth.geo.packages import geo_package
from segearth.utils.files import atomic_path, check_output_file

if TYPE_CHECKING:
    import geopandas

DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG", ".fgb": "FlatGeobuf"}


def check_vector_path(path: str | Path) -> None:
    """Checks that polygons can be written to ``path``; call it before a long computation.

    Raises:
        OutputError: The suffix is none that can be written, or the file cannot be written there.
    """
    if Path(path).suffix.lower() not in DRIVERS:
        known = ", ".join(f"{suffix} ({driver})" for suffix, driver in DRIVERS.items())
        raise OutputError(f"{path}: polygons are written to {known}; name a file with one of these suffixes")
    check_output_file(path)


def write_vectors(
    path: str | Path,
    tables: geopandas.GeoDataFrame | Sequence[geopandas.GeoDataFrame],
    *,
    layer: str | None = None,
    wgs84: bool = False,
) -> None:
    """Writes one layer of polygons in the CRS they are in.

    GeoJSON too: RFC 7946 knows longitude and latitude alone, so of another CRS a ``crs`` member is written as the
    format's first edition has it, which GDAL, QGIS and geopandas read and many maps on the web do not; for those,
    ``wgs84``. GeoPackage and FlatGeobuf hold multipolygons alone, since their layers have one type. FlatGeobuf has an
    index by place, for which it puts rows in another order.

    Args:
        path: ``.geojson``, ``.gpkg`` or ``.fgb``. Written under another name beside it and renamed when whole.
        tables: Of :func:`segearth.geo.vectors.vectorise`; several, such as one a question, go below each other into one
            layer, where the column ``question`` tells them apart. Tables without rows give a layer without features.
        layer: Its name; ``None``: the file's, without the suffix.
        wgs84: Of GeoJSON alone: reproject to longitude and latitude, as RFC 7946 wants it.

    Raises:
        OutputError: The suffix is unknown, or the file cannot be written.
        ConfigError: Tables of different CRSs, none at all, or ``wgs84`` where it has no meaning.
    """
    check_vector_path(path)
    path = Path(path)
    driver = DRIVERS[path.suffix.lower()]
    table = joined_tables([tables] if hasattr(tables, "geometry") else list(tables))
    if wgs84 and (driver != "GeoJSON" or table.crs is None):
        raise ConfigError("wgs84 is for GeoJSON of polygons that have a CRS; leave it out, or write a .geojson")
    options: dict[str, object] = {"RFC7946": "YES"} if wgs84 else {}
    if driver != "GeoJSON":
        # Stated and not left to the content, so that layers of several files fit together and an empty one has a type.
        options |= {"geometry_type": "MultiPolygon", "promote_to_multi": True}
    pyogrio = geo_package("pyogrio")
    with atomic_path(path) as temporary, warnings.catch_warnings():
        try:
            if table.crs is None:  # a plain image, of which pyogrio would warn each time
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            pyogrio.write_dataframe(table, temporary, driver=driver, layer=layer or path.stem, **options)
        except pyogrio.errors.DataSourceError as error:
            raise OutputError(f"{path} cannot be written ({error}); name another place") from error


def joined_tables(tables: Sequence[geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    """Puts tables below each other.

    Raises:
        ConfigError: They have different CRSs, or there is none.
    """
    if not tables:
        raise ConfigError("there is no table of polygons; give at least one, without rows if nothing was found")
    crss = [table.crs for table in tables]
    if any(crs != crss[0] for crs in crss):
        names = ", ".join(sorted({"none" if crs is None else crs.to_string()[:60] for crs in crss}))
        raise ConfigError(f"the tables have different CRSs ({names}); write a file for each")
    filled = [table for table in tables if len(table)]
    if len(filled) < 2:
        return (filled or list(tables))[0]
    return geo_package("pandas").concat(filled, ignore_index=True)
