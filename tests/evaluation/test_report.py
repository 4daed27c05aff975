from __future__ import annotations

import itertools
import json
import platform
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from evaluation_fakes import Patches, ShiftedPredictor, pictured, worked_result
from PIL import Image

import segearth
from segearth.errors import DatasetError
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.listening import PairRecord
from segearth.evaluation.report import render_markdown, report_facts, run_evaluation, write_report
from segearth.inference.visualize import PREDICTION_COLOUR, TARGET_COLOUR, picture_sheet


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


def tables_of(text):
    """The tables of a Markdown text: by heading, their header and their rows, each a list of cells."""
    tables, heading = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        if line.startswith("|"):
            tables.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split("|")])
    assert all(set("".join(rows[1])) <= set("-:") for rows in tables.values())  # the line below the header
    return {heading: (rows[0], rows[2:]) for heading, rows in tables.items()}


CUTS = [f"Pr@{t}" for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
COLUMNS = ["samples", "gIoU", "present", "cIoU", *CUTS, "N-acc", "T-acc", "T@0.1"]


def test_the_tables_hold_what_was_worked_by_hand():
    tables = tables_of(render_markdown(report_facts(worked_result(), "worked", {})))
    assert list(tables) == ["Model and controls", "By kind", "By source", "By target"]  # of one task there is no table
    assert tables["Model and controls"] == (
        ["", *COLUMNS],
        [
            # IoU 0.8, 0.5 (both are there), 1 and 0; 10 of 17 pixels; above 0.5 are two, above 0.8 is one
            ["**model**", "4", "57.50", "65.00", "58.82", "50.00", "50.00", "50.00", "25.00", "25.00", "50.00",
             "100.00", "100.00"],
            # IoU 1, 0.3, 0 and 0; 13 of 40 pixels
            ["`everything`", "4", "32.50", "65.00", "32.50", "25.00", "25.00", "25.00", "25.00", "25.00", "0.00",
             "100.00", "100.00"],
            # IoU 0, 0, 1 and 1; 0 of 13 pixels
            ["`nothing`", "4", "50.00", "0.00", "0.00", "50.00", "50.00", "50.00", "50.00", "50.00", "100.00", "0.00",
             "0.00"],
        ],
    )  # fmt: skip
    assert tables["By kind"] == (
        ["kind", *COLUMNS],
        [
            ["absent", "2", "50.00", "–", "0.00", "50.00", "50.00", "50.00", "50.00", "50.00", "50.00", "–", "–"],
            ["class", "2", "65.00", "65.00", "71.43", "50.00", "50.00", "50.00", "0.00", "0.00", "–", "100.00",
             "100.00"],
        ],
    )  # fmt: skip
    assert [row[:5] for row in tables["By source"][1]] == [
        ["naip", "2", "65.00", "65.00", "71.43"],
        ["sentinel", "2", "50.00", "–", "0.00"],
    ]
    assert [row[:3] for row in tables["By target"][1]] == [["absent", "2", "50.00"], ["present", "2", "65.00"]]


def test_the_headline_holds_what_was_worked_by_hand():
    result = worked_result()
    lines = render_markdown(report_facts(result, "worked", {})).splitlines()
    low, high = result.interval
    assert lines[0] == "# worked on patches, split test"
    assert lines[2] == (
        f"**gIoU 57.50** (95 % interval {100 * low:.2f} to {100 * high:.2f}), cIoU 58.82, 4 samples (2 with an empty "
        "target) on 3 images. Targets that are there alone: gIoU 65.00."
    )
    low, high = result.margin_interval
    assert lines[4] == (
        "Margin over the best control (`nothing`): **+7.50 points of gIoU** "
        f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f})."
    )
    assert low < 0  # so that both signs were printed
    assert lines[6] == f"Protocol `native`: {result.protocol.rule}"
    assert "Both empty: IoU 1" in lines[6]


