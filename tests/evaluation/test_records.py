from __future__ import annotations

import doctest
from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import counted
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import DatasetError
from segearth.evaluation import records as module
from segearth.evaluation.records import SampleRecord, breakdown, compute_metrics, merge_records
from segearth.metrics.bootstrap import bootstrap_interval
from segearth.metrics.masks import count_pixels

# One bit a pixel: much faster to draw than an array of booleans.
MASKS = st.integers(0, 2**20 - 1).map(lambda bits: (bits >> np.arange(20) & 1).astype(bool).reshape(4, 5))


def record(id, prediction, target, image_id="", **facts):
    facts = {"task": "referring", "kind": "", "source": "", **facts}
    return SampleRecord(id, image_id or id, "roofs", **facts, **count_pixels(prediction, target))


def hand_worked():
    """Four samples of 10 pixels: I/U = 8/10, 2/4, both empty, 3 false pixels on an empty target."""

    def run(start, stop):
        return (np.arange(10) >= start) & (np.arange(10) < stop)

    return [
        record("a", run(0, 8), run(0, 10), kind="class"),
        record("b", run(0, 3), run(1, 4), kind="class"),
        record("c", run(0, 0), run(0, 0), kind="absent"),
        record("d", run(0, 3), run(0, 0), kind="absent"),
    ]


def test_hand_worked_numbers():
    result = compute_metrics(hand_worked())
    assert result.giou == pytest.approx((0.8 + 0.5 + 1 + 0) / 4)
    assert result.ciou == pytest.approx((8 + 2 + 0 + 0) / (10 + 4 + 0 + 3))
    # 0.5 is not above 0.5 and 0.8 is not above 0.8
    assert result.precision == {0.5: 0.5, 0.6: 0.5, 0.7: 0.5, 0.8: 0.25, 0.9: 0.25}
    assert (result.n_acc, result.t_acc) == (0.5, 1.0)
    assert (result.samples, result.images, result.empty_targets) == (4, 4, 2)


def test_every_question_weighs_the_same_however_many_an_image_has():
    """Three questions of one image at 1/2 and one of another at 1: 2.5/4, where a mean of the images' means is 3/4."""
    records = [counted(f"a{i}", 1, 2, 1, 2, image_id="a") for i in range(3)] + [counted("b", 9, 9, 9, 9)]
    result = compute_metrics(records)
    assert result.giou == pytest.approx(2.5 / 4)
    assert result.ciou == pytest.approx((3 * 1 + 9) / (3 * 2 + 9))
    assert (result.samples, result.images, result.empty_targets) == (4, 2, 0)
    assert result.t_acc == 1.0
    assert compute_metrics(records + records[:1]).giou == pytest.approx(3 / 5)


def test_pixels_outside_both_masks_count_nowhere():
    """A large image that both leave alone is not a good answer: 1 pixel right of 4 drawn, 9,996 rightly left out."""
    prediction, target = np.zeros((2, 100, 100), bool)
    prediction[0, :3], target[0, 2:4] = True, True
    assert count_pixels(prediction, target) == {
        "intersection": 1, "union": 4, "target_area": 2, "predicted_area": 3,
    }  # fmt: skip
    result = compute_metrics([record("a", prediction, target)])
    assert result.giou == result.ciou == 0.25


def test_every_threshold_is_passed_only_above_it():
    """Ten samples of I/U = 0.1, 0.2 … 1: above 0.5 lie five of them, above 0.9 one."""
    records = [counted(f"{tenths:02}", tenths, 10, 10, tenths) for tenths in range(1, 11)]
    assert compute_metrics(records).precision == {0.5: 0.5, 0.6: 0.4, 0.7: 0.3, 0.8: 0.2, 0.9: 0.1}


def test_accuracies_of_the_two_sorts_of_targets():
    """Of three empty targets one is answered rightly; of four others three get some mask, wherever it lies."""
    absent = [counted("a", 0, 0, 0, 0), counted("b", 0, 5, 0, 5), counted("c", 0, 1, 0, 1)]
    present = [counted("d", 0, 6, 4, 2), counted("e", 4, 4, 4, 4), counted("f", 1, 8, 4, 5), counted("g", 0, 4, 4, 0)]
    result = compute_metrics(absent + present)
    assert result.n_acc == pytest.approx(1 / 3)
    assert result.t_acc == pytest.approx(3 / 4)
    assert result.empty_targets == 3
    assert result.giou == pytest.approx((1 + 1 + 1 / 8) / 7)
    assert result.ciou == pytest.approx(5 / 28)


def test_what_a_record_says_of_itself():
    empty, missed, found = counted("a", 0, 0, 0, 0), counted("b", 0, 4, 4, 0), counted("c", 3, 5, 4, 4)
    assert [r.iou for r in (empty, missed, found)] == [1.0, 0.0, 0.6]
    assert [r.target for r in (empty, missed, found)] == ["absent", "present", "present"]
    assert [r.target_empty for r in (empty, missed, found)] == [True, False, False]
    assert [r.predicted_empty for r in (empty, missed, found)] == [True, True, False]
    assert (found.presence, found.score) == (None, None)


