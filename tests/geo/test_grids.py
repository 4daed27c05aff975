from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ConfigError
from segearth.geo.grids import Axis, metres_per_pixel, resampled, working_grid
from segearth.geo.windows import Window

rasterio = pytest.importorskip("rasterio")
pyproj = pytest.importorskip("pyproj")
Affine, CRS = rasterio.Affine, rasterio.crs.CRS
UTM = CRS.from_epsg(32633)


def at(column_step, row_step, x, y):
    return Affine(column_step, 0, x, 0, -row_step, y)


@pytest.mark.parametrize(
    ("crs", "transform", "expected", "tolerance"),
    [
        # On the equator a degree of longitude is 2π · 6378137 / 360 = 111319.49 m, of latitude 110574.28 m.
        ("EPSG:4326", at(1e-5, 1e-5, 10, 0), (1.1131949, 1.1057428), 1e-6),
        # At 60° they are 55800 m and 111412 m (https://en.wikipedia.org/wiki/Geographic_coordinate_system#Length_of_a_degree).
        ("EPSG:4326", at(1e-5, 1e-5, 10, 60), (0.55800, 1.11412), 1e-5),
        # On UTM's central meridian the map is 0.9996 of the ground.
        ("EPSG:32633", at(0.5, 0.5, 500_000, 5_000_000), (0.5 / 0.9996,) * 2, 1e-6),
        # Web Mercator at 60° draws all twice as long as it is, on a sphere: N cos φ / a and M cos φ / a.
        ("EPSG:3857", at(1, 1, 0, 8399737.9), (0.50126, 0.50042), 1e-5),
        # US survey feet of 0.3048006 m, in California's zone 3, whose scale is within 0.02 % of 1.
        ("EPSG:2227", at(2, 2, 6_000_000, 2_100_000), (0.6096,) * 2, 2e-4),
    ],
)
def test_metres_per_pixel(crs, transform, expected, tolerance):
    found = metres_per_pixel(CRS.from_user_input(crs), transform, 2, 2)
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def test_metres_of_turned_pixels_and_across_the_180th_meridian():
    cos, sin = math.cos(math.pi / 6), 0.5
    turned = Affine(2 * cos, 3 * sin, 500_000, 2 * sin, -3 * cos, 5_000_000)
    np.testing.assert_allclose(metres_per_pixel(UTM, turned, 4, 4), (2.0008, 3.0012), rtol=1e-4)
    pacific = CRS.from_epsg(3832)  # a Mercator projection around 150° E, true to scale on the equator
    x = 30 * 111319.4908
    np.testing.assert_allclose(metres_per_pixel(pacific, at(1, 1, x - 0.5, 0.5), 1, 1), (1, 1), rtol=1e-6)


@pytest.mark.parametrize(("crs", "latitude"), [(3413, 90), (3031, -90)])
def test_metres_at_a_pole(crs, latitude):
    """Both maps are true to scale at one latitude, and at the pole smaller by the factor that PROJ tells."""
    factor = pyproj.Proj(crs).get_factors(0, latitude).meridional_scale
    assert 0.96 < factor < 0.98
    for centre in (0, 5, 5000):
        found = metres_per_pixel(CRS.from_epsg(crs), at(10, 10, centre - 500, 500), 100, 100)
        np.testing.assert_allclose(found, (10 / factor,) * 2, rtol=1e-6)


def test_metres_where_the_crs_has_no_place_on_the_earth():
    assert metres_per_pixel(None, Affine.identity(), 4, 4) is None
    site = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    assert metres_per_pixel(site, at(2, 2, 0, 0), 4, 4) is None


def test_resampling_by_hand():
    row = np.array([[0.0, 4.0, 8.0, 0.0]])
    np.testing.assert_allclose(resampled(row, -1, 0, 2, 2), [[2, 4]])
    np.testing.assert_allclose(resampled(row, -1, 0, 1.5, 2), [[4 / 3, (2 + 8) / 1.5]])  # ½ of 4 and all of 8
    np.testing.assert_allclose(resampled(row, -1, -1, 2, 2), [[0, 6]])  # what lies beyond takes no part
    np.testing.assert_allclose(resampled(row, -1, -2, 4, 1), [[2]])
    np.testing.assert_allclose(resampled(row, -1, 0, 0.5, 4), [[0, 1, 3, 5]])  # centres at ¼, ¾, 1¼, 1¾
    np.testing.assert_allclose(resampled(row.T, -2, 1, 0.5, 2).T, [[3, 5]])
    np.testing.assert_allclose(resampled(row, -1, 0, 1, 4), row)


def test_axis_by_hand():
    axis = Axis(10, scale=4, offset=-2)  # pixels -2..2, 2..6, 6..10
    assert axis.size == 3
    assert Axis(11, 4, -2).size == 4 and Axis(10).size == 10
    assert axis.scene_span(1, 1) == (1, 7) and axis.scene_span(0, 3) == (0, 10)
    assert axis.working_span(0, 10) == (0, 3)


def grid_of(height, width, resolution, x=500_000.0, y=5_000_000.0, pixel=0.5):
    transform = at(pixel, pixel, x, y)
    return working_grid(height, width, transform, (pixel, pixel), resolution), transform