def test_every_control_is_explained_and_every_circumstance_named():
    text = render_markdown(report_facts(worked_result(), "worked", {"command": "segearth eval", "warning": "seen"}))
    before, after = text.split("## Circumstances")
    listed = [line for line in before.split("## Does it listen")[0].splitlines() if line.startswith("- ")]
    assert listed == ["- `everything`: the rule of everything", "- `nothing`: the rule of nothing"]
    assert "No controls were run" not in text
    listed = dict(line[2:].split(": ", 1) for line in after.splitlines() if line.startswith("- "))
    assert list(listed) == ["time", "seed", "speed", "questions without a target", "versions", "command", "warning"]
    assert listed["seed"] == "5"
    assert listed["speed"] == "2.00 images/s, 2.67 questions/s inside the predictor"  # 3 and 4 in 1.5 s
    assert listed["questions without a target"] == "2"
    assert listed["versions"].startswith(f"segearth {segearth.__version__}, python {platform.python_version()}, numpy ")
    assert (listed["command"], listed["warning"]) == ("segearth eval", "seen")
    assert abs(datetime.now(timezone.utc) - datetime.fromisoformat(listed["time"])) < timedelta(minutes=5)
    assert "N-acc: share of empty targets answered with an empty mask" in after


def test_facts_are_shares_under_stable_names():
    facts = report_facts(worked_result(), "worked", {"command": "c"})
    assert list(facts) == [
        "model", "dataset", "split", "protocol", "scorer", "metrics",
        "giou_interval_95", "controls", "best_control", "margin",
        "margin_interval_95", "breakdown", "needs_words", "pairs", "calibration",
        "questions_without_target", "unreadable_images", "unreadable_answers", "speed", "seed",
        "time", "versions", "notes",
    ]  # fmt: skip
    assert facts["metrics"] == {
        "samples": 4, "images": 3, "empty_targets": 2, "giou": pytest.approx(0.575), "ciou": pytest.approx(10 / 17),
        "precision": {0.5: 0.5, 0.6: 0.5, 0.7: 0.5, 0.8: 0.25, 0.9: 0.25}, "n_acc": 0.5, "t_acc": 1.0,
        "t_found": 1.0, "present_giou": pytest.approx(0.65),
    }  # fmt: skip
    assert facts["controls"]["everything"]["rule"] == "the rule of everything"
    assert {name: control["giou"] for name, control in facts["controls"].items()} == pytest.approx(
        {"everything": 0.325, "nothing": 0.5}
    )
    assert (facts["best_control"], facts["margin"]) == ("nothing", pytest.approx(0.075))
    assert (facts["seed"], facts["questions_without_target"], facts["notes"]) == (5, 2, {"command": "c"})
    assert facts["speed"] == {
        "seconds_in_predictor": 1.5, "images_per_second": 2.0, "questions_per_second": pytest.approx(8 / 3),
    }  # fmt: skip


def test_what_a_report_says_about_listening_and_confidence():
    result = worked_result()
    result.records[0] = replace(result.records[0], needs_words=True, swapped_iou=0.3)
    result.main.further = [PairRecord("image0", "side", "a", "b", True), PairRecord("image1", "side", "c", "d", False)]
    text = render_markdown(report_facts(result, "worked", {})).split("## Does it listen")[1].split("## By")[0]
    assert "- 1 questions need words" in text
    assert "gIoU 80.00. The answer to another question of the same image scores 30.00 there" in text
    assert "worth **+50.00** (95 % interval +50.00 to +50.00)" in text
    assert "- 2 pairs that differ in one word (side): the right map wins in **50.00 %**" in text
    # Presence 0.75 of four, two of them there; score 0.9 of the three that are not empty: IoU 0.8, 0.5 and 0.
    assert "- Calibration error: presence 25.00, score (against the IoU reached) 46.67; 0 is perfect." in text
    assert "Does it listen" in render_markdown(report_facts(worked_result(), "worked", {}))


def test_without_controls_there_is_no_margin_in_the_text():
    facts = report_facts(worked_result(controls=False), "worked", {})
    assert (facts["best_control"], facts["margin"], facts["margin_interval_95"]) == (None, None, None)
    text = render_markdown(facts)
    assert "Margin" not in text
    assert "No controls were run; without them a gIoU says little." in text
    assert [row[0] for row in tables_of(text)["Model and controls"][1]] == ["**model**"]


