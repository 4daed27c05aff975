from __future__ import annotations

import json

import numpy as np
import pytest

from segearth.errors import ConfigError
from segearth.geo.areas import area_of_interest
from segearth.geo.raster import open_scene
from segearth.geo.windows import Window

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("rasterio.warp")
shapely = pytest.importorskip("shapely")
geopandas = pytest.importorskip("geopandas")
pytest.importorskip("pyogrio")
UTM = "SRID=32633;"


@pytest.fixture
def scene(make_scene):
    """40 rows and 60 columns of half a metre, from (500000, 5000000) to the east and south."""
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8))) as scene:
        yield scene


def box(left, top, right, bottom):
    """A box in pixels of the scene, in its CRS."""
    return shapely.box(500_000 + left / 2, 5_000_000 - bottom / 2, 500_000 + right / 2, 5_000_000 - top / 2)


def test_a_box_by_hand(scene):
    aoi = area_of_interest(UTM + box(10, 5, 20, 8.4).wkt, scene)
    assert aoi.window == Window(5, 10, 4, 10)
    mask = aoi.mask(Window(0, 0, 40, 60))
    assert mask[5:8, 10:20].all() and mask.sum() == 30  # the centres of row 8 lie at 8.5, outside
    assert aoi.touches(Window(0, 0, 6, 11)) and not aoi.touches(Window(20, 0, 10, 60))
    part = Window(6, 15, 10, 10)
    assert np.array_equal(aoi.mask(part), mask[6:16, 15:25])
    assert not aoi.mask(Window(30, 30, 4, 5)).any() and aoi.mask(Window(30, 30, 4, 5)).shape == (4, 5)


def test_what_reaches_beyond_the_scene_is_cut_off(scene):
    aoi = area_of_interest(UTM + box(-30, -30, 3, 100).wkt, scene)
    assert aoi.window == Window(0, 0, 40, 3)


def test_holes_several_parts_and_crossed_outlines(scene, tmp_path):
    shapes = [box(0, 0, 10, 10).difference(box(4, 4, 6, 6)), box(30, 30, 32, 32)]
    geopandas.GeoSeries(shapes, crs=32633).to_file(tmp_path / "aoi.gpkg")
    mask = area_of_interest(tmp_path / "aoi.gpkg", scene).mask(Window(0, 0, 40, 60))
    assert mask.sum() == 100 - 4 + 4 and not mask[5, 5] and mask[31, 31]
    x, y = 500_000, 5_000_000
    crossed = f"POLYGON(({x} {y}, {x + 4} {y - 4}, {x + 4} {y}, {x} {y - 4}, {x} {y}))"
    assert 20 < area_of_interest(UTM + crossed, scene).mask(Window(0, 0, 40, 60)).sum() < 40


def test_geojson_is_in_longitude_and_latitude(scene, tmp_path):
    outline = geopandas.GeoSeries([box(10, 5, 20, 8)], crs=32633).to_crs(4326).iloc[0]
    path = tmp_path / "aoi.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(outline)))
    window = Window(0, 0, 40, 60)
    expected = area_of_interest(UTM + box(10, 5, 20, 8).wkt, scene).mask(window)
    assert np.array_equal(area_of_interest(path, scene).mask(window), expected)
    assert np.array_equal(area_of_interest(f"SRID=4326;{outline.wkt}", scene).mask(window), expected)
    assert np.array_equal(area_of_interest(outline.wkt, scene, crs="EPSG:4326").mask(window), expected)


def test_working_pixels_and_the_scenes_own(make_scene):
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8)), resolution=2.0) as scene:
        text = UTM + box(8, 4, 24, 12).wkt
        assert area_of_interest(text, scene).window == Window(1, 2, 2, 4)
        assert area_of_interest(text, scene, working=False).window == Window(4, 8, 8, 16)


def test_turned_scenes(make_scene):
    turned = rasterio.Affine(0, 0.5, 500_000, 0.5, 0, 5_000_000)  # columns go north, rows go east
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8), transform=turned)) as scene:
        text = UTM + shapely.box(500_001, 5_000_003, 500_002, 5_000_007).wkt
        aoi = area_of_interest(text, scene)
        assert aoi.window == Window(2, 6, 2, 8)
        assert aoi.mask(Window(0, 0, 40, 60)).sum() == 16


def test_long_sides_bend_with_the_projection(make_scene):
    """A parallel of 40 degrees is far from a straight line in Europe's equal-area projection."""
    wide = rasterio.transform.from_origin(2_500_000, 4_500_000, 20_000, 20_000)
    with open_scene(make_scene(np.ones((3, 100, 150), np.uint8), crs="EPSG:3035", transform=wide)) as scene:
        aoi = area_of_interest("SRID=4326;POLYGON((-10 45, 30 45, 30 60, -10 60, -10 45))", scene)
        mask = aoi.mask(scene.grid.window)
        rows, columns = np.mgrid[:100, :150] + 0.5
        x, y = 2_500_000 + 20_000 * columns, 4_500_000 - 20_000 * rows
        found = np.array(rasterio.warp.transform(scene.crs, "OGC:CRS84", x.ravel(), y.ravel())).reshape(2, 100, 150)
    expected = (found[0] > -10) & (found[0] < 30) & (found[1] > 45) & (found[1] < 60)
    assert expected.sum() > 8000 and (mask != expected).sum() <= 20


