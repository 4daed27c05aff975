from __future__ import annotations

import logging

import numpy as np
import pytest

from segearth.errors import ConfigError, ImageError, MissingExtraError
from segearth.geo import raster as raster_module
from segearth.geo.packages import geo_package
from segearth.geo.raster import open_scene
from segearth.geo.stretch import SceneStretch
from segearth.geo.windows import Window

rasterio = pytest.importorskip("rasterio")
shutil = pytest.importorskip("rasterio.shutil")
RNG = np.random.default_rng(0)


def numbered(bands=3, height=20, width=30, dtype=np.uint8):
    return RNG.integers(1, 200, (bands, height, width)).astype(dtype)


def whole(path, **options):
    with open_scene(path, **options) as scene:
        return scene.read(scene.grid.window)


def test_a_window_within_and_over_the_border(make_scene):
    array = numbered()
    with open_scene(make_scene(array)) as scene:
        assert (scene.height, scene.width, scene.dtype, scene.bands) == (20, 30, np.uint8, (1, 2, 3))
        assert scene.crs.to_epsg() == 32633 and scene.working_transform == scene.transform
        values, valid = scene.read(Window(3, 4, 5, 6))
        assert valid.all() and np.array_equal(values, array[:, 3:8, 4:10].transpose(1, 2, 0))
        values, valid = scene.read(Window(-2, 25, 30, 10))
        assert np.array_equal(values[2:22, :5], array[:, :, 25:].transpose(1, 2, 0))
        assert valid[2:22, :5].all() and valid.sum() == 20 * 5 and (values[~valid] == 0).all()
        values, valid = scene.read(Window(100, 0, 4, 4))
        assert not valid.any() and values.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("count", "options", "bands", "expected"),
    [
        (1, {}, None, (1, 1, 1)),
        (2, {"colours": ["gray", "alpha"]}, None, (1, 1, 1)),
        (3, {"colours": ["blue", "green", "red"]}, None, (3, 2, 1)),
        (4, {"colours": ["alpha", "red", "green", "blue"]}, None, (2, 3, 4)),
        (4, {"photometric": "MINISBLACK"}, None, (1, 2, 3)),
        (5, {"photometric": "MINISBLACK", "descriptions": ["B02", "B03", "B04", "B08", "B11"]}, None, (3, 2, 1)),
        (12, {"photometric": "MINISBLACK"}, None, (1, 2, 3)),
        (12, {"photometric": "MINISBLACK"}, [8, 4, 3], (8, 4, 3)),
        (12, {"photometric": "MINISBLACK"}, 7, (7, 7, 7)),
        (2, {"photometric": "MINISBLACK"}, [1, 2, 2], (1, 2, 2)),
        (3, {}, (2,), (2, 2, 2)),
    ],
)
def test_bands(make_scene, count, options, bands, expected):
    array = numbered(count)
    with open_scene(make_scene(array, **options), bands) as scene:
        assert scene.bands == expected
        values, _ = scene.read(Window(0, 0, 20, 30))
    assert np.array_equal(values, np.stack([array[band - 1] for band in expected], axis=-1))


def test_a_first_guess_of_many_bands_is_said(make_scene, caplog):
    with caplog.at_level(logging.WARNING), open_scene(make_scene(numbered(12), photometric="MINISBLACK")):
        assert "none of 12 bands" in caplog.text


@pytest.mark.parametrize("bands", [0, 4, [1, 2], [1, 2, 9], [], [1.0, 2, 3]])
def test_bad_bands(make_scene, bands):
    with pytest.raises(ConfigError, match="from 1 to 3: 1 red, 2 green, 3 blue"):
        open_scene(make_scene(numbered(), photometric="RGB"), bands)


def test_two_bands_without_a_colour_must_be_chosen(make_scene):
    with pytest.raises(ImageError, match=r"2 bands .* say which"):
        open_scene(make_scene(numbered(2), photometric="MINISBLACK"))