def test_working_grid_by_hand():
    grid, transform = grid_of(100, 80, 2.0, x=500_001.0)
    assert (grid.rows, grid.columns) == (Axis(100, 4, 0, -2_500_000), Axis(80, 4, -2, 250_000))
    assert (grid.height, grid.width) == (25, 21)
    assert grid.transform(transform) == at(2, 2, 500_000, 5_000_000)
    native, transform = grid_of(100, 80, None)
    assert native.is_native and native.transform(transform) == transform
    assert (native.rows.anchor, native.columns.anchor) == (-10_000_000, 1_000_000)
    window = Window(3, 4, 5, 6)
    assert native.scene_window(window) == native.working_window(window) == window
    assert grid.scene_window(Window(0, 0, 1, 2)) == Window(0, 0, 5, 7)
    assert grid.working_window(Window(8, 8, 4, 4)) == Window(1, 1, 3, 4)
    assert grid_of(100, 80, 0.51)[0].is_native  # 2 % are not worth a blur


@pytest.mark.parametrize("resolution", [0, -1, math.nan, math.inf, 1e-9])
def test_bad_resolutions(resolution):
    with pytest.raises(ConfigError, match="give"):
        grid_of(100, 80, resolution)


def test_a_resolution_in_degrees_is_told_before_tiles_are_planned():
    with pytest.raises(ConfigError, match=r"16,667 times finer than the scene's own, 0\.5 m; give metres, not"):
        grid_of(100, 80, 3e-5)
    assert grid_of(100, 80, 0.5 / 32)[0].height > 3000


def test_a_resolution_needs_a_crs():
    with pytest.raises(ConfigError, match="no CRS"):
        working_grid(4, 4, Affine.identity(), None, 0.5)


SCALES = st.sampled_from([0.2, 0.37, 0.8, 1.3, 2.0, 2.5, 3.71])


@given(SCALES, st.integers(0, 30), st.integers(0, 30))
def test_the_same_ground_gives_the_same_pixels_through_another_window_and_from_a_cut_out(scale, top, left):
    """Working pixels of equal number must agree, but for those that the cut leaves less ground or fewer neighbours."""
    scene = np.random.default_rng(0).integers(0, 65535, (3, 60, 64)).astype(np.float32)
    whole, _ = grid_of(60, 64, 0.5 * scale)
    cut, _ = grid_of(30, 30, 0.5 * scale, x=500_000 + 0.5 * left, y=5_000_000 - 0.5 * top)
    everything, valid = whole.to_working(scene, np.ones((60, 64), bool), whole.window)
    assert valid.all()
    margin = math.ceil(1.5 / scale) + 1
    window = Window(margin, margin, cut.height - 2 * margin, cut.width - 2 * margin)
    source = cut.scene_window(window)
    rows, columns = source.slices_in(Window(-top, -left, 1, 1))
    part = scene[:, rows, columns]
    seen, _ = cut.to_working(part, np.ones(part.shape[1:], bool), window)
    down = cut.rows.anchor - whole.rows.anchor + margin
    right = cut.columns.anchor - whole.columns.anchor + margin
    np.testing.assert_allclose(seen, everything[:, down : down + window.height, right : right + window.width], atol=0.5)


@given(SCALES, st.integers(0, 20), st.integers(0, 20))
def test_logits_come_back_to_the_scene_by_windows_as_at_once(scale, top, left):
    grid, _ = grid_of(40, 44, 0.5 * scale, x=500_000.2)
    logits = np.random.default_rng(0).normal(size=(2, grid.height, grid.width)).astype(np.float32)
    whole = grid.to_scene(logits, Window(0, 0, 40, 44))
    assert whole.shape == (2, 40, 44)
    window = Window(top, left, 40 - top, 20)
    rows, columns = grid.working_window(window).slices_in(grid.window)
    part = grid.to_scene(logits[:, rows, columns], window)
    np.testing.assert_allclose(part, whole[:, top:, left : left + 20], atol=1e-5)
    ramp = np.broadcast_to((np.arange(grid.height) + 0.5)[:, None] * scale, logits.shape).astype(np.float32)
    back = grid.to_scene(ramp, Window(0, 0, 40, 44))[0, :, 0] + grid.rows.offset
    inside = slice(math.ceil(scale), 40 - math.ceil(scale))
    np.testing.assert_allclose(back[inside], (np.arange(40) + 0.5)[inside], atol=0.15)  # everything is where it was


def test_invalid_pixels_take_no_part_in_means():
    grid, _ = grid_of(4, 4, 1.0)
    values = np.full((3, 4, 4), 7, np.uint16)
    valid = np.ones((4, 4), bool)
    values[:, 0, :2], valid[0, :2] = 60_000, False  # half of the first working pixel
    values[:, 2:, 2:], valid[2:, 2:] = 60_000, False
    values[:, 2, 2], valid[2, 2] = 7, True  # a quarter of the last is valid: too little
    seen, known = grid.to_working(values, valid, grid.window)
    assert known.tolist() == [[True, True], [True, False]]
    assert seen.dtype == np.uint16 and (seen[:, known] == 7).all() and (seen[:, ~known] == 0).all()
