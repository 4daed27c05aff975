from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from segearth.errors import OutputError
from segearth.geo.raster import open_scene
from segearth.geo.windows import Window
from segearth.geo.writing import scene_writer

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rasterio.shutil")
RNG = np.random.default_rng(0)
QUESTIONS = ["the red roofs", "which houses could be flooded? ä", "the road"]


def whole_of(scene):
    return Window(0, 0, scene.height, scene.width)


def write(path, scene, values, valid=None, step=100, **options):
    """Writes in bands of rows that are not the file's own tiles."""
    with scene_writer(path, scene, QUESTIONS[: len(values)], **options) as writer:
        for top in range(0, scene.height, step):
            window = Window(top, 0, min(step, scene.height - top), scene.width)
            rows, columns = window.slices_in(whole_of(scene))
            known = np.ones((window.height, window.width), bool) if valid is None else valid[rows, columns]
            writer.write(window, values[:, rows, columns], known)
        writer.tag({"model": "segearth_tiny", "resolution": 0.5, "nothing": None})
        for number in range(len(values)):
            writer.tag({"question": QUESTIONS[number], "score": 0.5, "present": True}, number)


@pytest.mark.parametrize("cog", [False, True])
def test_masks_tags_and_no_data(make_scene, tmp_path, cog):
    height, width = 700, 1100
    values, valid = RNG.random((3, height, width)) > 0.5, np.ones((height, width), bool)
    valid[600:, :50] = False
    with open_scene(make_scene(np.ones((3, height, width), np.uint8)), resolution=1.0) as scene:
        write(tmp_path / "out.tif", scene, values, valid, cog=cog)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.dtypes == ("uint8",) * 3 and file.nodata == 255 and file.descriptions == tuple(QUESTIONS)
        assert np.array_equal(file.read(), np.where(valid, values, 255))
        assert file.profile["tiled"] and file.profile["compress"] == "deflate" and file.block_shapes[0] == (512, 512)
        assert file.overviews(1) == [2, 4] if not cog else file.overviews(1)
        assert file.colorinterp[0].name == "gray"  # three questions are not red, green and blue
        assert file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if cog else None)
        tags, of_band = file.tags(), file.tags(2)
        assert (tags["SEGEARTH_MODEL"], tags["SEGEARTH_RESOLUTION"]) == ("segearth_tiny", "0.5")
        assert "SEGEARTH_NOTHING" not in tags
        assert of_band["SEGEARTH_QUESTION"] == QUESTIONS[1] and of_band["SEGEARTH_PRESENT"] == "true"
        assert (file.crs.to_epsg(), file.shape) == (32633, (height, width))
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "out.tif"}


@pytest.mark.parametrize("cog", [False, True])
def test_logits(make_scene, tmp_path, cog):
    values = RNG.normal(size=(1, 60, 50)).astype(np.float32)
    valid = np.ones((60, 50), bool)
    valid[0, 0] = False
    with open_scene(make_scene(np.ones((3, 60, 50), np.uint8))) as scene:
        write(tmp_path / "out.tif", scene, values, valid, logits=True, cog=cog)
    with rasterio.open(tmp_path / "out.tif") as file:
        found = file.read()
        assert np.isnan(file.nodata) and np.isnan(found[0, 0, 0])
        assert np.array_equal(found[:, valid], values[:, valid])


TURNED = (0.4330127, 0.25, 500_000.3, 0.25, -0.4330127, 5_000_000.7)


@pytest.mark.parametrize("profile", [
    {}, {"transform": TURNED}, {"crs": None, "transform": None}, {"crs": None}, {"crs": "EPSG:4326"},
    {"crs": 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'},
    {"crs": "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84"}, {"crs": "ESRI:54009"},
])  # fmt: skip
def test_the_grid_is_the_scenes(make_scene, tmp_path, profile):
    if profile.get("transform"):
        profile = {**profile, "transform": rasterio.Affine(*profile["transform"])}
    with open_scene(make_scene(np.ones((3, 7, 1), np.uint8), **profile)) as scene:
        write(tmp_path / "out.tif", scene, np.ones((1, 7, 1), bool))
        with open_scene(tmp_path / "out.tif") as back:
            assert (back.crs, back.transform, back.height, back.width) == (scene.crs, scene.transform, 7, 1)


def test_a_crs_that_a_geotiff_cannot_hold(make_scene, tmp_path):
    """GDAL would put it into a second file beside the first, which gets lost."""
    source = make_scene(np.ones((3, 7, 1), np.uint8), crs="+proj=isea")
    with open_scene(source) as scene, pytest.raises(OutputError, match=r"cannot hold the grid.*gdalwarp"):
        write(tmp_path / "out.tif", scene, np.ones((1, 7, 1), bool))
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "scene.tif.aux.xml"}


def test_tags_of_the_ground_stay_and_those_of_values_go(make_scene, tmp_path):
    path = make_scene(np.ones((3, 8, 8), np.uint8))
    kept = {"AREA_OR_POINT": "Point", "TIFFTAG_DATETIME": "2026:01:02 03:04:05", "ACQUIRED": "2026-01-02"}
    with rasterio.open(path, "r+") as file:
        file.update_tags(**kept, STATISTICS_MEAN="1", SEGEARTH_MODEL="before")
    with open_scene(path) as scene:
        write(tmp_path / "out.tif", scene, np.ones((1, 8, 8), bool))
        with open_scene(tmp_path / "out.tif") as back:
            assert back.transform == scene.transform
            tags = back.tags
    assert {name: tags.get(name) for name in kept} == kept
    assert tags["SEGEARTH_MODEL"] == "segearth_tiny" and "STATISTICS_MEAN" not in tags


