from __future__ import annotations

import json

import pytest
from evaluation_fakes import Patches, ShiftedPredictor
from PIL import Image

from segearth.errors import DatasetError
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.report import run_evaluation, write_report


@pytest.fixture(scope="module")
def result():
    return evaluate(ShiftedPredictor(), Patches(), train_dataset=Patches(4, "train", seed=9), progress=False)


@pytest.fixture
def folder(result, tmp_path):
    write_report(result, tmp_path / "report", model_name="shifted", notes={"command": "segearth eval"})
    return tmp_path / "report"


def test_json_holds_what_was_computed(result, folder):
    facts = json.loads((folder / "report.json").read_text())
    assert (facts["model"], facts["dataset"], facts["split"]) == ("shifted", "patches", "test")
    assert facts["metrics"]["giou"] == result.metrics.giou
    assert facts["protocol"]["name"] == "native"
    assert "image's own size" in facts["protocol"]["rule"]
    assert facts["margin"] == result.margin
    assert facts["margin"] == pytest.approx(
        facts["metrics"]["giou"] - max(control["giou"] for control in facts["controls"].values())
    )
    assert facts["giou_interval_95"][0] <= result.metrics.giou <= facts["giou_interval_95"][1]
    assert facts["notes"] == {"command": "segearth eval"}
    assert {"segearth", "python", "numpy"} <= set(facts["versions"])


@pytest.mark.parametrize("by", ["kind", "task", "source", "target"])
def test_breakdown_groups_add_up(folder, by):
    facts = json.loads((folder / "report.json").read_text())
    groups = facts["breakdown"][by].values()
    assert sum(group["samples"] for group in groups) == facts["metrics"]["samples"]
    mean = sum(group["samples"] * group["giou"] for group in groups) / facts["metrics"]["samples"]
    assert mean == pytest.approx(facts["metrics"]["giou"])


def test_markdown_names_protocol_empties_controls_and_margin(result, folder):
    text = (folder / "report.md").read_text()
    for expected in ("`native`", "Both empty: IoU 1", "`everything`", "`shuffled_questions`", "By kind", "N-acc"):
        assert expected in text
    assert f"{100 * result.metrics.giou:.2f}" in text
    assert f"{100 * result.margin:+.2f} points" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1


def test_samples_have_one_line_each(result, folder):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [record.id for record in result.records]
    wanted = {"id", "image_id", "question", "kind", "iou", "intersection", "union", "presence", "score", "target_empty"}
    assert wanted <= set(lines[0])
    assert lines[0]["iou"] == pytest.approx(result.records[0].iou, abs=1e-6)


def test_picture_sheet_is_written(folder):
    with Image.open(folder / "best_worst.jpg") as sheet:
        assert sheet.width > 1000
        assert sheet.height > 1000


def test_report_without_controls_says_so(tmp_path):
    run_evaluation(ShiftedPredictor(), Patches(2), tmp_path, model_name="m", controls=False, examples=0, progress=False)
    assert "No controls were run" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["margin"] is None
    assert not (tmp_path / "best_worst.jpg").exists()


def test_only_rank_0_writes(tmp_path):
    run_evaluation(ShiftedPredictor(), Patches(3), tmp_path, model_name="m", rank=1, world_size=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_empty_split_writes_nothing(tmp_path):
    with pytest.raises(DatasetError, match="no samples"):
        run_evaluation(ShiftedPredictor(), Patches(0), tmp_path, model_name="m", controls=False, progress=False)
    assert list(tmp_path.iterdir()) == []
