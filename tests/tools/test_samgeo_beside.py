"""The half of the comparison that needs no samgeo: what segearth makes of the rule, and what is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tool_files import load_tool

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed: pip install 'segearth[geo]'")
pytest.importorskip("geopandas", reason="geopandas is not installed: pip install 'segearth[geo]'")


def test_a_mask_by_the_rule_and_its_polygons(tmp_path: Path) -> None:
    load_tool("scene_benchmark")  # which it takes a function of
    tool = load_tool("samgeo_beside")
    array = np.full((3, 600, 700), 40, np.uint8)
    array[1, 100:200, 300:500] = array[1, 500:560, 20:60] = 250
    profile = {"driver": "GTiff", "width": 700, "height": 600, "count": 3, "dtype": "uint8", "crs": "EPSG:32645",
               "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 3_000_000)}  # fmt: skip
    with rasterio.open(tmp_path / "in.tif", "w", **profile) as file:
        file.write(array)
    told = tool.run_part("segearth_mask", tmp_path / "in.tif", tmp_path / "mask.tif")
    tool.run_part("segearth_polygons", tmp_path / "mask.tif", tmp_path / "out.gpkg")
    assert told["seconds"] > 0 and told["peak_gb"] > 0
    facts = tool.facts_of(tmp_path / "in.tif", tmp_path / "mask.tif", tmp_path / "out.gpkg")
    assert facts["grid_kept"] and facts["crs_kept"] and facts["polygons"] == 2
    with rasterio.open(tmp_path / "mask.tif") as file:
        expected = tool.mean_green(array.transpose(1, 2, 0)) > 128
        np.testing.assert_array_equal(file.read(1) == 1, expected)  # as if there were no tiles
        assert facts["share"] == pytest.approx(expected.mean())
