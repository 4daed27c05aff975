"""Writes masks and logits as GeoTIFFs on exactly a scene's grid: its CRS, transform (turned ones too) and size."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import OutputError
from segearth.geo.packages import geo_package, rasterio_errors
from segearth.geo.raster import CACHE_BYTES, SceneRaster
from segearth.geo.windows import Window
from segearth.utils.files import atomic_path, check_apart, check_output_file

logger = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.Lock()  # where masks are read back: Python's filters of warnings are those of all threads

NO_DATA = 255  # in a mask: where the scene has no valid pixel, or lies outside of the area of interest
BLOCK = 512  # side of the file's own tiles
PREFIX = "SEGEARTH_"  # of the tags that say how the file was made
# Of an earlier file of that name: GDAL would take its place, its "no data" and its smaller versions for the new one's.
_BESIDE = (".aux.xml", ".ovr", ".msk")
_LOW_DISK = 1 << 26  # bytes; with fewer free, a failed write is put down to a full disk
# Of the scene's tags, those that tell of its values and not of the ground would be wrong of a mask.
_OF_VALUES = ("STATISTICS_", "OVR_", "TIFFTAG_SOFTWARE", "TIFFTAG_MINSAMPLE", "TIFFTAG_MAXSAMPLE", PREFIX)


def check_raster_path(path: str | Path) -> None:
    """Checks that a raster can be written to ``path``; call it before a long computation.

    Raises:
        OutputError: The suffix is not that of a GeoTIFF, or the file cannot be written there.
    """
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{path} is to be a GeoTIFF; let its name end with .tif")
    check_output_file(path)


class SceneWriter:
    """Takes the pixels of a GeoTIFF window by window; made by :func:`scene_writer`."""

    def __init__(self, file: Any, path: Path) -> None:
        """Takes a ``rasterio`` data set that is open for writing.

        Args:
            file: The data set.
            path: Final name, for messages.
        """
        self._file, self._path = file, path
        self._written = 0  # pixels
        self._bits = 0  # sum of all values' bits, to compare with what is read back

    def write(self, window: Window, values: np.ndarray, valid: np.ndarray) -> None:
        """Writes some pixels; each pixel of the scene must be written once.

        Args:
            window: In the scene's own pixels, inside the scene.
            values: ``(Q, h, w)``: boolean for masks, else float logits.
            valid: Boolean ``(h, w)``; others become "no data", which is 255 in masks and not-a-number in logits.

        Raises:
            OutputError: The disk is full, or the file cannot be written for another reason.
        """
        kind = np.dtype(self._file.dtypes[0])
        array = np.where(valid, values, self._file.nodata).astype(kind)
        place = geo_package("rasterio.windows").Window(window.left, window.top, window.width, window.height)
        with _gdal(self._path):
            self._file.write(array, window=place)
        self._written += window.height * window.width
        self._bits += _sum_of_bits(array)

    def tag(self, facts: Mapping[str, object], question: int | None = None) -> None:
        """Notes how the file, or one question's band, was made; names become ``SEGEARTH_`` and upper case.

        Args:
            facts: By name, such as ``score``. ``None`` is left out.
            question: Number of the question, from 0; ``None``: of the file.
        """
        tags = {PREFIX + name.upper(): _text(value) for name, value in facts.items() if value is not None}
        with _gdal(self._path):
            self._file.update_tags(question + 1 if question is not None else 0, **tags)

    def close(self) -> None:
        """Closes the file; :func:`scene_writer` does it.

        Raises:
            OutputError: Not every pixel was written, or the disk is full.
        """
        missing = self._file.height * self._file.width - self._written
        with _gdal(self._path):
            self._file.close()
        if missing:
            raise OutputError(f"{self._path}: {missing} pixels were not written, or some twice; write each once")

    def check(self, file: Path, scene: SceneRaster) -> None:
        """Reads back what was written, since GDAL does not always say that a disk was full; overviews too.

        Args:
            file: Where it lies now.
            scene: On whose grid it must lie.

        Raises:
            OutputError: Something is missing, or a GeoTIFF cannot hold the scene's grid.
        """
        rasterio = geo_package("rasterio")
        with _gdal(self._path):
            with rasterio.open(file) as back:
                crs, grid, smaller = back.crs, (back.transform, *back.shape), len(back.overviews(1))
            sums = []
            for level in (None, *range(smaller)):
                with rasterio.open(file, overview_level=level) as back:
                    sums.append(sum(_sum_of_bits(back.read(window=part)) for part in _strips_of(back)))
        if sums[0] != self._bits:
            raise OutputError(f"{self._path} was not written whole; {_remedy(self._path)}")
        if grid != (scene.transform, scene.height, scene.width) or (crs is None) != (scene.crs is None):
            raise OutputError(
                f"{self._path}: a GeoTIFF cannot hold the grid of {scene.name}; bring that to another CRS (gdalwarp)"
            )
        if crs != scene.crs:
            logger.warning("%s states the CRS of %s in slightly other words", self._path, scene.name)


@contextlib.contextmanager
def scene_writer(
    path: str | Path,
    scene: SceneRaster,
    questions: Sequence[str],
    *,
    logits: bool = False,
    cog: bool = False,
    overviews: bool = True,
) -> Iterator[SceneWriter]:
    """Opens a GeoTIFF for writing; it gets its name when the block ends without an error, and is whole then.

    It is tiled and compressed, and a BigTIFF where it may grow beyond 4 GB. The scene's tags on date and place stay.

    Args:
        path: Ends with ``.tif`` or ``.tiff``. A file that is there already stays until the new one is complete; then
            what GDAL keeps beside it (``.aux.xml``, ``.ovr``, ``.msk``) is deleted.
        scene: Whose grid is taken, whatever the working grid.
        questions: One for each band, whose description it becomes.
        logits: Write float32 logits. By default a mask: ``uint8``, 1 for what was asked for, 0 for the rest.
        cog: Write a cloud-optimised GeoTIFF (https://cogeo.org), which is copied together at the end.
        overviews: Write smaller versions of the picture beside it, so that a viewer opens it fast: of masks with the
            value that most pixels have, of logits with their mean. A cloud-optimised file has them in any case.

    Raises:
        MissingExtraError: ``rasterio`` is not installed.
        OutputError: The name or folder does not do, it is the scene's own file, or the disk is full.
    """
    path = Path(path)
    check_raster_path(path)
    for file in (scene.name, *scene.files):
        check_apart(file, path)
    with atomic_path(path) as temporary:
        plain = temporary.with_name(f"{temporary.name}.plain.tif") if cog else temporary
        try:
            file = _create(plain, path, scene, questions, logits)
            writer = SceneWriter(file, path)
            try:
                yield writer
            except BaseException:
                with contextlib.suppress(OutputError), _gdal(path):
                    file.close()
                raise
            writer.close()
            with _gdal(path):
                if cog:
                    _copy_as_cog(plain, temporary, logits)
                elif overviews:
                    _build_overviews(plain, logits)
            writer.check(temporary, scene)
        finally:
            if cog:
                plain.unlink(missing_ok=True)
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def read_mask_back(path: Path, question: int, windows: Iterable[Window]) -> Generator[np.ndarray, None, None]:
    """Reads what a mask that was written says of one question.

    Args:
        path: The file.
        question: Its number, from 0.
        windows: In the scene's own pixels.

    Yields:
        Boolean ``(h, w)`` of each window.
    """
    with _ONE_AT_A_TIME, _gdal(path):
        file = geo_package("rasterio").open(path)
    with file:
        for window in windows:
            place = geo_package("rasterio.windows").Window(window.left, window.top, window.width, window.height)
            with _ONE_AT_A_TIME, _gdal(path):  # GDAL's cache is bounded inside alone
                values = file.read(question + 1, window=place)
            yield values == 1


def _create(plain: Path, path: Path, scene: SceneRaster, questions: Sequence[str], logits: bool) -> Any:
    profile = {
        "driver": "GTiff",
        "height": scene.height,
        "width": scene.width,
        "count": len(questions),
        "dtype": "float32" if logits else "uint8",
        "nodata": float("nan") if logits else NO_DATA,
        "crs": scene.crs,
        "transform": None if scene.transform.is_identity else scene.transform,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "predictor": 3 if logits else 1,  # 3 puts like bytes of floats together; flat masks shrink best as they are
        "interleave": "band",  # one question can be read without the others
        "photometric": "minisblack",  # else three questions would be shown as red, green and blue
        "bigtiff": "if_safer",
    }
    with _gdal(path):
        file = geo_package("rasterio").open(plain, "w", **profile)
        file.update_tags(**{name: text for name, text in scene.tags.items() if not name.startswith(_OF_VALUES)})
        for number, question in enumerate(questions, 1):
            file.set_band_description(number, question)
    return file


def _build_overviews(plain: Path, logits: bool) -> None:
    rasterio, Resampling = geo_package("rasterio"), geo_package("rasterio.enums").Resampling
    with rasterio.open(plain) as file:  # a damaged file is told more clearly than by opening it for changes
        side = max(file.shape)
    factors: list[int] = []
    while side > BLOCK << len(factors):
        factors.append(2 << len(factors))
    if factors:
        with rasterio.open(plain, "r+") as file:
            file.build_overviews(factors, Resampling.average if logits else Resampling.mode)


def _copy_as_cog(plain: Path, temporary: Path, logits: bool) -> None:
    options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": BLOCK, "BIGTIFF": "IF_SAFER", "INTERLEAVE": "BAND"}
    options["OVERVIEW_RESAMPLING"] = "AVERAGE" if logits else "MODE"
    options["PREDICTOR"] = "YES" if logits else "NO"
    geo_package("rasterio.shutil").copy(plain, temporary, driver="COG", **options)


def _strips_of(file: Any) -> Iterator[Any]:
    for top in range(0, file.height, BLOCK):
        yield geo_package("rasterio.windows").Window(0, top, file.width, min(BLOCK, file.height - top))


def _sum_of_bits(array: np.ndarray) -> int:
    return int(array.view(np.uint8 if array.itemsize == 1 else np.uint32).sum(dtype=np.uint64))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def _gdal(path: Path) -> Iterator[None]:
    """Sets GDAL for the block, and turns its errors into an ``OutputError`` with a remedy."""
    # Without this, what a GeoTIFF cannot hold would go to a second file beside the temporary name, and stay there.
    settings = {
        "GDAL_PAM_ENABLED": "NO",
        "GDAL_CACHEMAX": CACHE_BYTES,
        "GDAL_TIFF_OVR_BLOCKSIZE": BLOCK,
        "GDAL_NUM_THREADS": "ALL_CPUS",  # to compress, to make smaller versions, and to read back
    }
    try:
        with geo_package("rasterio").Env(**settings), warnings.catch_warnings():
            warnings.simplefilter("ignore", geo_package("rasterio.errors").NotGeoreferencedWarning)  # a plain picture
            yield
    except rasterio_errors() as error:
        raise OutputError(f"{path} cannot be written ({error.__cause__ or error}); {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    try:
        full = shutil.disk_usage(path.parent).free < _LOW_DISK
    except OSError:
        full = False
    return "the disk is full: free some space" if full else "name another place, or look whether the disk is full"
