from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import ConfigError, ImageError
from segearth.geo.raster import open_scene
from segearth.geo.stretch import SceneStretch
from segearth.geo.windows import Window

rasterio = pytest.importorskip("rasterio")
RNG = np.random.default_rng(0)


def stretch_of(path, *numbers, **options):
    with open_scene(path) as scene:
        return SceneStretch.of(scene, *numbers, **options), *scene.read(scene.grid.window)


def test_limits_and_values_by_hand(make_scene):
    ramp = np.arange(1000, 1101, dtype=np.uint16).reshape(1, 1, 101)  # 0 to 100 per cent
    stretch, values, valid = stretch_of(make_scene(ramp), 10, 90)
    assert stretch == SceneStretch((1010.0,) * 3, (1090.0,) * 3)
    out = stretch.apply(values, valid)
    assert out.dtype == np.uint8
    assert out[0, [0, 10, 50, 90, 100], 0].tolist() == [0, 0, 128, 255, 255]  # 40 / 80 · 255 = 127.5, to the even
    assert out[0, 42, 2] == 102  # 32 / 80 · 255


def test_invalid_pixels_are_black_where_black_is_below_zero():
    stretch = SceneStretch((-1.0,) * 3, (1.0,) * 3)
    values, valid = np.full((1, 2, 3), 1, np.float32), np.array([[True, False]])
    assert stretch.apply(values, valid)[0, :, 0].tolist() == [255, 0]


def test_bands_apart_or_joint(make_scene):
    array = np.stack([np.full((10, 10), 100), np.full((10, 10), 300), np.full((10, 10), 500)]).astype(np.uint16)
    array[:, 0, 0] += 100
    apart, *_ = stretch_of(make_scene(array), 0, 100)
    assert (apart.low, apart.high) == ((100, 300, 500), (200, 400, 600))
    joint, *_ = stretch_of(make_scene(array), 0, 100, joint=True)
    assert (joint.low, joint.high) == ((100,) * 3, (600,) * 3)


def test_eight_bits_stay_unless_asked(make_scene):
    array = RNG.integers(50, 100, (3, 8, 8), dtype=np.uint8)
    stretch, values, valid = stretch_of(make_scene(array))
    assert stretch.is_identity and np.array_equal(stretch.apply(values, valid), values)
    assert (stretch.apply(values, ~valid) == 0).all()
    stretch, values, valid = stretch_of(make_scene(array), 0, 100, keep_uint8=False)
    out = stretch.apply(values, valid)
    assert not stretch.is_identity and out.min() == 0 and out.max() == 255


def test_invalid_pixels_count_for_nothing_and_become_black(make_scene):
    array = RNG.uniform(0, 1, (3, 20, 20)).astype(np.float32)
    array[:, :10], array[:, 10] = np.nan, -9999
    stretch, values, valid = stretch_of(make_scene(array, nodata=-9999), 0, 100)
    assert min(stretch.low) >= 0 and max(stretch.high) <= 1
    with np.errstate(all="raise"):
        out = stretch.apply(values, valid)
    assert (out[:11] == 0).all() and out[11:].max() == 255


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_a_constant_band_is_grey(make_scene, dtype):
    stretch, values, valid = stretch_of(make_scene(np.full((3, 8, 8), 77, dtype)))
    assert np.isin(stretch.apply(values, valid), (127, 128)).all()


def test_a_few_bright_things_on_one_dark_value(make_scene):
    array = np.full((1, 100, 100), 5, np.uint16)
    array[0, 0, 0] = 905
    stretch, values, valid = stretch_of(make_scene(array))
    assert stretch == SceneStretch((5.0,) * 3, (905.0,) * 3)
    assert stretch.apply(values, valid)[0, :2, 0].tolist() == [255, 0]


def test_nothing_valid_is_black_and_a_rare_valid_pixel_is_found(make_scene, monkeypatch):
    array = np.zeros((3, 400, 400), np.uint16)
    stretch, values, valid = stretch_of(make_scene(array, nodata=0))
    assert not valid.any() and (stretch.apply(values, valid) == 0).all()
    monkeypatch.setattr("segearth.geo.stretch.SAMPLE_SIDE", 4)
    monkeypatch.setattr("segearth.geo.stretch.BLOCK", 64)
    array[:, 397, 391:393] = [[100, 200]]
    stretch, *_ = stretch_of(make_scene(array, nodata=0), 0, 100)
    assert stretch == SceneStretch((100.0,) * 3, (200.0,) * 3)


def test_large_scenes_are_sampled_at_spots_and_by_overviews(make_scene, monkeypatch):
    ramp = np.add.outer(np.arange(400), np.arange(600))[None].astype(np.uint16)
    whole, *_ = stretch_of(make_scene(ramp))
    monkeypatch.setattr("segearth.geo.stretch.SAMPLE_SIDE", 64)
    spots, *_ = stretch_of(make_scene(ramp))
    assert spots != whole
    np.testing.assert_allclose((spots.low[0], spots.high[0]), (whole.low[0], whole.high[0]), rtol=0.1)
    path = make_scene(ramp)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([4], rasterio.enums.Resampling.nearest)
    by_overview, *_ = stretch_of(path)
    np.testing.assert_allclose((by_overview.low[0], by_overview.high[0]), (whole.low[0], whole.high[0]), rtol=0.1)
    monkeypatch.setattr("segearth.geo.stretch.MAX_BLOCKS", 1)
    monkeypatch.setattr("segearth.geo.stretch.BLOCK", 64)
    with pytest.raises(ImageError, match="no valid pixel"):
        stretch_of(make_scene(np.zeros((1, 400, 600), np.uint16), nodata=0))


def test_limits_belong_to_the_scene_and_not_to_the_tile(make_scene):
    dark_and_bright = RNG.integers(0, 1000, (3, 64, 64)).astype(np.uint16)
    dark_and_bright[:, :, 32:] += 30_000
    with open_scene(make_scene(dark_and_bright)) as scene:
        stretch = SceneStretch.of(scene)
        assert stretch == SceneStretch.of(scene)
        dark = stretch.apply(*scene.read(Window(0, 0, 64, 32)))
        whole = stretch.apply(*scene.read(scene.grid.window))
    assert dark.max() < 20 and np.array_equal(dark, whole[:, :32])


@pytest.mark.parametrize("numbers", [(98, 2), (-1, 50), (5, 101), (5, 5)])
def test_bad_percentages(make_scene, numbers):
    with pytest.raises(ConfigError, match="low < high"):
        stretch_of(make_scene(np.ones((3, 4, 4), np.uint16)), *numbers)


def test_real_rasters(geotiffs):
    for path in geotiffs:
        with open_scene(path) as scene:
            stretch = SceneStretch.of(scene)
            assert stretch.is_identity == (scene.dtype == np.uint8)
            out = stretch.apply(*scene.read(scene.grid.window))
            if scene.dtype == np.uint16:  # 2 per cent below and above
                assert 0.01 < (out == 0).mean() < 0.06 and 0.01 < (out == 255).mean() < 0.06