def test_real_rasters_give_their_grid_and_tags(geotiffs, tmp_path):
    for path in geotiffs:
        with open_scene(path) as scene:
            values, (_, valid) = RNG.random((1, scene.height, scene.width)) > 0.5, scene.read(whole_of(scene))
            for cog in (False, True):
                out = tmp_path / f"{path.stem}_{cog}.tif"
                write(out, scene, values, valid, step=512, cog=cog)
                with rasterio.open(path) as before, rasterio.open(out) as after:
                    assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
                    assert after.bounds == before.bounds
                    kept = {name: text for name, text in before.tags().items() if not name.startswith("OVR_")}
                    assert kept.items() <= after.tags().items()
                    assert np.array_equal(after.read(), np.where(valid, values, 255))


def test_the_same_values_give_the_same_bytes(make_scene, tmp_path):
    values = RNG.random((2, 600, 300)) > 0.5
    with open_scene(make_scene(np.ones((3, 600, 300), np.uint8))) as scene:
        for name, step in (("a.tif", 512), ("b.tif", 512)):
            write(tmp_path / name, scene, values, step=step)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("cog", [False, True])
def test_an_error_leaves_what_was_there_and_nothing_else(make_scene, tmp_path, cog):
    (tmp_path / "out.tif").write_text("before")
    with open_scene(make_scene(np.ones((3, 9, 9), np.uint8))) as scene:
        with pytest.raises(KeyError), scene_writer(tmp_path / "out.tif", scene, ["q"], cog=cog) as writer:
            writer.write(Window(0, 0, 4, 9), np.ones((1, 4, 9), bool), np.ones((4, 9), bool))
            raise KeyError
        with (
            pytest.raises(OutputError, match="45 pixels were not written"),
            scene_writer(tmp_path / "out.tif", scene, ["q"], cog=cog) as writer,
        ):
            writer.write(Window(0, 0, 4, 9), np.ones((1, 4, 9), bool), np.ones((4, 9), bool))
    assert (tmp_path / "out.tif").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "out.tif"}


def test_what_did_not_reach_the_disk_is_noticed(make_scene, tmp_path, monkeypatch):
    """GDAL keeps written blocks in memory, and says nothing if it cannot write them when the file is closed."""
    with open_scene(make_scene(np.ones((3, 9, 9), np.uint8))) as scene:
        monkeypatch.setattr(rasterio.io.DatasetWriter, "write", lambda *_, **__: None)
        with pytest.raises(OutputError, match="not written whole"):
            write(tmp_path / "out.tif", scene, np.ones((1, 9, 9), bool))
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif"}


def test_what_gdal_kept_beside_an_earlier_file_goes(make_scene, tmp_path):
    (tmp_path / "out.tif.aux.xml").write_text(
        "<PAMDataset><GeoTransform>0,1,0,0,0,-1</GeoTransform><PAMRasterBand band='1'><NoDataValue>1</NoDataValue>"
        "</PAMRasterBand></PAMDataset>"
    )
    for suffix in (".ovr", ".msk"):
        (tmp_path / f"out.tif{suffix}").write_text("old")
    with open_scene(make_scene(np.ones((3, 9, 9), np.uint8))) as scene:
        write(tmp_path / "out.tif", scene, np.ones((1, 9, 9), bool))
        with rasterio.open(tmp_path / "out.tif") as file:
            assert file.transform == scene.transform and file.nodata == 255
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "out.tif"}


def test_places_that_do_not_do(make_scene, tmp_path):
    path = make_scene(np.ones((3, 9, 9), np.uint8))
    with open_scene(path) as scene:
        for name, words in (("out.png", "end with .tif"), ("scene.tif", "twice"), ("scene.tif/out.tif", "no folder")):
            with pytest.raises(OutputError, match=words), scene_writer(tmp_path / name, scene, ["q"]):
                pass
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif"}


def test_a_file_that_the_scene_reads_is_not_replaced(make_scene, tmp_path):
    path = make_scene(np.ones((1, 9, 9), np.uint8))
    with (
        open_scene(f"GTIFF_DIR:1:{path}") as scene,
        pytest.raises(OutputError, match="is named twice"),
        scene_writer(path, scene, ["q"]),
    ):
        pass


FULL = """
import resource, sys
import numpy as np
from segearth.errors import OutputError
from segearth.geo.raster import open_scene
from segearth.geo.windows import Window
from segearth.geo.writing import scene_writer

source, out, limit, cog = sys.argv[1:]
rng = np.random.default_rng(0)
with open_scene(source) as scene:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))  # as if the disk were full
    try:
        with scene_writer(out, scene, ["q"], logits=True, cog=cog == "True") as writer:
            for top in range(0, 1024, 256):
                writer.write(Window(top, 0, 256, 512), rng.normal(size=(1, 256, 512)), np.ones((256, 512), bool))
    except OutputError as error:
        print(error)
        sys.exit(3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix's")
@pytest.mark.parametrize(("limit", "cog"), [(0, False), (1_800_000, False), (2_300_000, True)])
def test_a_full_disk_is_said_and_leaves_no_file(make_scene, tmp_path, limit, cog):
    path = make_scene(np.ones((1, 1024, 512), np.uint8))
    run = subprocess.run(
        [sys.executable, "-c", FULL, path, tmp_path / "out.tif", str(limit), str(cog)], capture_output=True, text=True
    )
    assert run.returncode == 3, run.stderr
    assert "disk" in run.stdout and "out.tif" in run.stdout
    with suppress(FileNotFoundError):
        (tmp_path / "scene.tif.aux.xml").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif"}
