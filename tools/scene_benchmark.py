"""Measures what asking a scene costs beside the bare model: ``python tools/scene_benchmark.py --side 20000``.

Makes a GeoTIFF of pictures that come with the package, asks it one question and then two, and asks the bare model about
tiles of it without reading, blending or writing. Each run is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

QUESTIONS = ["the buildings", "the road", "the swimming pools", "the trees and shrubs"]
BARE_TILES = 48  # asked of the bare model; enough for a median of batches


def make_scene(path: Path, side: int) -> None:
    """Writes a scene of the package's pictures, 512 px each, at 0.13 m a pixel."""
    import rasterio

    from segearth.data.registry import build_dataset

    split = build_dataset("aerial_mini", None, "test")
    pictures = [split[i].image for i in range(len(split))]
    blocks = [image[:512, :512].transpose(2, 0, 1) for image in pictures if min(image.shape[:2]) >= 512]
    transform = rasterio.Affine(0.13, 0, 500_000, 0, -0.13, 3_000_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32645",
        transform=transform, tiled=True, blockxsize=512, blockysize=512, compress="jpeg", photometric="ycbcr",
    ) as file:  # fmt: skip
        for number, (top, left) in enumerate((r, c) for r in range(0, side, 512) for c in range(0, side, 512)):
            height, width = min(512, side - top), min(512, side - left)
            window = rasterio.windows.Window(left, top, width, height)
            file.write(blocks[number % len(blocks)][:, :height, :width], window=window)


def ask_scene(path: Path, model: str, questions: int) -> dict[str, float]:
    """Asks the scene, as ``segearth scene`` does; the model is opened before the clock starts."""
    import segearth
    from segearth.inference.scene import segment_scene
    from segearth.inference.scene_types import SceneOptions

    predictor = segearth.load(model)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        options = SceneOptions(mode="tile", progress=False)
        result = segment_scene(predictor, path, QUESTIONS[:questions], Path(folder) / "out.tif", options=options)
        seconds = time.perf_counter() - start
    return {"tiles": result.tiles, "seconds": seconds, "peak_gb": peak_gigabytes()}


def ask_bare(path: Path, model: str, questions: int) -> dict[str, float]:
    """Asks the model about tiles that lie in memory, in the same batches."""
    import segearth
    from segearth.geo.raster import open_scene
    from segearth.geo.tiling import plan_tiles
    from segearth.segmenter import usual_batch_size

    predictor = segearth.load(model)
    side = predictor.facts.side
    size = usual_batch_size(predictor.facts.device, side)
    with open_scene(path) as scene:
        tiles = plan_tiles(scene.height, scene.width, side, side // 4)[:: max(1, scene.height // 4000)][:BARE_TILES]
        pictures = [scene.read(tile)[0] for tile in tiles]
    times = []
    for start in range(0, len(pictures) - size + 1, size):
        batch = pictures[start : start + size]
        about = [number for number in range(len(batch)) for _ in range(questions)]
        begin = time.perf_counter()
        predictor.set_images(batch)
        predictor.predict(QUESTIONS[:questions] * len(batch), about=about, return_logits=True)
        times.append((time.perf_counter() - begin) / len(batch))
    return {"tiles": len(pictures), "seconds_a_tile": float(np.median(times)), "peak_gb": peak_gigabytes()}


def peak_gigabytes() -> float:
    """Returns the most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def main() -> None:
    """Runs the parts one after the other, the bare model before and after, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--model", default="segearth_tiny")
    parser.add_argument("--part", choices=["scene", "bare"])
    parser.add_argument("--path", type=Path)
    parser.add_argument("--questions", type=int, default=1)
    options = parser.parse_args()
    if options.part:
        ask = ask_scene if options.part == "scene" else ask_bare
        print(json.dumps(ask(options.path, options.model, options.questions)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        make_scene(path, options.side)

        def run(part: str, questions: int) -> dict[str, float]:
            command = [sys.executable, __file__, "--part", part, "--path", str(path), "--model", options.model]
            done = subprocess.run(
                [*command, "--questions", str(questions)], capture_output=True, text=True, check=True
            )
            return json.loads(done.stdout.splitlines()[-1])

        bare = [run("bare", 1)]
        one = run("scene", 1)
        bare.append(run("bare", 1))
        two = run("scene", 2)
        bare.append(run("bare", 1))
    tile = float(np.median([each["seconds_a_tile"] for each in bare]))
    print(f"| {options.side:,} px a side, {one['tiles']:.0f} tiles | seconds | a tile | of bare throughput | peak |")
    print("|---|---:|---:|---:|---:|")
    spread = ", ".join(f"{each['seconds_a_tile']:.3f}" for each in bare)
    print(f"| bare model, three times | | {tile:.3f} ({spread}) | | |")
    for name, row in (("one question", one), ("two questions", two)):
        each = row["seconds"] / row["tiles"]
        print(f"| {name} | {row['seconds']:.0f} | {each:.3f} | {100 * tile / each:.0f} % | {row['peak_gb']:.2f} GB |")
    print(f"\nthe second question costs {100 * (two['seconds'] / one['seconds'] - 1):+.1f} %")


if __name__ == "__main__":
    main()
