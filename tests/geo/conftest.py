from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHARED = Path("shared", "data", "geotiff")  # beside a checkout, or beside the folder it lies in


@pytest.fixture(scope="session")
def geotiffs() -> list[Path]:
    """Real rasters; tests that want them are skipped where they are not."""
    folders = (above / SHARED for above in Path(__file__).resolve().parents)
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.tif"))]
    if not found:
        pytest.skip("the real rasters are not there")
    return found


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``(bands, H, W)`` as a GeoTIFF of half-metre pixels in UTM, and returns its path."""
    rasterio = pytest.importorskip("rasterio")

    def make(array: np.ndarray, name: str = "scene.tif", **profile: Any) -> Path:
        path = tmp_path / name
        bands, height, width = array.shape
        known: dict[str, Any] = {
            "driver": "GTiff", "dtype": array.dtype, "count": bands, "height": height, "width": width,
            "crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 0.5, 0.5),
        }  # fmt: skip
        colours = profile.pop("colours", None)
        mask = profile.pop("mask", None)
        descriptions = profile.pop("descriptions", ())
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **{**known, **profile}) as file:
            if colours:
                file.colorinterp = [rasterio.enums.ColorInterp[colour] for colour in colours]
            file.write(array)
            if mask is not None:
                file.write_mask(mask)
            for number, text in enumerate(descriptions, 1):
                file.set_band_description(number, text)
        return path

    return make
