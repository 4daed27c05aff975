from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from segearth.errors import ConfigError, OutputError
from segearth.geo.vector_files import check_vector_path, write_vectors
from segearth.geo.vectors import vectorise

geopandas = pytest.importorskip("geopandas")
pyogrio = pytest.importorskip("pyogrio")
pyproj = pytest.importorskip("pyproj")
pytest.importorskip("rasterio")

from affine import Affine  # noqa: E402

PLACE = {"transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139), "crs": 32616}
SUFFIXES = [".geojson", ".gpkg", ".fgb"]


def table(question: str = "roofs", empty: bool = False, **options: object) -> geopandas.GeoDataFrame:
    mask = np.zeros((20, 30), bool)
    if not empty:
        mask[2:6, 3:9] = mask[10:13, 20:23] = mask[13, 23] = True
        mask[11, 21] = False
    return vectorise(mask, **{**PLACE, "question": question, "score": 0.5, **options})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    written = table(points=True, answer="Zwei Dächer, größere zuerst")
    write_vectors(tmp_path / f"new/out{suffix}", written)
    read = geopandas.read_file(tmp_path / f"new/out{suffix}")
    assert read.crs.to_epsg() == 32616
    key = read.sort_values("region", ignore_index=True)  # FlatGeobuf sorts by place, for its index
    for name in written.columns.drop("geometry"):
        assert key[name].tolist() == written[name].tolist(), name
    assert key.geometry.geom_equals(written.geometry).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"out{suffix}"]
    assert [layer[0] for layer in pyogrio.list_layers(tmp_path / f"new/out{suffix}")] == ["out"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_found_is_an_empty_layer(suffix: str, tmp_path: Path) -> None:
    write_vectors(tmp_path / f"out{suffix}", table(empty=True), layer="answers")
    facts = pyogrio.read_info(tmp_path / f"out{suffix}")
    assert len(geopandas.read_file(tmp_path / f"out{suffix}")) == 0
    assert facts["layer_name"] == "answers"
    if suffix != ".geojson":  # which states no fields where it has no features
        assert facts["fields"].tolist() == table(empty=True).columns.drop("geometry").tolist()
        assert facts["geometry_type"] == "MultiPolygon"
        assert facts["dtypes"].tolist() == pyogrio.read_info(_write(tmp_path / f"full{suffix}"))["dtypes"].tolist()
    assert "32616" in facts["crs"]


def _write(path: Path) -> Path:
    write_vectors(path, table())
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_questions_are_one_layer(suffix: str, tmp_path: Path) -> None:
    write_vectors(tmp_path / f"out{suffix}", [table("roofs"), table("pools", empty=True), table("roads")])
    read = geopandas.read_file(tmp_path / f"out{suffix}")
    assert read.groupby("question").region.apply(sorted).to_dict() == {"roads": [1, 2], "roofs": [1, 2]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_a_crs(suffix: str, tmp_path: Path) -> None:
    write_vectors(tmp_path / f"out{suffix}", table(crs=None, transform=None))
    assert len(geopandas.read_file(tmp_path / f"out{suffix}")) == 2


def test_geojson_says_its_crs_or_is_in_degrees(tmp_path: Path) -> None:
    write_vectors(tmp_path / "scene.geojson", table())
    write_vectors(tmp_path / "web.geojson", table(), wgs84=True)
    scene, web = (json.loads((tmp_path / name).read_text()) for name in ("scene.geojson", "web.geojson"))
    assert scene["crs"]["properties"]["name"].endswith("EPSG::32616")
    assert "crs" not in web
    corners = np.array(web["features"][0]["geometry"]["coordinates"][0])
    assert (corners[:, 0].min(), corners[:, 1].max()) == pytest.approx(
        pyproj.Transformer.from_crs(32616, 4326, always_xy=True).transform(733602.5, 3725138), abs=1e-6
    )


def test_a_file_that_is_there_is_replaced_when_the_new_one_is_whole(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "out.gpkg"
    write_vectors(path, table("roofs"))
    before = path.read_bytes()

    def fail(*args: object, **options: object) -> None:
        raise pyogrio.errors.DataSourceError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(pyogrio, "write_dataframe", fail)
        with pytest.raises(OutputError, match=r"out\.gpkg cannot be written \(disk I/O error\)"):
            write_vectors(path, table("roads"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_vectors(path, table("roads"))
    assert set(geopandas.read_file(path).question) == {"roads"}


def test_a_geopackage_with_other_layers_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "project.gpkg"
    write_vectors(path, table(), layer="my_survey")
    before = path.read_bytes()
    for check in (lambda: check_vector_path(path), lambda: write_vectors(path, table())):
        with pytest.raises(OutputError, match="also holds my_survey, which would be deleted; name another file"):
            check()
    assert path.read_bytes() == before
    write_vectors(path, table("roads"), layer="my_survey")
    assert set(geopandas.read_file(path).question) == {"roads"}


def test_a_geopackage_that_is_open_elsewhere_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "out.gpkg"
    write_vectors(path, table("roofs"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = wal")
        other.execute("UPDATE gpkg_contents SET description = 'edited'")
        other.commit()
        for check in (lambda: check_vector_path(path), lambda: write_vectors(path, table("roads"))):
            with pytest.raises(OutputError, match=r"out\.gpkg-wal lies beside it; close it in that, such as QGIS"):
                check()
        assert other.execute("SELECT question FROM out").fetchall() == [("roofs",)] * 2
    write_vectors(path, table("roads"))
    assert set(geopandas.read_file(path).question) == {"roads"}


@pytest.mark.parametrize("name", ["out.shp", "out", "out.json"])
def test_an_unknown_suffix_lists_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.geojson \(GeoJSON\), \.gpkg \(GPKG\), \.fgb \(FlatGeobuf\)"):
        write_vectors(tmp_path / name, table())
    assert not list(tmp_path.iterdir())


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"different CRSs \(EPSG:32616, EPSG:32617\)"):
        write_vectors(tmp_path / "a.gpkg", [table(), table(crs=32617)])
    with pytest.raises(ConfigError, match="no table"):
        write_vectors(tmp_path / "a.gpkg", [])
    for name, options in (("a.gpkg", {}), ("a.geojson", {"crs": None})):
        with pytest.raises(ConfigError, match="wgs84 is for GeoJSON"):
            write_vectors(tmp_path / name, table(**options), wgs84=True)
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_vector_path(tmp_path / "folder.gpkg")
