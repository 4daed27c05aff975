"""The Processing tool, run for real by QGIS's command ``qgis_process``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segearth

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed: pip install 'segearth[geo]'")
SCRIPT = Path(segearth.__file__).parent / "integrations" / "qgis" / "segearth_scene.py"

# Debian's wrapper hands qgis_process an option that only qgis knows, so the program behind it goes first.
COMMAND = shutil.which("qgis_process.bin") or shutil.which("qgis_process")

pytestmark = pytest.mark.skipif(COMMAND is None, reason="QGIS is not installed (Debian: qgis, python3-qgis)")


def qgis_process(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    scripts = home / "QGIS" / "QGIS3" / "profiles" / "default" / "processing" / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, scripts)
    # QGIS's Python is the system's, which must be found before this environment's and must not look into it.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
    place = {"PATH": "/usr/bin:/bin", "XDG_DATA_HOME": str(home), "HOME": str(home), "QT_QPA_PLATFORM": "offscreen"}
    place["GDAL_DATA"] = "/usr/share/gdal"
    system = {**kept, **place}
    return subprocess.run([str(COMMAND), *arguments], env=system, capture_output=True, text=True, timeout=300)


def prepared(tmp_path: Path) -> list[str]:
    """Writes a scene and a command, and returns the tool's options."""
    source, command = tmp_path / "in.tif", tmp_path / "segearth"
    with rasterio.open(
        source, "w", driver="GTiff", width=70, height=50, count=3, dtype="uint8", crs="EPSG:32645",
        transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 3_000_000),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(0, 256, (3, 50, 70), dtype=np.uint8))
    root = Path(segearth.__file__).parents[1]
    # As on systems whose QGIS names folders of its own for GDAL: the command must not see them.
    alone = '[ -z "$GDAL_DATA" ] || exit 3'
    command.write_text(f'#!/bin/sh\n{alone}\nPYTHONPATH={root} exec {sys.executable} -m segearth.cli "$@"\n')
    command.chmod(0o755)
    return [
        f"INPUT={source}", "QUESTION=the roofs", f"COMMAND={command}", "MODEL=segearth_debug",
        f"MASK={tmp_path / 'mask.tif'}", f"POLYGONS={tmp_path / 'polygons.gpkg'}",
    ]  # fmt: skip


def test_the_tool_runs_in_qgis(tmp_path: Path) -> None:
    options = prepared(tmp_path)
    ran = qgis_process(tmp_path / "home", "run", "script:segearth_scene", "--", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == (50, 70) and mask.crs.to_epsg() == 32645
    assert (tmp_path / "polygons.gpkg").exists() and "the roofs" in ran.stdout
    options[2] = "COMMAND=/none/segearth"
    broken = qgis_process(tmp_path / "home", "run", "script:segearth_scene", "--", *options)
    assert broken.returncode != 0 and "does not start" in broken.stdout + broken.stderr


def test_the_area_of_interest_is_the_layer_that_was_chosen(tmp_path: Path) -> None:
    """Of a file with two layers the second; polygons go to a file of their own."""
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    options = prepared(tmp_path)
    for name, left in (("one", 500_000), ("two", 500_020)):
        box = shapely.box(left, 2_999_980, left + 10, 2_999_995)
        geopandas.GeoDataFrame(geometry=[box], crs="EPSG:32645").to_file(tmp_path / "areas.gpkg", layer=name)
    options.append(f"AOI={tmp_path / 'areas.gpkg'}|layername=two")
    ran = qgis_process(tmp_path / "home", "run", "script:segearth_scene", "--", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with rasterio.open(tmp_path / "mask.tif") as mask:
        asked = mask.read(1) != 255
    assert asked[20, 50] and not asked[20, 10]
    options[5] = f"POLYGONS=ogr:dbname='{tmp_path / 'polygons.gpkg'}' table=\"found\" (geom)"
    refused = qgis_process(tmp_path / "home", "run", "script:segearth_scene", "--", *options)
    assert refused.returncode != 0 and "Save to File" in refused.stdout + refused.stderr
