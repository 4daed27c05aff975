from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from segearth.errors import ConfigError, ImageError, MissingExtraError
from segearth.geo import vectors
from segearth.geo.vectors import vectorise

rasterio = pytest.importorskip("rasterio")
shapely = pytest.importorskip("shapely", minversion="2.1")
geopandas = pytest.importorskip("geopandas")
pyproj = pytest.importorskip("pyproj")

from affine import Affine  # noqa: E402
from rasterio.features import rasterize  # noqa: E402

GEOTIFFS = Path(__file__).resolve().parents[3] / "shared" / "data" / "geotiff"
UTM = {"transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139), "crs": 32616}


def two_squares() -> np.ndarray:
    """One of 6 x 4 pixels, one of 3 x 3 with a hole of one pixel."""
    mask = np.zeros((20, 30), bool)
    mask[2:6, 3:9] = True
    mask[10:13, 20:23] = True
    mask[11, 21] = False
    return mask


def write(path: Path, array: np.ndarray, nodata: float | None = None, **place: object) -> Path:
    profile = dict(
        driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=array.dtype, nodata=nodata,
        tiled=True, blockxsize=16, blockysize=16,
    )  # fmt: skip
    with rasterio.open(path, "w", **profile, **place) as dataset:
        dataset.write(array, 1)
    return path


def test_a_table_of_regions() -> None:
    table = vectorise(
        two_squares(), **UTM, question="roofs", answer="two", source="a.tif", model="tiny", score=0.75, points=True
    )
    assert list(table.columns) == [
        "region", "question", "answer", "source", "model", "score", "area", "area_unit", "point_x", "point_y",
        "geometry",
    ]  # fmt: skip
    assert table.region.tolist() == [1, 2]
    assert table.area_unit.tolist() == ["m2", "m2"]
    assert table["area"].tolist() == [24 * 0.25, 8 * 0.25]
    assert table.iloc[0][["question", "answer", "source", "model", "score"]].tolist() == [
        "roofs", "two", "a.tif", "tiny", 0.75,
    ]  # fmt: skip
    assert table.crs.to_epsg() == 32616
    assert table.geometry[0].equals(shapely.box(733601 + 1.5, 3725139 - 3, 733601 + 4.5, 3725139 - 1))
    assert shapely.contains_xy(table.geometry.to_numpy(), table.point_x, table.point_y).all()


def test_without_a_crs_areas_are_in_pixels() -> None:
    table = vectorise(two_squares())
    assert table.crs is None
    assert table["area"].tolist() == [24, 8]
    assert set(table.area_unit) == {"pixels"}
    assert table.geometry[0].bounds == (3, 2, 9, 6)
    placed = vectorise(two_squares(), transform=Affine(2, 0, 100, 0, 2, 0))
    assert placed["area"].tolist() == [24, 8]
    assert placed.geometry[0].bounds == (106, 4, 118, 12)


def test_a_rotated_transform_puts_pixels_where_they_are() -> None:
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    transform = Affine(2 * cos, 2 * sin, 500000, 2 * sin, -2 * cos, 4e6)
    table = vectorise(two_squares(), transform=transform, crs=32633)
    np.testing.assert_allclose(table["area"], [24 * 4, 8 * 4])
    painted = rasterize(table.geometry, (20, 30), transform=transform)
    np.testing.assert_array_equal(painted, two_squares())


def test_degrees_are_measured_on_the_globe() -> None:
    transform = Affine(1e-5, 0, 85.5, 0, -1e-5, 27.63)
    table = vectorise(two_squares(), transform=transform, crs="EPSG:4326")
    # By hand: a degree of latitude is 110.81 km long there, one of longitude 98.69 km (WGS 84).
    pixel = 1.1081 * 0.9869
    np.testing.assert_allclose(table["area"], [24 * pixel, 8 * pixel], rtol=1e-3)  # the hole is left out too


def test_web_mercator_is_measured_on_the_ground() -> None:
    """At 60 degrees north it draws things twice as long and four times as large."""
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10.7, 60)
    table = vectorise(two_squares(), transform=Affine(2, 0, x, 0, -2, y), crs=3857)
    np.testing.assert_allclose(table["area"], [24, 8], rtol=0.01)


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude"), [(3832, 180, 60), (3832, 170, 60), (3413, 0, 90), (3031, 0, -90)]
)
@pytest.mark.parametrize("mirrored", [1, -1])
def test_holes_across_the_180th_meridian_and_round_a_pole_are_taken_off(
    crs: int, longitude: float, latitude: float, mirrored: int
) -> None:
    mask = np.ones((100, 100), bool)
    mask[40:60, 40:60] = False
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(longitude, latitude)
    scale = pyproj.Proj(crs).get_factors(longitude, latitude).areal_scale
    for shift in (0, 300):  # the meridian, or the pole, lies in the hole, or in the ring around it
        place = Affine(10, 0, x - 500 + shift, 0, -10 * mirrored, y + 500 * mirrored)
        table = vectorise(mask, transform=place, crs=crs)
        np.testing.assert_allclose(table["area"], [(10_000 - 400) * 100 / scale], rtol=2e-3)


