"""Draws masks of a scene beside it, for docs/geo.md; the masks are those that ``segearth scene`` wrote.

segearth scene docs/notebooks/village.tif "the buildings" buildings.tif
segearth scene docs/notebooks/village.tif "the largest building" largest.tif
python tools/geo_pictures.py docs/notebooks/village.tif buildings.tif largest.tif --out docs/images/scene_village.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from segearth.geo.raster import open_scene
from segearth.geo.stretch import SceneStretch
from segearth.inference.visualize import overlay

GAP = 8  # white pixels between two pictures


def side_by_side(scene: Path, masks: list[Path]) -> np.ndarray:
    """Returns the scene as the model sees it and, to the right of it, each mask's first band drawn on it."""
    with open_scene(scene) as raster:
        picture = SceneStretch.of(raster).apply(*raster.read_own(raster.own_window))
    drawn = [picture]
    for path in masks:
        with rasterio.open(path) as mask:
            drawn.append(overlay(picture, mask.read(1) == 1))
    gap = np.full((len(picture), GAP, 3), 255, np.uint8)
    return np.concatenate([part for each in drawn for part in (gap, each)][1:], axis=1)


def main() -> None:
    """Reads the command line and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("masks", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    Image.fromarray(side_by_side(arguments.scene, arguments.masks)).save(arguments.out, quality=80)


if __name__ == "__main__":
    main()