def test_bands_of_different_types(make_scene, tmp_path):
    array = numbered()
    described = ""
    for number, kind in enumerate(["Byte", "UInt16", "Float32"], 1):
        make_scene(array[number - 1 : number].astype("uint8" if kind == "Byte" else kind.lower()), f"{number}.tif")
        described += (
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="1">{number}'
            ".tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    path = tmp_path / "mixed.vrt"
    path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{described}</VRTDataset>')
    with open_scene(path) as scene:
        values, valid = scene.read(Window(2, 3, 10, 20))
        assert values.dtype == scene.dtype == np.float32 and valid.all()
        assert np.array_equal(values, array[:, 2:12, 3:23].transpose(1, 2, 0))
        assert scene.read_whole(16)[0].shape == (11, 16, 3)


def test_no_data_of_unsigned_files_needs_all_bands(make_scene):
    array = numbered()
    array[:, 0, 0], array[0, 0, 1] = 0, 0
    _, valid = whole(make_scene(array, nodata=0))
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_no_data_of_other_files_and_what_is_no_number(make_scene):
    array = numbered(dtype=np.float32)
    array[1, 0, 0], array[2, 3, 3], array[0, 4, 4], array[:, 5, 5] = -9999, np.nan, np.inf, -np.inf
    _, valid = whole(make_scene(array, nodata=-9999))
    assert np.argwhere(~valid).tolist() == [[0, 0], [3, 3], [4, 4], [5, 5]]


def test_alpha_and_masks(make_scene):
    rgba = numbered(4)
    rgba[3] = 255
    rgba[3, 0, :2] = 0, 1  # transparent, and nearly so
    _, valid = whole(make_scene(rgba, colours=["red", "green", "blue", "alpha"]))
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    mask = np.full((20, 30), 255, np.uint8)
    mask[2, 3] = 0
    _, valid = whole(make_scene(numbered(), "masked.tif", mask=mask))
    assert np.argwhere(~valid).tolist() == [[2, 3]]


@pytest.mark.filterwarnings("error::rasterio.errors.NodataShadowWarning")
def test_alpha_and_a_value_for_no_data_both_count(make_scene):
    rgba = numbered(4)
    rgba[3] = 255
    rgba[3, 0, 0] = 0  # transparent, and not the value
    rgba[:3, 1, 1] = 0  # the value, and not transparent
    colours = ["red", "green", "blue", "alpha"]
    _, valid = whole(make_scene(rgba, colours=colours, nodata=0))
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1]]


def test_a_palette_is_shown_in_its_colours(tmp_path):
    path = tmp_path / "palette.tif"
    numbers = np.array([[0, 1], [2, 1]], np.uint8)
    form = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint8", "photometric": "palette"}
    with rasterio.open(path, "w", **form) as file:
        file.write(numbers, 1)
        file.write_colormap(1, {0: (10, 20, 30, 255), 1: (40, 50, 60, 255), 2: (1, 2, 3, 255)})
    values, valid = whole(path)
    assert valid.all() and values.tolist() == [[[10, 20, 30], [40, 50, 60]], [[1, 2, 3], [40, 50, 60]]]


def test_a_transparent_colour_of_a_palette_is_invalid(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 1, 2, 3])
    picture.save(tmp_path / "palette.png", transparency=bytes([255, 0, 0]))
    values, valid = whole(tmp_path / "palette.png")
    assert valid.tolist() == [[True, False], [False, False]] and values[0, 0].tolist() == [10, 20, 30]


def test_the_compass(make_scene):
    turned = rasterio.Affine(0.3, 0.4, 500_000, 0.4, -0.3, 5_000_000)
    with open_scene(make_scene(numbered(), transform=turned)) as scene:
        np.testing.assert_allclose(scene.compass, [[0.3, 0.4], [0.4, -0.3]], rtol=1e-3)
    mirrored = rasterio.Affine(-1e-5, 0, 20, 0, 1e-5, 60)  # a degree of longitude is 55800 m there, of latitude 111412
    with open_scene(make_scene(numbered(), transform=mirrored, crs="EPSG:4326")) as scene:
        np.testing.assert_allclose(scene.compass, np.diag([-0.55800, 1.11412]), rtol=1e-4, atol=1e-9)
    site = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    with open_scene(make_scene(numbered(), transform=turned, crs=site)) as scene:
        assert scene.metres_per_pixel is None
        np.testing.assert_allclose(scene.compass, [[0.3, 0.4], [0.4, -0.3]])
    with open_scene(make_scene(numbered(), crs=None)) as scene:
        assert scene.compass is None


def test_a_plain_picture_has_no_crs(tmp_path, recwarn):
    from PIL import Image

    Image.fromarray(numbered().transpose(1, 2, 0)).save(tmp_path / "photo.png")
    with open_scene(tmp_path / "photo.png") as scene:
        assert scene.crs is None and scene.metres_per_pixel is None and scene.grid.is_native
        assert scene.read(Window(0, 0, 20, 30))[1].all()
    assert not [warning for warning in recwarn if "georeference" in str(warning.message)]
    with pytest.raises(ConfigError, match="no CRS"):
        open_scene(tmp_path / "photo.png", resolution=0.5)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 40, 1), (1, 1, 40)])