def test_shares_without_denominator_are_none():
    present, absent = hand_worked()[:2], hand_worked()[2:]
    assert compute_metrics(present).n_acc is None
    assert compute_metrics(absent).t_acc is None
    assert compute_metrics(absent[:1]).ciou == 1.0


def test_missed_target_lowers_t_acc():
    missed = record("e", np.zeros(10), np.ones(10))
    assert compute_metrics([*hand_worked(), missed]).t_acc == pytest.approx(2 / 3)


def test_no_records_is_an_error():
    with pytest.raises(DatasetError, match="no samples"):
        compute_metrics([])


def test_breakdown_by_kind_and_target():
    by_kind = breakdown(hand_worked(), "kind", compute_metrics)
    assert list(by_kind) == ["absent", "class"]
    assert by_kind["class"].giou == pytest.approx(0.65)
    assert breakdown(hand_worked(), "target", compute_metrics)["absent"].giou == 0.5
    assert list(breakdown(hand_worked(), "source", compute_metrics)) == ["(none)"]


def test_a_group_is_scored_by_its_own_samples_alone():
    records = [
        counted("a", 3, 4, 4, 3, source="naip", task="reasoning"),
        counted("b", 1, 4, 2, 3, source="naip"),
        counted("c", 5, 5, 5, 5, source="sentinel"),
        counted("d", 0, 2, 0, 2),
    ]
    by_source = breakdown(records, "source", compute_metrics)
    assert list(by_source) == ["(none)", "naip", "sentinel"]
    assert [m.samples for m in by_source.values()] == [1, 2, 1]
    assert [m.giou for m in by_source.values()] == [0.0, 0.5, 1.0]
    assert [m.ciou for m in by_source.values()] == [0.0, 0.5, 1.0]
    assert [m.n_acc for m in by_source.values()] == [0.0, None, None]
    by_task, by_target = (breakdown(iter(records), by, compute_metrics) for by in ("task", "target"))
    assert {name: m.samples for name, m in by_task.items()} == {"reasoning": 1, "referring": 3}
    assert {name: m.samples for name, m in by_target.items()} == {"absent": 1, "present": 3}


def test_repeated_id_is_an_error():
    records = hand_worked()
    with pytest.raises(DatasetError, match="'b' occurs twice"):
        merge_records([records, records[1:2]])


def test_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=8), st.integers(1, 4), st.randoms())
def test_merged_shards_equal_the_whole(pairs, shards, random):
    records = [record(f"{i:03}", *pair) for i, pair in enumerate(pairs)]
    shuffled = random.sample(records, len(records))
    merged = merge_records(shuffled[i::shards] for i in range(shards))
    assert merged == records
    assert compute_metrics(merged) == compute_metrics(records)


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=8))
def test_precision_falls_with_the_threshold(pairs):
    shares = list(compute_metrics([record(str(i), *pair) for i, pair in enumerate(pairs)]).precision.values())
    assert shares == sorted(shares, reverse=True)


RECORDS = st.lists(st.tuples(MASKS, MASKS, st.integers(0, 3)), min_size=1, max_size=8).map(
    lambda rows: [record(f"{i:03}", p, t, image_id=f"image{image}") for i, (p, t, image) in enumerate(rows)]
)


def numbers(metrics):
    """Every number in a row, ``None`` as -1, so that two can be compared with a tolerance."""
    shares = [metrics.giou, metrics.ciou, *metrics.precision.values(), metrics.n_acc, metrics.t_acc]
    return [-1 if share is None else share for share in shares]


@given(RECORDS, st.randoms())
def test_the_order_of_samples_changes_nothing(records, random):
    shuffled = random.sample(records, len(records))
    assert numbers(compute_metrics(shuffled)) == pytest.approx(numbers(compute_metrics(records)), abs=1e-12)
    intervals = [
        bootstrap_interval([r.iou for r in rows], [r.image_id for r in rows], draws=50) for rows in (records, shuffled)
    ]
    assert intervals[0] == pytest.approx(intervals[1], abs=1e-12)


@given(RECORDS)
def test_the_same_images_a_second_time_change_counts_alone(records):
    again = [replace(r, id=f"{r.id} again", image_id=f"{r.image_id} again") for r in records]
    once, twice = compute_metrics(records), compute_metrics(records + again)
    assert numbers(twice) == pytest.approx(numbers(once), abs=1e-12)
    assert (twice.samples, twice.images) == (2 * once.samples, 2 * once.images)
    assert twice.empty_targets == 2 * once.empty_targets


@given(RECORDS)
def test_the_groups_of_a_breakdown_make_up_the_whole(records):
    whole, groups = compute_metrics(records), breakdown(records, "image_id", compute_metrics).values()
    assert sum(group.samples * group.giou for group in groups) / whole.samples == pytest.approx(whole.giou)
    assert sum(group.images for group in groups) == whole.images
    assert min(group.ciou for group in groups) <= whole.ciou + 1e-12