def test_feet_become_metres() -> None:
    table = vectorise(two_squares(), transform=Affine(1, 0, 6_000_000, 0, -1, 2_000_000), crs=2227)  # US survey feet
    np.testing.assert_allclose(table["area"], np.array([24, 8]) * (1200 / 3937) ** 2, rtol=1e-6)


def test_min_area_is_in_the_unit_of_the_areas() -> None:
    assert vectorise(two_squares(), min_area=9)["area"].tolist() == [24]
    assert vectorise(two_squares(), **UTM, min_area=2)["area"].tolist() == [6, 2]
    assert vectorise(two_squares(), **UTM, min_area=2.1)["area"].tolist() == [6]


def test_scores_are_means_of_a_raster() -> None:
    scores = np.full((20, 30), 0.25)
    scores[2:6, 3:6] = 0.75
    assert vectorise(two_squares(), scores=scores).score.tolist() == [0.5, 0.25]
    logits = np.where(two_squares(), 2.0, -1000.0)
    with np.errstate(over="raise"):
        vectorise(two_squares(), scores=logits, logits=True)
    np.testing.assert_allclose(vectorise(two_squares(), scores=logits, logits=True).score, 1 / (1 + np.exp(-2)), 1e-5)
    assert vectorise(two_squares()).score.isna().all()


def test_values_are_apart_where_asked_for() -> None:
    raster = np.zeros((4, 9), np.int16)
    raster[:, :3], raster[:, 3:5], raster[1, 7] = 7, -1, 9
    table = vectorise(raster, each_value=True)
    assert list(zip(table.value, table["area"], strict=True)) == [(7, 12), (9, 1)]  # values below 0 are outside
    assert vectorise(raster)["area"].tolist() == [20, 1]
    assert "value" not in vectorise(raster)


def test_simplified_and_right_angled_outlines_are_measured_as_drawn() -> None:
    mask = np.ones((40, 40), bool)
    mask[0, 0] = False
    table = vectorise(mask, **UTM, simplify=1.5)
    assert table["area"][0] == pytest.approx(table.geometry[0].area)
    assert table["area"][0] != pytest.approx(mask.sum() / 4)
    table = vectorise(mask, simplify=1.5, right_angles=True)
    assert len(table.geometry[0].exterior.coords) == 5
    assert table["area"][0] == pytest.approx(table.geometry[0].area)


def test_angles_are_right_on_the_ground_in_degrees_too() -> None:
    """At 60 degrees north a degree of longitude is half as long as one of latitude."""
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    square = shapely.Polygon(np.array([(-20, -20), (20, -20), (20, 20), (-20, 20)]) @ turn.T * [2, 1] + [60, 40])
    transform = Affine(1e-5, 0, 10, 0, -1e-5, 60)
    table = vectorise(rasterize([square], (80, 120)), transform=transform, crs=4326, simplify=2, right_angles=True)
    corners = shapely.get_coordinates(table.to_crs(32632).geometry)
    side = np.diff(corners, axis=0)
    side /= np.linalg.norm(side, axis=1)[:, None]
    assert len(side) == 4
    np.testing.assert_allclose((side * np.roll(side, 1, axis=0)).sum(axis=1), 0, atol=1e-4)