def test_one_pixel_wide(make_scene, shape):
    values, valid = whole(make_scene(numbered(*shape)))
    assert values.shape == (*shape[1:], 3) and valid.all()
    with open_scene(make_scene(numbered(*shape)), resolution=2) as scene:
        values, valid = scene.read(scene.grid.window)
        assert valid.all() and values.shape == (-(-shape[1] // 4), -(-shape[2] // 4), 3)


def test_working_pixels_are_means_also_where_rows_are_read_in_parts(make_scene, monkeypatch):
    array = numbered(height=64, width=64)
    expected = array.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)).transpose(1, 2, 0)
    path = make_scene(array)
    for at_once in (1 << 23, 1024, 1):
        monkeypatch.setattr(raster_module, "PIXELS_AT_ONCE", at_once)
        values, valid = whole(path, resolution=2.0)
        assert valid.all() and values.dtype == np.uint8
        np.testing.assert_allclose(values, expected, atol=0.51)
    with open_scene(path, resolution=2.0) as scene:
        assert (scene.height, scene.grid.height) == (64, 16)  # the output has the scene's own size
        part, _ = scene.read(Window(-1, 3, 6, 20))
        assert np.array_equal(part[1:, :13], values[:5, 3:])


def test_the_whole_scene_made_smaller(make_scene):
    array = numbered(height=64, width=32)
    with open_scene(make_scene(array)) as scene:
        assert scene.read_whole(16)[0].shape == (16, 8, 3)
        assert np.array_equal(scene.read_whole(64)[0], array.transpose(1, 2, 0))
        part = scene.read_whole(64, Window(3, 2, 5, 4))[0]
        assert np.array_equal(part, array.transpose(1, 2, 0)[3:8, 2:6])


def test_a_transform_that_maps_all_to_one_line_is_refused(make_scene):
    path = make_scene(numbered(), transform=rasterio.Affine(1e-6, 0, 85, 1e-6, 0, 27))
    with pytest.raises(ImageError, match=r"one line.*-a_ullr"):
        open_scene(path)


