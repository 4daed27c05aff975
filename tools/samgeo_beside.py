"""Sets segearth beside segment-geospatial (samgeo) where both do the same: a GeoTIFF in, a mask and polygons out.

    pip install segment-geospatial                     # in an environment of its own, if it does not go with this one
    python tools/samgeo_beside.py --side 5000 --samgeo-python other/bin/python
    python tools/samgeo_beside.py --picture a.tif b.tif    # real files instead of a made one

Neither has a model here: what is measured is reading, tiling, writing and tracing, by the same rule for each tile: a
pixel belongs to the mask where the mean green of the 25 x 25 pixels around it is above 128. Each part is a process of
its own, for a peak memory of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TILE, OVERLAP = 512, 128


def mean_green(tile: np.ndarray) -> np.ndarray:
    """Float32 ``(h, w)``; it reaches 12 pixels, less than what tiles share."""
    import cv2

    return cv2.blur(tile[..., 1].astype(np.float32), (25, 25))


def segearth_mask(source: Path, mask: Path) -> None:
    """Asks a segmenter that follows the rule, as ``segearth scene`` would ask a model."""
    from segearth.inference.scene import segment_scene
    from segearth.inference.scene_types import SceneOptions
    from segearth.segmenter import SegmenterFacts, numbers_of_images
    from segearth.structures import Segmentation

    class Rule:
        facts = SegmenterFacts(side=TILE)

        def set_image(self, image: Any) -> None:
            self.set_images([image])

        def set_images(self, images: Any) -> None:
            self.images = [np.asarray(image) for image in images]

        def predict(self, questions: Any, *, about: Any = None, **options: Any) -> list[Segmentation]:
            answers = []
            for text, number in zip(
                questions, numbers_of_images(about, len(questions), len(self.images)), strict=True
            ):
                logits = mean_green(self.images[number]) - 128
                answers.append(Segmentation(text, logits > 0, 1.0, True, 1.0, logits=logits))
            return answers

    options = SceneOptions(mode="tile", tile_size=TILE, overlap=OVERLAP, resolution=None, progress=False)
    segment_scene(Rule(), source, "the green", mask, options=options)


def segearth_polygons(mask: Path, polygons: Path) -> None:
    """Traces a mask and writes its polygons, as ``segearth scene --vector`` does."""
    from segearth.geo.vector_files import write_vectors
    from segearth.geo.vectors import vectorise

    write_vectors(polygons, [vectorise(mask)])


def samgeo_mask(source: Path, mask: Path) -> None:
    """Lets samgeo cut the tiles and write, which is what its ``generate(batch=True)`` does with a model."""
    from samgeo.common import prepare_image_for_sam, tiff_to_tiff

    def rule(tile: np.ndarray, **options: Any) -> np.ndarray:
        return (mean_green(tile) > 128).astype(np.uint8) * 255

    tiff_to_tiff(
        str(source), str(mask), rule, sample_size=(TILE, TILE), bound=OVERLAP // 2,
        data_to_rgb=lambda block: prepare_image_for_sam(block, channel_axis=0),
    )  # fmt: skip


def samgeo_polygons(mask: Path, polygons: Path) -> None:
    """Traces a mask by samgeo's own function."""
    from samgeo.common import raster_to_vector

    raster_to_vector(str(mask), str(polygons))


PARTS: dict[str, Callable[[Path, Path], None]] = {
    "segearth_mask": segearth_mask, "segearth_polygons": segearth_polygons,
    "samgeo_mask": samgeo_mask, "samgeo_polygons": samgeo_polygons,
}  # fmt: skip


def run_part(name: str, source: Path, target: Path) -> dict[str, float]:
    """Does one part and says what it took; imports are not counted."""
    if name.startswith("samgeo"):
        try:  # samgeo imports torchvision, which may not fit the torch that is there
            from segearth.utils.torchvision_mend import mend_torchvision

            mend_torchvision()
        except ImportError:
            pass
        import samgeo.common  # noqa: F401
    else:
        import segearth.geo.vectors
        import segearth.inference.scene  # noqa: F401
    from scene_benchmark import peak_gigabytes

    begin = time.perf_counter()
    PARTS[name](source, target)
    return {"seconds": time.perf_counter() - begin, "peak_gb": peak_gigabytes()}


def facts_of(source: Path, mask: Path, polygons: Path) -> dict[str, Any]:
    """Reads back what was written, with the packages that both stand on."""
    import geopandas
    import rasterio

    with rasterio.open(source) as before, rasterio.open(mask) as after:
        values = after.read(1)
        grid = after.shape == before.shape and after.transform == before.transform and after.crs == before.crs
        facts = {
            "grid_kept": grid, "share": float((values[values != 255] > 0).mean()) if (values == 1).any() else
            float((values > 0).mean()), "megabytes": mask.stat().st_size / 1e6, "overviews": bool(after.overviews(1)),
        }  # fmt: skip
    table = geopandas.read_file(polygons)
    columns = [name for name in table.columns if name != "geometry"]
    return {**facts, "polygons": len(table), "columns": ", ".join(columns), "crs_kept": table.crs is not None}


def main() -> None:
    """Runs all parts and prints a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=5000)
    parser.add_argument("--picture", type=Path, nargs="*", default=[])
    parser.add_argument("--samgeo-python", default=sys.executable)
    parser.add_argument("--part", nargs=3, metavar=("NAME", "FROM", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, source, target = options.part
        print(json.dumps(run_part(name, Path(source), Path(target))))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pictures = options.picture
        if not pictures:
            from scene_benchmark import make_scene

            make_scene(place / "jpeg.tif", options.side)
            # samgeo gives its mask the compression of the picture, and JPEG's colours do not go with one band.
            subprocess.run(["rio", "convert", place / "jpeg.tif", place / "scene.tif", "--co", "compress=deflate",
                            "--co", "photometric=rgb", "--co", "tiled=true"], check=True)  # fmt: skip
            pictures = [place / "scene.tif", place / "jpeg.tif"]
        for picture in pictures:
            print(f"\n{picture.name}\n\n| | mask: seconds | peak GB | polygons: seconds | peak GB | read back |")
            print("|---|---:|---:|---:|---:|---|")
            for who in ("segearth", "samgeo"):
                print(_row(who, picture, place, options.samgeo_python))


def _row(who: str, picture: Path, place: Path, samgeo_python: str) -> str:
    python = samgeo_python if who == "samgeo" else sys.executable
    mask, polygons = place / f"{who}_{picture.stem}.tif", place / f"{who}_{picture.stem}.gpkg"
    cells: list[str] = []
    for name, source, target in ((f"{who}_mask", picture, mask), (f"{who}_polygons", mask, polygons)):
        command = [python, __file__, "--part", name, str(source.resolve()), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"| {who} | {' | '.join(cells)} | failed: {done.stderr.strip().splitlines()[-1][:160]} |"
        told = json.loads(done.stdout.splitlines()[-1])
        cells += [f"{told['seconds']:.1f}", f"{told['peak_gb']:.2f}"]
    facts = "; ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in facts_of(picture, mask, polygons).items())  # fmt: skip
    return f"| {who} | {' | '.join(cells)} | {facts} |"


if __name__ == "__main__":
    main()