def test_a_file_is_read_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read is larger than a window, and what lies across their seams is one polygon."""
    rng = np.random.default_rng(1)
    mask = (rng.random((100, 70)) > 0.6).astype(np.uint8)
    mask[:, 30:34] = 1
    scores = rng.random(mask.shape).astype(np.float32)
    whole = vectorise(mask, **UTM, scores=scores)
    path = write(tmp_path / "mask.tif", mask, **UTM)
    score_path = write(tmp_path / "scores.tif", scores, **UTM)
    monkeypatch.setattr(vectors, "PIXELS_AT_A_TIME", 70 * 20)  # 20 rows, of which a block of 16 is taken
    read: list[int] = []
    rows = vectors._Raster.rows
    monkeypatch.setattr(vectors._Raster, "rows", lambda self, y, count: (read.append(count), rows(self, y, count))[1])
    by_name = vectorise(path, scores=str(score_path))
    assert set(read) == {16, 4}
    assert by_name.drop(columns="geometry").equals(whole.drop(columns="geometry"))
    assert by_name.crs == whole.crs
    assert by_name.geometry.geom_equals_exact(whole.geometry, 0).all()
    with rasterio.open(path) as dataset:
        for given in (dataset, rasterio.band(dataset, 1)):
            assert vectorise(given).geometry.geom_equals_exact(whole.geometry, 0).all()


def test_nodata_is_outside(tmp_path: Path) -> None:
    mask = np.full((16, 16), 255, np.uint8)
    mask[:4, :4], mask[8:, 8:] = 1, 0
    path = write(tmp_path / "mask.tif", mask, nodata=255, **UTM)
    assert vectorise(path)["area"].tolist() == [4]
    scores = np.where(mask == 255, -9999, 0.5).astype(np.float32)
    scores[0, 0] = -9999
    assert vectorise(path, scores=write(tmp_path / "s.tif", scores, nodata=-9999, **UTM)).score.tolist() == [0.5]


def test_an_empty_mask_gives_an_empty_table() -> None:
    for kind in (bool, np.uint8):
        table = vectorise(np.zeros((5, 5), kind), **UTM, simplify=1.0, right_angles=True, points=True, min_area=1)
        assert len(table) == 0
        assert table.crs.to_epsg() == 32616
        assert {"region", "score", "area", "area_unit", "point_x"} <= set(table.columns)


@pytest.mark.parametrize(
    ("mask", "options", "error", "message"),
    [
        (np.zeros((3, 3, 3), bool), {}, ImageError, r"shape \(3, 3, 3\); give one band"),
        (np.zeros((0, 3), bool), {}, ImageError, "size 3x0 px"),
        (np.zeros((3, 3), np.float32), {}, ImageError, "float32; give 0 and 1"),
        (np.zeros((3, 3), bool), {"scores": np.zeros((2, 3))}, ImageError, "scores are 3x2 px, the mask 3x3"),
        (np.zeros((3, 3), bool), {"scores": np.zeros((3, 3)), "score": 1.0}, ConfigError, "both score and scores"),
        (np.zeros((3, 3), bool), {"min_area": -1}, ConfigError, "min_area is -1"),
        (np.zeros((3, 3), bool), {"simplify": float("nan")}, ConfigError, "simplify is nan"),
        (np.zeros((3, 3), bool), {"transform": Affine(0, 0, 1, 0, 0, 1)}, ConfigError, "to one line"),
        ("no such.tif", {}, ImageError, "no such.tif: no raster"),
    ],
)
def test_bad_input(mask: object, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vectorise(mask, **options)


def test_ground_control_points_are_refused(tmp_path: Path) -> None:
    points = [rasterio.control.GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 9), (9, 0))]
    path = write(tmp_path / "gcp.tif", np.ones((16, 16), np.uint8), gcps=points, crs=4326)
    with pytest.raises(ImageError, match="ground control points; warp it first"):
        vectorise(path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(MissingExtraError, match=r"geopandas is not installed.*segearth\[geo\]"):
        vectorise(two_squares())


@pytest.mark.parametrize("name", ["banepa_oam_a", "banepa_oam_b", "spacenet_atlanta_pan_uint16_utm16"])
def test_published_footprints_come_back(name: str) -> None:
    """Rasterised to the image's grid and made polygons again, footprints keep their shape to a pixel's edge."""
    if not (GEOTIFFS / f"{name}.tif").is_file():
        pytest.skip("the file is not beside the repository")
    with rasterio.open(GEOTIFFS / f"{name}.tif") as dataset:
        place, shape, bounds = (
            {"transform": dataset.transform, "crs": dataset.crs}, dataset.shape, shapely.box(*dataset.bounds),
        )  # fmt: skip
    features = json.loads((GEOTIFFS / f"{name}.buildings.geojson").read_text())["features"]
    footprints = shapely.union_all([shapely.geometry.shape(feature["geometry"]) for feature in features])
    footprints = shapely.intersection(footprints, bounds)
    mask = rasterize([footprints], shape, transform=place["transform"])
    for options, least in (({}, 0.96), ({"simplify": 3}, 0.95), ({"simplify": 3, "right_angles": True}, 0.93)):
        back = shapely.union_all(vectorise(mask, **place, **options).geometry)
        common = shapely.area(shapely.intersection(back, footprints))
        assert common / shapely.area(shapely.union(back, footprints)) > least
    measured = geopandas.GeoSeries([footprints], crs=place["crs"])
    ground = measured.to_crs(measured.estimate_utm_crs()).area[0]
    assert vectorise(mask, **place)["area"].sum() == pytest.approx(ground, rel=0.01)
