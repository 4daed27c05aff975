"""Writes tables of polygons as GeoJSON, GeoPackage or FlatGeobuf, by the file's suffix."""

from __future__ import annotations

import contextlib
import sqlite3
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segearth.errors import ConfigError, OutputError
from segearth.geo.packages import geo_package
from segearth.utils.files import atomic_path, check_output_file

if TYPE_CHECKING:
    import geopandas

_OWN_TABLES = ("gpkg_", "rtree_", "sqlite_")  # of a GeoPackage itself
DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG", ".fgb": "FlatGeobuf"}


def check_vector_path(path: str | Path, layer: str | None = None) -> None:
    """Checks that polygons can be written to ``path``; call it before a long computation.

    Args:
        path: As for :func:`write_vectors`.
        layer: See there.

    Raises:
        OutputError: The suffix is none that can be written, the file cannot be written there, or it is a GeoPackage
            that is open elsewhere or holds more than the layer.
    """
    path = Path(path)
    if path.suffix.lower() not in DRIVERS:
        known = ", ".join(f"{suffix} ({driver})" for suffix, driver in DRIVERS.items())
        raise OutputError(f"{path}: polygons are written to {known}; name a file with one of these suffixes")
    check_output_file(path)
    if path.suffix.lower() == ".gpkg":
        _check_package(path, layer or path.stem)


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
        path: ``.geojson``, ``.gpkg`` or ``.fgb``. Written under another name beside it and renamed when whole, in place
            of a file that is there. A GeoPackage that holds other layers, or is open elsewhere, is left as it is.
        tables: Of :func:`segearth.geo.vectors.vectorise`; several, such as one a question, go below each other into one
            layer, where the column ``question`` tells them apart. Tables without rows give a layer without features.
        layer: Its name; ``None``: the file's, without the suffix.
        wgs84: Of GeoJSON alone: reproject to longitude and latitude, as RFC 7946 wants it.

    Raises:
        OutputError: The suffix is unknown, or the file cannot be written, see :func:`check_vector_path`.
        ConfigError: Tables of different CRSs, none at all, or ``wgs84`` where it has no meaning.
    """
    check_vector_path(path, layer)
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


def _check_package(path: Path, layer: str) -> None:
    for journal in ("-wal", "-journal"):  # of the old file; SQLite would play it into the new one
        if path.with_name(path.name + journal).exists():
            raise OutputError(
                f"{path} is open in another program, since {path.name}{journal} lies beside it; close it in that, such "
                "as QGIS, or name another file"
            )
    if not path.exists():
        return
    tables: list[str] = []
    address = f"{path.resolve().as_uri()}?immutable=1"  # else reading alone may leave a journal beside it
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(address, uri=True)) as file:
        # An error means that it is no GeoPackage; then it is replaced like any other file.
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if others := [name for name in tables if name != layer and not name.startswith(_OWN_TABLES)]:
        raise OutputError(
            f"{path} also holds {', '.join(others)}, which would be deleted; name another file, or delete that one"
        )


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
