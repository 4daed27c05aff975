import json
from dataclasses import asdict, replace

import pytest

from segearth.errors import DatasetError
from segearth.evaluation.compare import as_markdown, compare_records, read_records
from segearth.evaluation.records import SampleRecord


def record(number, image, percent, kind="class", target=100):
    """A question with a target of 100 pixels of which ``percent`` are found and nothing else."""
    return SampleRecord(f"q{number}", image, f"text {number}", "referring", kind, "", percent, 100, target, percent)


def a_run(gain):
    """Six images of very different difficulty, two questions each; ``gain`` points are added to each."""
    hard = [5, 80, 20, 60, 40, 10]
    return [record(f"{i}{j}", f"im{i}", base + gain + j) for i, base in enumerate(hard) for j in (0, 1)]


def test_a_small_gain_on_every_image_is_real_however_different_the_images_are():
    rows = compare_records(a_run(3), a_run(0))
    assert rows[0].group == "all" and rows[0].samples == 12
    assert rows[0].gain == pytest.approx(0.03)
    assert rows[0].interval == pytest.approx((0.03, 0.03))  # every difference is the same: drawing changes nothing
    assert rows[0].verdict == "first"
    assert compare_records(a_run(0), a_run(3))[0].verdict == "second"


def test_a_gain_on_one_image_alone_is_unclear():
    better = [replace(r, intersection=r.intersection + 15) if r.image_id == "im0" else r for r in a_run(0)]
    row = compare_records(better, a_run(0))[0]
    assert row.gain == pytest.approx(0.15 * 2 / 12)
    assert row.interval[0] == 0 and row.verdict == "unclear"


def test_the_order_of_the_second_run_does_not_matter():
    assert compare_records(a_run(3), a_run(0)[::-1]) == compare_records(a_run(3), a_run(0))


def test_kinds_stand_apart():
    first = [record(1, "a", 50), record(2, "a", 30, "position"), record(3, "b", 60), record(4, "b", 10, "position")]
    second = [replace(r, intersection=10) for r in first]
    rows = {row.group: row for row in compare_records(first, second)}
    assert rows.keys() == {"all", "kind class", "kind position"}  # one target state, one source: no rows of their own
    assert (rows["kind position"].first, rows["kind position"].second) == pytest.approx((0.2, 0.1))
    assert rows["kind class"].gain == pytest.approx(0.45)


def test_the_table_says_which_is_better_in_points():
    text = as_markdown(compare_records(a_run(3), a_run(0)), "new", "old")
    assert "| all | 12 | 39.3 | 36.3 | +3.0 | +3.0 to +3.0 | new |" in text
    assert "new is better" in text
    assert "do not show" in as_markdown(compare_records(a_run(0), a_run(0)), "new", "old")


def test_other_questions_or_targets_are_refused():
    with pytest.raises(DatasetError, match="1 are in one alone, such as 'q51'"):
        compare_records(a_run(0), a_run(0)[:-1])
    moved = [*a_run(0)[:-1], replace(a_run(0)[-1], target_area=99)]
    with pytest.raises(DatasetError, match="'q51' has another text or target"):
        compare_records(a_run(0), moved)


def test_questions_in_other_words_are_compared_where_that_is_asked_for():
    reworded = [replace(r, question=f"other {r.question}") for r in a_run(0)]
    with pytest.raises(DatasetError, match="'q00' has another text or target"):
        compare_records(a_run(3), reworded)
    assert compare_records(a_run(3), reworded, other_words=True) == compare_records(a_run(3), a_run(0))
    moved = [*reworded[:-1], replace(reworded[-1], target_area=99)]
    with pytest.raises(DatasetError, match="'q51' has another text or target"):
        compare_records(a_run(3), moved, other_words=True)


def test_records_are_read_as_reports_write_them(tmp_path):
    report = tmp_path / "run" / "eval_test"
    report.mkdir(parents=True)
    lines = [json.dumps({**asdict(r), "iou": r.iou, "target_empty": False}) for r in a_run(0)]
    (report / "samples.jsonl").write_text("\n".join(lines) + "\n")
    assert read_records(report) == a_run(0)
    assert read_records(tmp_path / "run") == a_run(0)  # a training run with one report


def test_bad_reports_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no samples\.jsonl"):
        read_records(tmp_path)
    for name in ("eval_val", "eval_test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DatasetError, match="2 reports \\(eval_test, eval_val\\)"):
        read_records(tmp_path)
    with pytest.raises(DatasetError, match="line 1: not a sample"):
        read_records(tmp_path / "eval_val")
    (tmp_path / "eval_val" / "samples.jsonl").write_text("")
    with pytest.raises(DatasetError, match="is empty"):
        read_records(tmp_path / "eval_val")