def test_ground_control_points_and_rpcs_are_refused_with_the_command_that_helps(make_scene):
    points = [rasterio.control.GroundControlPoint(row, col, col, -row) for row, col in ((0, 0), (0, 9), (9, 0))]
    path = make_scene(numbered(), crs=None, transform=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    with pytest.raises(ImageError, match=r"ground control points.*gdalwarp -tps"):
        open_scene(path)
    path = make_scene(numbered(), "rpc.tif", crs=None, transform=None)
    numbers = {"coeff": [1.0] + [0.0] * 19, "off": 1.0, "scale": 1.0}
    rpc = rasterio.rpc.RPC(
        height_off=1, height_scale=1, lat_off=1, lat_scale=1, line_off=1, line_scale=1, long_off=1, long_scale=1,
        samp_off=1, samp_scale=1, line_den_coeff=numbers["coeff"], line_num_coeff=numbers["coeff"],
        samp_den_coeff=numbers["coeff"], samp_num_coeff=numbers["coeff"],
    )  # fmt: skip
    with rasterio.open(path, "r+") as file:
        file.rpcs = rpc
    with pytest.raises(ImageError, match=r"RPC.*gdalwarp -rpc"):
        open_scene(path)


def test_complex_numbers_are_refused(make_scene):
    with pytest.raises(ImageError, match="DERIVED_SUBDATASET:AMPLITUDE"):
        open_scene(make_scene(numbered().astype(np.complex64)))


def test_blocks_too_large_for_memory_are_refused(make_scene, monkeypatch):
    path = make_scene(numbered(height=64, width=64), blockysize=64, compress="deflate")
    monkeypatch.setattr(raster_module, "BLOCK_BYTES", 64 * 64 * 3 - 1)
    with pytest.raises(ImageError, match=r"blocks of 64 x 64 .* TILED=YES"):
        open_scene(path)
    monkeypatch.setattr(raster_module, "BLOCK_BYTES", 64 * 64 * 3)
    open_scene(path).close()


def test_a_small_file_that_states_a_huge_size_is_read_by_windows(tmp_path):
    form = {"driver": "GTiff", "count": 1, "height": 200_000, "width": 200_000, "dtype": "uint16", "crs": "EPSG:32633",
            "transform": rasterio.transform.from_origin(0, 0, 1, 1)}  # fmt: skip
    with rasterio.open(tmp_path / "bomb.tif", "w", sparse_ok=True, tiled=True, bigtiff="yes", **form):
        pass  # no block is written: each reads as zeros
    assert (tmp_path / "bomb.tif").stat().st_size < 1 << 25
    with open_scene(tmp_path / "bomb.tif") as scene:
        assert scene.read(Window(150_000, 150_000, 64, 64))[0].shape == (64, 64, 3)
        assert SceneStretch.of(scene) == SceneStretch((-0.5,) * 3, (0.5,) * 3)


def test_the_scenes_own_pixels_whatever_the_working_grid(make_scene):
    array = numbered()
    with open_scene(make_scene(array), resolution=2.0) as scene:
        values, valid = scene.read_own(Window(2, 3, 4, 5))
    assert valid.all() and np.array_equal(values, array[:, 2:6, 3:8].transpose(1, 2, 0))


def test_damaged_missing_and_strange_files(make_scene, tmp_path):
    with pytest.raises(ImageError, match=r"no raster file .*nothing.tif"):
        open_scene(tmp_path / "nothing.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(ImageError, match="damaged, no raster"):
        open_scene(tmp_path / "text.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(ImageError, match="damaged, no raster"):
        open_scene(tmp_path / "empty.tif")
    with pytest.raises(ImageError, match="damaged, no raster"):
        open_scene(tmp_path)
    path = make_scene(numbered(height=600, width=300), compress="deflate")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="fetch it again"):
        whole(path)


def test_remote_files_by_gdals_own_paths(make_scene):
    array = numbered()
    with rasterio.MemoryFile(make_scene(array).read_bytes()) as memory:
        assert memory.name.startswith("/vsimem/")
        assert np.array_equal(whole(memory.name)[0], array.transpose(1, 2, 0))
    with pytest.raises(ImageError, match="check the address"):
        open_scene("/vsizip/nowhere.zip/scene.tif")


def test_formats_can_be_limited_for_files_of_strangers(make_scene, tmp_path):
    path = make_scene(numbered())
    open_scene(path, drivers=["GTiff"]).close()
    shutil.copy(path, tmp_path / "other.vrt", driver="VRT")
    open_scene(tmp_path / "other.vrt").close()
    with pytest.raises(ImageError):
        open_scene(tmp_path / "other.vrt", drivers=["GTiff", "PNG"])


def test_facts_tell_a_changed_file(make_scene):
    path = make_scene(numbered())
    with open_scene(path) as scene:
        before = scene.facts()
    assert before["source"] == str(path) and before["bytes"] == path.stat().st_size
    make_scene(numbered(height=21))
    with open_scene(path) as scene:
        assert scene.facts() != before
    with rasterio.MemoryFile(path.read_bytes()) as memory, open_scene(memory.name) as scene:
        assert "bytes" not in scene.facts()


def test_scenes_can_be_open_together_and_close_in_any_order(make_scene):
    first, second = open_scene(make_scene(numbered())), open_scene(make_scene(numbered(), "second.tif"))
    first.close()
    assert second.read(Window(0, 0, 4, 4))[1].all()
    second.close()
    with pytest.raises(ImageError):
        second.read(Window(0, 0, 4, 4))


@pytest.mark.parametrize(("name", "public"), [
    ("/data/a?b@c.tif", "/data/a?b@c.tif"), ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
    ("https://me:word@host/a@b.tif?sig=X", "https://host/a@b.tif"),
    ("/vsicurl/https://host/a.tif?sig=X", "/vsicurl/https://host/a.tif"),
    ("/vsicurl?url=https%3A%2F%2Fhost%2Fa.tif%3Fsig%3DX", "/vsicurl"),
])  # fmt: skip
def test_the_public_name_has_no_secrets(make_scene, name, public):
    with open_scene(make_scene(np.ones((3, 4, 4), np.uint8))) as scene:
        scene.name = name
        assert scene.public_name == public


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'segearth\[geo\]'"):
        geo_package("no_such_package")


def test_a_package_that_lacks_a_library_of_the_system_is_not_called_missing(monkeypatch):
    def fails(name):
        raise ImportError("libexpat.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", fails)
    with pytest.raises(MissingExtraError, match=r"rasterio cannot be imported \(libexpat\.so\.1: cannot open"):
        geo_package("rasterio.warp")


def test_real_rasters(geotiffs):
    for path in geotiffs:
        with open_scene(path) as scene, rasterio.open(path) as file:
            assert (scene.crs, scene.transform, scene.height, scene.width) == (file.crs, file.transform, *file.shape)
            assert scene.dtype == file.dtypes[0] and scene.tags == file.tags()
            values, valid = scene.read(Window(0, 0, 64, 64))
            assert valid.mean() > 0.5
            bands = file.read(list(scene.bands), window=rasterio.windows.Window(0, 0, 64, 64))
            assert np.array_equal(values, bands.transpose(1, 2, 0))
            assert scene.metres_per_pixel is not None and 0.1 < scene.metres_per_pixel[0] < 10
