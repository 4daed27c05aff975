from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segearth.archives as archives
from segearth.archives import MANIFEST, ArchiveJob, read_manifest, run_archive
from segearth.errors import ConfigError, OutputError, QuestionError
from segearth.inference.scene_types import SceneOptions
from segearth.models.segearth import SegEarth
from segearth.zoo.opening import model_state

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed: pip install 'segearth[geo]'")


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=70, height=50, count=3, dtype="uint8", crs="EPSG:32645",
            transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 3_000_000),
        ) as file:  # fmt: skip
            file.write(rng.integers(0, 256, (3, 50, 70), dtype=np.uint8))
        paths.append(path)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"no raster at all")
    return [paths[0], broken, paths[1]]


@pytest.fixture
def job(tmp_path: Path) -> ArchiveJob:
    options = SceneOptions(tile_size=64, overlap=16)
    return ArchiveJob(("the roofs",), tmp_path / "out", "segearth_debug", vector=".geojson", options=options)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In place of Ray, a loop in this process that notes what it is given."""
    given: list[str] = []

    def loop(sources: Any, job: ArchiveJob, workers: Any, address: Any) -> Any:
        worker = archives.SceneWorker(job)
        for source in sources:
            given.append(Path(source).name)
            yield worker({"source": source})["line"]

    monkeypatch.setattr(archives, "_in_ray", loop)
    return given


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"questions": ("the roofs", " ")}, QuestionError),
        ({"options": SceneOptions(mode="best")}, ConfigError),
        ({"vector": ".shp"}, OutputError),
    ],
)
def test_what_would_fail_for_every_scene_fails_at_once(
    scenes: list[Path], job: ArchiveJob, here: list[str], wrong: Any, error: Any
) -> None:
    with pytest.raises(error):
        run_archive(scenes, replace(job, **wrong))
    assert not here and not job.folder.exists()


def test_a_failure_stops_nothing_and_is_in_the_manifest(scenes: list[Path], job: ArchiveJob, here: list[str]) -> None:
    said: list[str] = []
    result = run_archive(scenes, job, on_line=lambda line: said.append(line["state"]))
    assert result.counts == {"done": 2, "failed": 1} and said == ["done", "failed", "done"]
    assert "damaged" in result.lines[1]["error"]
    written = {path.name for path in job.folder.iterdir()}
    assert written == {MANIFEST, "one.geojson", "one.tif", "two.geojson", "two.tif"}
    first, *_ = read_manifest(job.folder)
    assert first["answers"][0]["question"] == "the roofs" and first["settings"]["model"] == "segearth_debug"


def test_a_second_start_skips_what_is_done(scenes: list[Path], job: ArchiveJob, here: list[str]) -> None:
    run_archive(scenes, job)
    here.clear()
    assert run_archive(scenes, job).counts == {"skipped": 2, "failed": 1} and here == ["broken.tif"]


def test_what_has_changed_is_done_again(scenes: list[Path], job: ArchiveJob, here: list[str]) -> None:
    one, two = scenes[0], scenes[2]
    run_archive([one, two], job)
    here.clear()
    two.write_bytes(one.read_bytes() + b" ")
    (job.folder / "one.geojson").unlink()
    assert run_archive([one, two], job).counts == {"done": 2} and here == ["one.tif", "two.tif"]
    here.clear()
    run_archive([one], replace(job, questions=("the road",)))
    assert here == ["one.tif"]


def test_a_model_that_was_calibrated_anew_is_asked_again(
    scenes: list[Path], job: ArchiveJob, here: list[str], debug_model: SegEarth, tmp_path: Path
) -> None:
    debug_model.save_pretrained(tmp_path / "model")
    job = replace(job, model=str(tmp_path / "model"))
    for _ in range(2):
        run_archive([scenes[0]], job)
    assert here == ["one.tif"]
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text() + "\n")
    assert run_archive([scenes[0]], job).counts == {"done": 1} and here == ["one.tif"] * 2


def test_the_state_of_a_model_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # elsewhere a training run may be the default
    assert model_state(None) == model_state("segearth_tiny") != {}
    assert all(state["bytes"] > 1000 for state in model_state(None).values())
    assert model_state("segearth_debug") == {}  # random weights


def test_a_manifest_that_was_cut_off(scenes: list[Path], job: ArchiveJob, here: list[str]) -> None:
    run_archive(scenes[:1], job)
    path = job.folder / MANIFEST
    path.write_text(path.read_text() + '{"source": "tw')
    assert len(read_manifest(job.folder)) == 1
    run_archive([scenes[2]], job)
    assert [Path(line["source"]).name for line in read_manifest(job.folder)] == ["one.tif", "two.tif"]


def test_an_area_of_interest_that_was_edited_is_asked_again(
    scenes: list[Path], job: ArchiveJob, here: list[str], tmp_path: Path
) -> None:
    area = tmp_path / "area.geojson"
    outline = "[[500000, 3000000], [500020, 3000000], [500020, 2999980], [500000, 3000000]]"
    crs = '{"type": "name", "properties": {"name": "EPSG:32645"}}'
    area.write_text(f'{{"type": "Polygon", "coordinates": [{outline}], "crs": {crs}}}')
    job = replace(job, options=replace(job.options, aoi=area))
    for _ in range(2):
        assert "failed" not in run_archive([scenes[0]], job).counts
    assert here == ["one.tif"]
    area.write_text(area.read_text().replace("500020", "500030"))
    assert run_archive([scenes[0]], job).counts == {"done": 1} and here == ["one.tif"] * 2


def test_workers_in_another_folder_find_relative_paths(
    scenes: list[Path], job: ArchiveJob, here: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[str] = []
    loop = archives._in_ray

    def elsewhere(sources: Any, job: ArchiveJob, workers: Any, address: Any) -> Any:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        given.extend([*sources, str(job.model)])
        return loop(sources, job, workers, address)

    monkeypatch.setattr(archives, "_in_ray", elsewhere)
    monkeypatch.chdir(tmp_path)
    wanted = ["one.tif", "https://127.0.0.1:1/far.tif", "/vsizip/none.zip/in.tif"]
    result = run_archive(wanted, replace(job, folder=Path("masks"), vector=None))
    assert result.counts == {"done": 1, "failed": 2}
    assert given == [str(tmp_path / "one.tif"), *wanted[1:], "segearth_debug"]
    assert result.lines[0]["output"] == str(tmp_path / "masks/one.tif") and (tmp_path / "masks/one.tif").exists()


def test_a_scene_that_ended_its_process_has_failed(
    scenes: list[Path], job: ArchiveJob, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, said = archives._in_ray, []

    def lossy(sources: Any, *others: Any) -> Any:
        return loop([source for source in sources if "broken" not in source], *others)

    monkeypatch.setattr(archives, "_in_ray", lossy)
    result = run_archive(scenes, job, on_line=lambda line: said.append(line["state"]))
    assert said == ["done", "done", "failed"] and "memory is too small" in result.lines[1]["error"]
    assert [line["state"] for line in read_manifest(job.folder)] == said


def test_two_scenes_of_one_name(tmp_path: Path, job: ArchiveJob) -> None:
    with pytest.raises(ConfigError, match=r"scene\.tif"):
        run_archive([tmp_path / "a" / "scene.tif", tmp_path / "b" / "scene.jp2"], job)


@pytest.mark.slow
def test_in_ray(scenes: list[Path], job: ArchiveJob, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'segearth[archive]'")

    class Ending(archives.SceneWorker):
        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            if "broken" in row["source"]:
                os._exit(9)  # as if the system had ended it
            return super().__call__(row)

    monkeypatch.setattr(archives, "SceneWorker", Ending)
    result = run_archive(scenes, job, workers=2)
    assert result.counts == {"done": 2, "failed": 1} and "memory is too small" in result.lines[1]["error"]
    assert json.loads((job.folder / MANIFEST).read_text().splitlines()[0])["source"]
