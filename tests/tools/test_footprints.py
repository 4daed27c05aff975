"""The tool that sets polygons beside published footprints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tool_files import load_tool

from segearth.structures import Segmentation

geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed: pip install 'segearth[geo]'")
rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed: pip install 'segearth[geo]'")
shapely = pytest.importorskip("shapely", reason="shapely is not installed: pip install 'segearth[geo]'")

TOOL = load_tool("footprints")
ZONE = "EPSG:32645"


def table(*boxes: tuple[float, ...]) -> Any:
    return geopandas.GeoDataFrame(geometry=[shapely.box(*box) for box in boxes], crs=ZONE)


def test_footprints_are_found_one_by_one() -> None:
    known = table((0, 0, 10, 10), (10, 0, 20, 10), (40, 0, 50, 10))
    # One polygon over two footprints covers each by just a half, which finds neither.
    assert TOOL.match(table((0, 0, 20, 10)), known) == (3, 1, 0, pytest.approx(2 / 3))
    assert TOOL.match(table((0, 0, 10, 6), (10, 0, 20, 10), (60, 0, 70, 10)), known) == (
        3, 3, 2, pytest.approx(160 / 400),
    )  # fmt: skip
    assert TOOL.match(known.iloc[:0], known) == (3, 0, 0, 0.0)
    assert TOOL.match(known.iloc[:0], known.iloc[:0]) == (0, 0, 0, 0.0)


class Bright:
    """Finds what is bright."""

    def set_image(self, image: Any) -> None:
        self.image = np.asarray(image)

    def set_images(self, images: Any) -> None:
        (self.image,) = map(np.asarray, images)

    def predict(self, questions: Any, **options: Any) -> list[Segmentation]:
        mask = self.image[..., 0] > 128
        return [Segmentation(text, mask, 1.0, bool(mask.any()), 1.0) for text in questions]


def test_a_scene_is_asked_and_footprints_outside_it_do_not_count(tmp_path: Path) -> None:
    picture = np.zeros((3, 100, 120), np.uint8)
    picture[:, 20:40, 30:60] = 255
    place = rasterio.Affine(1, 0, 500_000, 0, -1, 3_000_000)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=120, height=100, count=3, dtype="uint8", crs=ZONE,
        transform=place,
    ) as file:  # fmt: skip
        file.write(picture)
    here = shapely.box(500_030, 2_999_960, 500_060, 2_999_980)
    far = shapely.box(501_000, 2_999_960, 501_030, 2_999_980)
    known = geopandas.GeoDataFrame(geometry=[here, far], crs=ZONE).to_crs("EPSG:4326")
    known.to_file(tmp_path / "known.geojson")
    row = TOOL.compared(Bright(), tmp_path / "scene.tif", tmp_path / "known.geojson", "the houses")
    assert row[:3] == (1, 1, 1) and math.isclose(row.iou, 1, abs_tol=1e-3)