@pytest.mark.parametrize("box", [
    (-180, -90, 180, 90), (-180, -85, 180, 85), (0, 0, 179, 80), (14, -90, 194, 90), (14.9, 45.1, 15.1, 45.2),
])  # fmt: skip
def test_areas_for_which_the_scenes_crs_has_no_place(make_scene, box):
    """UTM's zone 33, whose middle is 15 degrees east."""
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8))) as scene:
        aoi = area_of_interest(f"SRID=4326;{shapely.box(*box).wkt}", scene)
        assert aoi.mask(scene.grid.window).all()


@pytest.mark.parametrize(("zone", "box"), [
    (32601, (-180, -80, 180, 80)), (32660, (-180, -80, 180, 80)), (32601, (170, 40, 190, 50)),
    (32660, (170, 40, 190, 50)), (32601, (-190, 40, -170, 50)), (32660, (-190, 40, -170, 50)),
])  # fmt: skip
def test_scenes_across_the_180th_meridian(make_scene, zone, box):
    left = 220_000 if zone == 32601 else 730_000
    across = rasterio.transform.from_origin(left, 5_000_000, 1000, 1000)
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8), crs=f"EPSG:{zone}", transform=across)) as scene:
        assert area_of_interest(f"SRID=4326;{shapely.box(*box).wkt}", scene).mask(scene.grid.window).mean() > 0.99


def test_a_scene_of_the_pole(make_scene):
    polar = rasterio.transform.from_origin(-300_000, 200_000, 10_000, 10_000)
    with open_scene(make_scene(np.ones((3, 40, 60), np.uint8), crs="EPSG:3413", transform=polar)) as scene:
        aoi = area_of_interest("SRID=4326;POLYGON((-180 60, 180 60, 180 90, -180 90, -180 60))", scene)
        assert aoi.mask(scene.grid.window).all()


@pytest.mark.parametrize("name", ["polygons.gpkg", "polygon (1).gpkg", "Multipolygon.geojson"])
def test_files_whose_names_begin_like_text(scene, tmp_path, monkeypatch, name):
    geopandas.GeoSeries([box(10, 5, 20, 8)], crs=32633).to_file(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert area_of_interest(name, scene).window == Window(5, 10, 3, 10)


@pytest.mark.parametrize(
    ("aoi", "words"),
    [
        (UTM + "POLYGON((0 0, 1 0, 1 1, 0 0))", "lies outside of"),
        ("SRID=4326;POLYGON((-170 -80, -169 -80, -169 -79, -170 -80))", "lies outside of"),
        (box(1, 1, 5, 5).wkt, "has no CRS"),
        ("POLYGON((1 2", "no polygon"),
        ("SRID=no;POLYGON((0 0, 1 0, 1 1, 0 0))", "no polygon"),
        ("SRID=999999;POLYGON((0 0, 1 0, 1 1, 0 0))", "no polygon"),
        (UTM + "POLYGON EMPTY", "has no polygon; draw"),
        ("nowhere.geojson", "no area of interest nowhere.geojson"),
        ("polygons.gpkg", "no area of interest polygons.gpkg"),
    ],
)
def test_bad_areas(scene, aoi, words):
    with pytest.raises(ConfigError, match=words):
        area_of_interest(aoi, scene)


def test_bad_files_and_scenes_without_a_crs(scene, make_scene, tmp_path):
    (tmp_path / "broken.geojson").write_text('{"type": "Polygon", "coordinates": [')
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    geopandas.GeoSeries([shapely.Point(500_001, 4_999_999)], crs=32633).to_file(tmp_path / "points.gpkg")
    geopandas.GeoSeries([box(1, 1, 4, 4)]).to_file(tmp_path / "nameless.gpkg")
    for name, words in (("broken.geojson", "no file of polygons"), ("table.csv", "no file of polygons"),
                        ("points.gpkg", "has no polygon"), ("nameless.gpkg", "has no CRS")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            area_of_interest(tmp_path / name, scene)
    assert area_of_interest(tmp_path / "nameless.gpkg", scene, crs=32633).window == Window(1, 1, 3, 3)
    with (
        open_scene(make_scene(np.ones((3, 4, 4), np.uint8), "plain.tif", crs=None)) as plain,
        pytest.raises(ConfigError, match="no CRS, so an area"),
    ):
        area_of_interest(UTM + box(1, 1, 2, 2).wkt, plain)


def test_published_footprints_lie_on_their_scene(geotiffs):
    for path in (path for path in geotiffs if path.with_suffix(".buildings.geojson").exists()):
        with open_scene(path) as scene:
            aoi = area_of_interest(path.with_suffix(".buildings.geojson"), scene)
            assert 0.02 < aoi.mask(scene.grid.window).mean() < 0.9
