"""Opens scenes, that is georeferenced rasters, and reads them by windows."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import ImageError
from segearth.geo.bands import alpha_of, choose_bands, palette_of
from segearth.geo.grids import metres_per_pixel, place_of, working_grid
from segearth.geo.packages import geo_package, rasterio_errors
from segearth.geo.windows import Window
from segearth.utils.files import exists

if TYPE_CHECKING:
    from affine import Affine

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 28  # decoded size of the largest block that is read
PIXELS_AT_ONCE = 1 << 23  # of the scene, that are held while they are averaged to working pixels
# Of GDAL's for decoded blocks, one for the whole process; its default, a twentieth of the memory, may be gigabytes. In
# bytes, since rasterio hands on as bytes even what GDAL would read as megabytes, and nothing would be kept.
CACHE_BYTES = 1 << 27


class SceneRaster:
    """A scene, open for reading by windows; made by :func:`open_scene`, to be used in a ``with`` block.

    Pixels are those of the working grid, which are the scene's own where no other resolution was asked for. A scene may
    be read by one thread at a time.

    Attributes:
        name: The file, as it was named.
        height: Rows of the scene itself.
        width: Its columns.
        crs: ``rasterio.crs.CRS``, or ``None`` for a plain picture.
        transform: From the scene's own pixels ``(column, row)`` to coordinates; the identity for a plain picture.
        dtype: Type of what :meth:`read` returns.
        bands: The three bands that are read, from 1; three times the same for grey.
        tags: What the file says of itself, such as ``AREA_OR_POINT`` or the date.
        metres_per_pixel: Of the scene's own pixels, see :func:`segearth.geo.grids.metres_per_pixel`.
        grid: The working grid.
    """

    def __init__(self, dataset: Any, name: str, bands: int | Sequence[int] | None, resolution: float | None) -> None:
        """Takes an open ``rasterio`` data set; :func:`open_scene` calls this.

        Args:
            dataset: The data set.
            name: The file as it was named.
            bands: As for :func:`open_scene`.
            resolution: As for :func:`open_scene`.
        """
        self._dataset, self.name = dataset, name
        self.height, self.width = int(dataset.height), int(dataset.width)
        self.crs, self.transform = dataset.crs, dataset.transform
        self.bands = choose_bands(dataset, bands)
        self._apart = list(dict.fromkeys(self.bands))  # each once: they are read once
        self._palette = palette_of(dataset, self.bands[0]) if len(set(self.bands)) == 1 else None
        flags = [dataset.mask_flag_enums[band - 1] for band in self._apart]
        self._masked = any(geo_package("rasterio.enums").MaskFlags.all_valid not in each for each in flags)
        # Where a file has both, GDAL's masks are of its nodata value alone.
        self._alpha = alpha_of(dataset) if any(value is not None for value in dataset.nodatavals) else None
        kinds = [np.dtype(dataset.dtypes[band - 1]) for band in self.bands]
        self.dtype = np.dtype(np.uint8) if self._palette is not None else np.result_type(*kinds)
        self.tags: dict[str, str] = dataset.tags()
        self.metres_per_pixel = metres_per_pixel(self.crs, self.transform, self.height, self.width)
        self.grid = working_grid(self.height, self.width, self.transform, self.metres_per_pixel, resolution)

    def __enter__(self) -> SceneRaster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    @property
    def public_name(self) -> str:
        """The name for files that are handed on: of an address without a password, a signature or another query."""
        if "://" not in self.name and not self.name.startswith("/vsi"):
            return self.name
        return re.sub(r"(?<=://)[^/@]*@", "", self.name.partition("?")[0])

    @property
    def files(self) -> list[str]:
        """The local files that are read, beside the one that was named: a VRT's sources, overviews, masks."""
        return [name for name in self._dataset.files if exists(name)]

    @property
    def working_transform(self) -> Affine:
        """From pixels ``(column, row)`` of the working grid to coordinates."""
        return self.grid.transform(self.transform)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Reads some pixels.

        Args:
            window: In pixels of the working grid. It may reach over the border.

        Returns:
            Values ``(h, w, 3)`` of the scene's :attr:`dtype`, and boolean ``(h, w)``: which pixels are valid. Invalid
            are those beyond the border, transparent ones, those masked or without data, and those that are not a number
            or infinite in any band. Values of the former are 0.

        Raises:
            ImageError: The file is damaged, or cannot be reached.
        """
        values = np.zeros((window.height, window.width, 3), self.dtype)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.intersection(self.grid.window)
        if inside is None:
            return values, valid
        for part in self._parts(inside):
            place = part.slices_in(window)
            source = self.grid.scene_window(part)
            seen, known = self._read(source, (source.height, source.width))
            if not self.grid.is_native:
                seen, known = self.grid.to_working(seen, known, part)
            values[place], valid[place] = self._three(seen), known
        return values, valid

    @property
    def own_window(self) -> Window:
        """All of the scene's own pixels."""
        return Window(0, 0, self.height, self.width)

    def read_own(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Reads pixels of the scene itself, whatever the working grid; the window must lie inside. As :meth:`read`."""
        values, valid = self._read(window, (window.height, window.width))
        return np.ascontiguousarray(self._three(values)), valid

    @property
    def has_overviews(self) -> bool:
        """Whether smaller versions of the scene lie in the file."""
        return bool(self._dataset.overviews(self.bands[0]))

    def read_whole(self, side: int, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole scene, or a window of its own pixels, made smaller: its longer side is at most ``side``.

        Pixels are picked, not averaged. Where the file has overviews, the next larger one is read, which is fast for
        the largest scene; else all blocks are. The picture is fit for statistics and for a glance.

        Returns:
            As for :meth:`read`, ``(h, w, 3)`` and ``(h, w)``. A scene that is small enough is not changed.
        """
        window = window or self.own_window
        values, valid = self._read(window, size_of_whole(side, window))
        return np.ascontiguousarray(self._three(values)), valid

    @property
    def compass(self) -> np.ndarray | None:
        """``(2, 2)``, takes a step ``(x, y)`` in own pixels to one ``(east, north)``; ``None`` without a map.

        East and north are where the map's first and second coordinate grow. The step is in metres on the ground at the
        scene's centre, since a degree of longitude is shorter than one of latitude; where metres are unknown, in the
        map's unit.
        """
        if self.crs is None:
            return None
        t = self.transform
        x, y = place_of(t, self.width / 2, self.height / 2)
        side = math.sqrt(abs(t.determinant))
        upright = type(t)(side, 0, x, 0, side, y)
        metres = metres_per_pixel(self.crs, upright, 0, 0) or (side, side)
        return np.diag(metres) / side @ [[t.a, t.b], [t.d, t.e]]

    def _parts(self, window: Window) -> Iterator[Window]:
        """Cuts a window into groups of rows, so that the scene's pixels below each fit into memory."""
        source = self.grid.scene_window(window)
        rows = window.height
        if not self.grid.is_native:
            rows = max(1, math.floor(PIXELS_AT_ONCE / source.width / self.grid.rows.scale))
        for top in range(window.top, window.bottom, rows):
            yield Window(top, window.left, min(rows, window.bottom - top), window.width)

    def _read(self, window: Window, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Reads pixels of the scene itself as an array of ``size``: each band once, ``(C, h, w)``, and which are valid.

        The window must lie inside.
        """
        bands = self._apart
        place = geo_package("rasterio.windows").Window(window.left, window.top, window.width, window.height)
        with _reading(self.name):
            values = self._values(place, size)
            masks = np.ones((len(bands), 1, 1), np.uint8)  # reading what is all valid takes as long as the pixels do
            if self._masked:
                with self._without_shadow_warning():
                    masks = self._dataset.read_masks(bands, window=place, out_shape=values.shape)
            opaque = self._dataset.read(self._alpha, window=place, out_shape=size) > 0 if self._alpha else True
        valid = self._valid(values, masks > 0) & opaque
        if self._palette is not None:
            colours = self._palette[:, values[0].clip(0, self._palette.shape[1] - 1)]
            return colours[:3], valid & (colours[3] > 0)
        return values.astype(self.dtype, copy=False), valid

    def _values(self, place: Any, size: tuple[int, int]) -> np.ndarray:
        """Reads the values of each band once, ``(C, h, w)``."""
        bands = self._apart
        if len({self._dataset.dtypes[band - 1] for band in bands}) == 1:
            values: np.ndarray = self._dataset.read(bands, window=place, out_shape=(len(bands), *size))
            return values
        # As a VRT may have them. One by one takes longer, but rasterio refuses to read bands of several types at once.
        return np.stack([self._dataset.read(band, window=place, out_shape=size) for band in bands])

    @contextlib.contextmanager
    def _without_shadow_warning(self) -> Iterator[None]:
        """Keeps GDAL's masks from warning that they leave alpha out, which is read beside them."""
        if self._alpha is None:
            yield
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", geo_package("rasterio.errors").NodataShadowWarning)
            yield

    def _three(self, values: np.ndarray) -> np.ndarray:
        """Brings bands ``(C, h, w)`` as :meth:`_read` gives them into the order red, green, blue: ``(h, w, 3)``."""
        if self._palette is None and len(self._apart) < 3:
            values = values[[self._apart.index(band) for band in self.bands]]
        return values.transpose(1, 2, 0)

    def _valid(self, values: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Joins the bands' masks ``(N, h, w)`` to one.

        In an unsigned file "no data" is mostly 0 or 255, which a single band of a real pixel has too, such as red over
        deep water; there a pixel counts as empty only if all its bands do. In other files it is a value that nothing
        measured has, such as -9999, and one band is enough.
        """
        if np.issubdtype(values.dtype, np.unsignedinteger):
            return np.broadcast_to(np.logical_or.reduce(masks), values.shape[1:])
        return np.logical_and.reduce(masks & np.isfinite(values))

    def facts(self) -> dict[str, Any]:
        """Returns what tells this scene, as it is read, from another: to be kept beside results that depend on it.

        Of a local file its size in bytes and the time of its last change are among them.
        """
        changed: dict[str, int] = {}
        with contextlib.suppress(OSError):
            state = Path(self.name).stat()
            changed = {"bytes": state.st_size, "changed_ns": state.st_mtime_ns}
        return {
            "source": self.name,
            "height": self.height,
            "width": self.width,
            "transform": list(self.transform)[:6],
            "bands": list(self.bands),
            "working_height": self.grid.height,
            "working_width": self.grid.width,
            "scales": [self.grid.rows.scale, self.grid.columns.scale],
            **changed,
        }


def size_of_whole(side: int, window: Window) -> tuple[int, int]:
    """Returns the height and width that :meth:`SceneRaster.read_whole` makes of a window."""
    smaller = max(window.height, window.width, side) / side
    return max(1, round(window.height / smaller)), max(1, round(window.width / smaller))


def open_scene(
    source: str | Path,
    bands: int | Sequence[int] | None = None,
    resolution: float | None = None,
    drivers: Sequence[str] | None = None,
) -> SceneRaster:
    """Opens a raster to read it by windows, whatever its size.

    A small file may state a huge size, or unpack to one. Here that takes no memory: pixels are never read as a whole,
    and a file whose single blocks unpack to more than 256 MiB is refused.

    Args:
        source: A file of any format that GDAL reads, a web address, ``s3://…``, or one of GDAL's own ``/vsi…`` paths.
            A file without a CRS is a plain picture.
        bands: Which bands to show as red, green and blue, from 1; see :func:`segearth.geo.bands.choose_bands`.
        resolution: Metres that a pixel should measure; the scene is read through a working grid of that resolution, see
            :mod:`segearth.geo.grids`. ``None``: the scene's own pixels.
        drivers: Short names of the only GDAL formats that are accepted, such as ``["GTiff"]``. For files of strangers:
            some formats, such as VRT, name other files and addresses, which GDAL would then read.

    Raises:
        MissingExtraError: ``rasterio`` is not installed.
        ImageError: The file is missing, damaged or cannot be reached; it is no raster, has complex numbers, has a place
            on the earth but no regular grid, or is stored in blocks too large to be read one by one.
        ConfigError: The bands or the resolution do not fit.
    """
    rasterio = geo_package("rasterio")
    name = str(source)
    with _reading(name), warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # a plain picture is welcome
        # `rasterio.open` takes one driver only; what it returns takes several.
        opened = rasterio.open(name) if drivers is None else rasterio.io.DatasetReader(name, driver=list(drivers))
        dataset = stack.enter_context(opened)
        _check_form(dataset, name)
        scene = SceneRaster(dataset, name, bands, resolution)
        stack.pop_all()  # it stays open, for the scene to close
    return scene


def _check_form(dataset: Any, name: str) -> None:
    if not dataset.count or not dataset.width or not dataset.height:
        inner = ", ".join(dataset.subdatasets[:5])
        remedy = f"name one of the rasters in it: {inner}" if inner else "look at it with gdalinfo"
        raise ImageError(f"{name} has no pixels of its own; {remedy}")
    if strange := [kind for kind in dataset.dtypes if "complex" in kind]:
        raise ImageError(
            f"{name} holds complex numbers ({strange[0]}); write their size to a file of its own: "
            f"gdal_translate DERIVED_SUBDATASET:AMPLITUDE:{name} amplitude.tif"
        )
    if not dataset.transform.determinant:
        raise ImageError(
            f"{name} has a transform that maps its pixels to one line; state the right corners: "
            f"gdal_translate -a_ullr LEFT TOP RIGHT BOTTOM {name} out.tif"
        )
    placed = dataset.crs is not None or not dataset.transform.is_identity
    if not placed and (dataset.gcps[0] or dataset.rpcs):
        what, option = ("ground control points", "-tps") if dataset.gcps[0] else ("an RPC camera model", "-rpc")
        raise ImageError(
            f"{name} has {what} and no regular grid; bring it onto one first: "
            f"gdalwarp {option} -r bilinear {name} out.tif"
        )
    for (rows, columns), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        together = dataset.count if str(dataset.profile.get("interleave")).lower() == "pixel" else 1
        size = rows * columns * np.dtype(kind).itemsize * together
        if size > BLOCK_BYTES:
            raise ImageError(
                f"{name} is stored in blocks of {columns} x {rows} pixels, each of which takes {size >> 20} MiB of "
                "memory; store it in tiles: "
                f"gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER {name} out.tif"
            )


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Sets GDAL's cache for the block, and turns rasterio's errors into an ``ImageError`` with a remedy."""
    rasterio = geo_package("rasterio")
    try:
        # Around each call and not as long as the file is open: rasterio loses settings that end out of order.
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            yield
    except rasterio_errors() as error:
        local = not name.startswith("/vsi") and "://" not in name
        if local and ":" not in name and not Path(name).exists():  # NETCDF:file.nc:variable is a part of a file
            raise ImageError(f"no raster file {name}; name one that exists") from error
        remedy = "look at it with gdalinfo, or fetch it again" if local else "check the address and your rights there"
        reason = error.__cause__ or error  # rasterio's own words are often "see previous exception"
        raise ImageError(f"{name} is damaged, no raster, or cannot be reached ({reason}); {remedy}") from error
