"""Sets the polygons of a question beside published footprints: how much of the ground is shared, how many are found.

    python tools/footprints.py a.tif a.buildings.geojson
    python tools/footprints.py a.tif a.geojson b.tif b.geojson --question "the roofs" --model runs/mine/model

A footprint counts as found where one polygon covers it with an IoU above 0.5, as the SpaceNet challenges count (Van
Etten and others, arXiv 1807.01232). With IoUs above a half no two polygons can claim the same footprint.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

LEAST_IOU = 0.5


class Match(NamedTuple):
    """How polygons agree with footprints.

    Attributes:
        footprints: How many there are in the scene.
        polygons: How many were drawn.
        found: Footprints that one polygon covers with an IoU above 0.5.
        iou: Of the ground that all polygons and all footprints cover.
    """

    footprints: int
    polygons: int
    found: int
    iou: float


def match(polygons: Any, footprints: Any) -> Match:
    """Compares two GeoDataFrames of areas in the same projected CRS."""
    import shapely

    drawn, known = (shapely.get_parts(table.geometry.values) for table in (polygons, footprints))
    common = shapely.area(shapely.intersection(drawn[:, None], known[None]))
    ious = common / (shapely.area(drawn)[:, None] + shapely.area(known)[None] - common)
    ours, theirs = shapely.union_all(drawn), shapely.union_all(known)
    both = shapely.area(shapely.intersection(ours, theirs))
    united = shapely.area(shapely.union(ours, theirs))
    return Match(len(known), len(drawn), int((ious > LEAST_IOU).any(0).sum()), float(both / united) if united else 0.0)


def compared(segmenter: Any, scene: Path, footprints: Path, question: str) -> Match:
    """Asks a scene and compares what was drawn with the footprints in it, in the UTM zone of the scene."""
    import geopandas
    import rasterio
    import shapely

    from segearth.inference.scene import segment_scene
    from segearth.inference.scene_types import SceneOptions

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.gpkg"
        segment_scene(
            segmenter, scene, question, Path(folder) / "mask.tif", vector=drawn, options=SceneOptions(progress=False)
        )
        polygons = geopandas.read_file(drawn)
    with rasterio.open(scene) as raster:
        frame = geopandas.GeoSeries([shapely.box(*raster.bounds)], crs=raster.crs)
    zone = frame.estimate_utm_crs()
    known = geopandas.read_file(footprints).to_crs(raster.crs).clip(frame.iloc[0], keep_geom_type=True)
    return match(polygons.to_crs(zone), known.to_crs(zone))


def main() -> None:
    """Prints a row for each scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="SCENE FOOTPRINTS", help="pairs of a raster and polygons"
    )
    parser.add_argument("--question", default="the buildings")
    parser.add_argument("--model", default="segearth_tiny")
    options = parser.parse_args()
    if len(options.files) % 2:
        parser.error("give a raster and its footprints, then the next pair")
    import segearth

    segmenter = segearth.load(options.model)
    print("| scene | IoU of the ground | footprints | polygons | footprints found |\n|---|---:|---:|---:|---:|")
    for scene, footprints in zip(options.files[::2], options.files[1::2], strict=True):
        row = compared(segmenter, scene, footprints, options.question)
        print(f"| {scene.stem} | {row.iou:.2f} | {row.footprints} | {row.polygons} | {row.found} |")


if __name__ == "__main__":
    main()