def test_samples_have_one_line_each(tmp_path):
    write_report(worked_result(), tmp_path, model_name="worked")
    first, *others = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {
        "id": "a", "image_id": "image0", "question": "the roofs", "task": "referring", "kind": "class",
        "source": "naip", "intersection": 8, "union": 10, "target_area": 10, "predicted_area": 8, "presence": 0.75,
        "score": 0.9, "needs_words": False, "swapped_iou": None, "iou": 0.8, "target_empty": False,
        "scorer": "segmentation",
    }  # fmt: skip
    lines = [json.loads(line) for line in others]
    assert [line["id"] for line in lines] == ["b", "c", "d"]
    assert [line["iou"] for line in lines] == [0.5, 1.0, 0.0]
    assert [line["target_empty"] for line in lines] == [False, True, True]


def test_words_of_any_script_are_kept_readable(tmp_path):
    result = worked_result()
    result.records[0] = replace(result.records[0], question="大きな屋根", intersection=1, union=3)
    write_report(result, tmp_path, model_name="模型")
    line = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert "大きな屋根" in line
    assert '"iou": 0.333333' in line
    assert '"model": "模型"' in (tmp_path / "report.json").read_text(encoding="utf-8")


GREY = (100, 100, 100)


def near(pixel, colour):
    return max(abs(int(a) - int(b)) for a, b in zip(pixel, colour, strict=True)) <= 40  # what JPEG leaves of a colour


def tinted(colour):
    return tuple(0.55 * grey + 0.45 * part for grey, part in zip(GREY, colour, strict=True))


def test_picture_sheet_shows_image_target_and_prediction_in_their_places(tmp_path):
    """Best on the left, worst on the right; in each the image, its target (left half), its prediction (upper half)."""
    write_report(worked_result(), tmp_path, model_name="worked")
    with Image.open(tmp_path / "best_worst.jpg") as file:
        sheet = np.asarray(file.convert("RGB"))
    tile, gap, head = 256, 8, 8 + 32 + 24  # as picture_sheet lays them out, with a heading and titles
    width = gap + 3 * (tile + gap)
    for start in (0, width + 24):
        columns = [sheet[head : head + tile, start + gap + i * (tile + gap) :][:, :tile] for i in range(3)]
        for picture, inside in zip(
            columns,
            (None, (TARGET_COLOUR, [(64, 64), (192, 64)]), (PREDICTION_COLOUR, [(64, 64), (64, 192)])),
            strict=True,
        ):
            colour, corners = inside or (GREY, [])
            for place in itertools.product((64, 192), (64, 192)):
                assert near(picture[place], tinted(colour) if place in corners else GREY), (start, place)


def test_picture_sheet_says_what_each_row_is(monkeypatch, tmp_path):
    sheets = []

    def kept(rows, **options):
        sheets.append((rows, options))
        return picture_sheet(rows, **options)

    monkeypatch.setattr("segearth.evaluation.report.picture_sheet", kept)
    result = worked_result()
    result.extremes.worst.append(pictured(replace(result.records[1], presence=None, source="")))
    write_report(result, tmp_path, model_name="worked")
    titles = ("image", "target", "prediction")
    assert [options for _, options in sheets] == [
        {"titles": titles, "heading": "Best"},
        {"titles": titles, "heading": "Worst"},
    ]
    assert [[(row.caption, row.note) for row in rows] for rows, _ in sheets] == [
        [("the roofs", "IoU 0.800 · class · naip · presence 0.75")],
        [
            ("cars", "IoU 0.000 · absent · sentinel · presence 0.75 · nothing to find"),
            ("the roads", "IoU 0.500 · class"),
        ],
    ]


def test_an_older_sheet_does_not_stay_beside_a_newer_report(tmp_path):
    (tmp_path / "best_worst.jpg").write_bytes(b"of another run")
    result = worked_result()
    result.extremes.best.clear()
    assert write_report(result, tmp_path, model_name="worked") == tmp_path / "report.md"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.md", "samples.jsonl"]


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
