"""The worked example of docs/custom_data.md, pasted as a user would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from dataset_fakes import coco, write_image, write_mask

from segearth.config import load_experiment
from segearth.data.registry import DATASETS, build_dataset, dataset_class
from segearth.data.verify import verify_dataset
from segearth.errors import DatasetError

DOCS = Path(__file__).parents[2] / "docs"


def blocks(language, page="custom_data.md"):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_pasted_example_is_a_whole_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], "make_my_data.py", "exec"), {})
    reports = verify_dataset("jsonl", "my_data")
    assert [(r.split, r.images, r.questions, r.empty_masks) for r in reports] == [
        ("train", 8, 24, 8),
        ("val", 2, 6, 2),
        ("test", 2, 6, 2),
    ]
    assert all(report.ok for report in reports)
    (tmp_path / "my_data.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    experiment = load_experiment("my_data.yaml", ["train.max_steps=1000", "train.seed=1"])
    for row in experiment.data.train + experiment.data.val + experiment.data.test:
        assert len(build_dataset(row.name, row.root, row.split)) > 0


def test_pasted_reader_reads_its_layout_and_knows_absent_things(tmp_path):
    names: dict = {"__name__": "mask_csv"}
    exec(compile(blocks("python")[1], "mask_csv.py", "exec", dont_inherit=True), names)
    write_image(tmp_path / "images/a.png", 40)
    write_mask(tmp_path / "masks/a.png", 8)
    lines = "image,question,mask\na.png,the roof,a.png\na.png,the ship,\n"
    (tmp_path / "train.csv").write_text(lines, encoding="utf-8")
    (sample,) = names["MaskCsv"](tmp_path, "train")
    assert [(q.text, bool(q.mask.any()), q.present) for q in sample.questions] == [
        ("the roof", True, True),
        ("the ship", False, False),
    ]
    with pytest.raises(DatasetError, match=r"val\.csv is missing"):
        names["MaskCsv"](tmp_path, "val")


def test_lines_and_coco_file_shown_are_json():
    lines, coco = blocks("json")
    assert len([json.loads(line) for line in lines.splitlines()]) == 3
    assert set(json.loads(coco)) == {"images", "categories", "annotations"}


def test_options_shown_open_a_coco_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table, experiment = blocks("yaml", "expressions.md")
    Path("mine.yaml").write_text(table, encoding="utf-8")
    Path("mine_experiment.yaml").write_text(experiment, encoding="utf-8")
    coco(tmp_path / "my_coco")
    content = json.loads(Path("my_coco/annotations_train.json").read_text())
    content["categories"].append({"id": 10, "name": "vehicle"})
    Path("my_coco/annotations_train.json").write_text(json.dumps(content))
    (row,) = load_experiment("mine_experiment.yaml").data.train
    dataset = build_dataset(row.name, row.root, row.split, **row.options)
    assert any("tomatoes" in sentence for need in dataset.table.needs for sentence in need.questions)
    annotated = dataset.annotated(0)
    assert (annotated.known_absent, annotated.incomplete, annotated.possible) == ({"ship"}, {"vehicle"}, {"tent"})


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_has_a_row(name):
    assert f"| `{name}` |" in (DOCS / "datasets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["earthreason", "rrsis_d", "conversations"])
def test_trees_shown_are_those_of_the_errors(name):
    assert dataset_class(name).tree in (DOCS / "datasets.md").read_text(encoding="utf-8")
