from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tool_files import load_tool

rasterio = pytest.importorskip("rasterio")


def test_masks_are_drawn_to_the_right_of_the_scene(tmp_path: Path) -> None:
    picture, mask = np.full((3, 20, 30), 100, np.uint8), np.zeros((1, 20, 30), np.uint8)
    mask[0, 5:15, 5:15], mask[0, 0] = 1, 255  # 255 is "no data", which is not drawn
    grid = {"driver": "GTiff", "height": 20, "width": 30, "dtype": "uint8"}
    for name, values in (("scene.tif", picture), ("mask.tif", mask)):
        with rasterio.open(tmp_path / name, "w", count=len(values), **grid) as file:
            file.write(values)
    tool = load_tool("geo_pictures")
    drawn = tool.side_by_side(tmp_path / "scene.tif", [tmp_path / "mask.tif"])
    assert drawn.shape == (20, 30 + tool.GAP + 30, 3) and (drawn[:, 30 : 30 + tool.GAP] == 255).all()
    right = drawn[:, 30 + tool.GAP :]
    assert (drawn[:, :30] == 100).all() and (right[0] == 100).all() and (right[10, 10] != 100).any()
