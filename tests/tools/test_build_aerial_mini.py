"""How the embedded data set is made, and that what is embedded was made so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tool_files import load_tool

from segearth.data.readers.aerial import FILE_NAMES, PACKAGED, UNSEEN_SPLITS, AerialMini
from segearth.errors import DatasetError

TOOL = load_tool("build_aerial_mini")
TREE = json.loads((PACKAGED / "annotations.json").read_text(encoding="utf-8"))
RECORDS = {record["id"]: record for record in TREE["images"]}


def test_no_building_reaches_into_a_chip_of_a_more_held_out_split() -> None:
    placed = [record for record in TREE["images"] if "bounds_lonlat" in record]
    for annotation in TREE["annotations"]:
        record = RECORDS[annotation["image_id"]]
        if "bounds_lonlat" in record:
            x, y, w, h = annotation["bbox"]
            for other in placed:
                further = TOOL.SPLIT_ORDER[other["split"]] > TOOL.SPLIT_ORDER[record["split"]]
                if further and other["source"] == record["source"]:
                    # One pixel less than when it was built: boxes were rounded to the smaller image since.
                    assert not TOOL.reaches(record, (x + 2, y + 2, x + w - 2, y + h - 2), other)


def test_photos_that_overlap_another_split_are_left_out() -> None:
    names = {Path(record["file_name"]).name for record in TREE["images"]}
    for facts in TOOL.SOURCES.values():
        assert names.isdisjoint(facts.left_out)


def fake_source(folder: Path, splits: tuple[str, str] = ("train", "test")) -> None:
    """Two chips side by side; building 7 lies across their common edge."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (split, west) in enumerate(zip(splits, (0.0, 0.001), strict=True), 1):
        name = f"chip{number}.png"
        Image.fromarray(np.full((100, 100, 3), 90 + number, np.uint8)).save(folder / "images" / name)
        bounds = [west, 0.0, west + 0.001, 0.001]
        record = {"id": number, "file_name": name, "width": 100, "height": 100, "split": split, "group": name}
        images.append({**record, "gsd_m": 0.1, "bounds_lonlat": bounds})
        edge = [80, 10, 100, 10, 100, 40, 80, 40] if number == 1 else [0, 10, 20, 10, 20, 40, 0, 40]
        for shape, osm in ((edge, 7), ([40, 60, 60, 60, 60, 80, 40, 80], 10 + number)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": [shape],
                    "attributes": {"osm_id": osm},
                }
            )
    categories = [{"id": 1, "name": "building", "supercategory": "structure", "isthing": 1}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(tree))


def test_build_paints_shared_buildings_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_source(tmp_path / "src" / "chips")
    monkeypatch.setattr(TOOL, "SOURCES", {"chips": TOOL.SourceFacts(("ship",), long_side=50)})
    TOOL.build(tmp_path / "src", tmp_path / "out", seed=1)
    train, test = AerialMini(tmp_path / "out", "train"), AerialMini(tmp_path / "out", "test")
    assert [o.attributes["osm_id"] for o in train.annotated(0).objects] == ["11"]
    assert [o.attributes["osm_id"] for o in test.annotated(0).objects] == ["7", "12"]
    assert train.image(0).shape == (50, 50, 3)
    assert train.records[0]["gsd_m"] == pytest.approx(0.2)
    assert train.annotated(0).objects[0].box == (20, 30, 30, 40)
    assert len(AerialMini(tmp_path / "out", "test", "unseen")[0].questions) > 2
    files = {path: path.read_text() for path in (tmp_path / "out").glob("questions*.jsonl")}
    assert len(files) == 9
    TOOL.build(tmp_path / "src", tmp_path / "out", seed=1)
    assert {path: path.read_text() for path in files} == files


def test_build_refuses_a_group_in_two_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_source(tmp_path / "chips")
    tree = json.loads((tmp_path / "chips/annotations.json").read_text())
    for record in tree["images"]:
        record["group"] = "same"
    (tmp_path / "chips/annotations.json").write_text(json.dumps(tree))
    monkeypatch.setattr(TOOL, "SOURCES", {"chips": TOOL.SourceFacts()})
    with pytest.raises(DatasetError, match="group same is in two splits"):
        TOOL.build(tmp_path, tmp_path / "out")
    with pytest.raises(DatasetError, match="give the folder that holds"):
        TOOL.build(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_dense_file_is_what_the_builder_makes(split: str) -> None:
    assert (PACKAGED / FILE_NAMES.dense.format(split=split)).read_text() == TOOL.dense_questions(None, split)


@pytest.mark.parametrize("split", UNSEEN_SPLITS)
def test_the_unseen_file_is_what_the_builder_makes(split: str) -> None:
    text = (PACKAGED / FILE_NAMES.unseen.format(split=split)).read_text()
    assert text == TOOL.unseen_questions(None, split)
    assert 150 < len(text.splitlines()) <= 400
