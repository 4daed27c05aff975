"""Uploaded TIFFs: with their place on the map, of any number of bands and any bit depth."""

from __future__ import annotations

import io

from segearth.errors import MissingExtraError, SegEarthError
from segearth.geo.packages import geo_package
from segearth.utils.image_headers import has_place
from segearth.web.uploads import UNREADABLE, Limits, Picture, Place, UploadError, plain_pixels


def read_tiff(data: bytes, name: str, limits: Limits) -> Picture:
    """Reads a TIFF, from memory alone.

    What has other bands or more than 8 bits is shown as :mod:`segearth.geo` shows scenes. Pixels without data are
    black, and no answer takes them in.

    Args:
        data: The file's bytes.
        name: What it is called in errors.
        limits: What is taken.

    Raises:
        UploadError: It has too many pixels or cannot be decoded.
        MissingExtraError: It has a place on the map, and rasterio is not installed.
    """
    try:
        rasterio = geo_package("rasterio")
    except MissingExtraError:
        if has_place(io.BytesIO(data)):
            raise
        return Picture(plain_pixels(data, "TIFF", name, limits), name)
    # A file of a stranger: it may not name other files, which GDAL would then read, and none is looked for beside it.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.io.MemoryFile(data) as memory:
        try:
            return _read(memory.name, name, limits)
        except UploadError:
            raise
        except SegEarthError as error:
            if error.__cause__ is not None:  # GDAL's own, which names an address that means nothing to the user
                message = f"{name} cannot be decoded as TIFF; save it anew, or fetch it again"
            else:
                message = str(error).replace(memory.name, name)
            raise UploadError(message, UNREADABLE) from error


def _read(address: str, name: str, limits: Limits) -> Picture:
    from segearth.geo.raster import open_scene
    from segearth.geo.stretch import SceneStretch

    with open_scene(address, drivers=["GTiff"]) as scene:
        limits.check_pixels(scene.height, scene.width)
        values, valid = scene.read(scene.grid.window)
        pixels = SceneStretch.of(scene).apply(values, valid)
        place = None if scene.crs is None else Place(scene.crs, scene.transform)
        return Picture(pixels, name, place, None if valid.all() else valid)
