"""The optional packages of this room, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from segearth.errors import MissingExtraError


def geo_package(name: str) -> Any:
    """Imports a package or module that comes with the extra ``geo``, such as ``"rasterio"`` or ``"rasterio.warp"``.

    Raises:
        MissingExtraError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name.split(".")[0], "geo", error) from error


def rasterio_errors() -> tuple[type[Exception], ...]:
    """Returns what rasterio raises: its own errors, GDAL's that it hands on, and one for all that it does not know."""
    return geo_package("rasterio.errors").RasterioError, geo_package("rasterio._err").CPLE_BaseError, SystemError
