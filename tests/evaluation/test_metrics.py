from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segearth.errors import DatasetError
from segearth.evaluation import metrics
from segearth.evaluation.metrics import (
    SampleRecord,
    bootstrap_interval,
    breakdown,
    compute_metrics,
    count_pixels,
    mask_iou,
    merge_records,
)

MASKS = arrays(bool, (4, 5))


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


def test_unequal_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        count_pixels(np.ones((2, 3)), np.ones((3, 2)))


def test_breakdown_by_kind_and_target():
    by_kind = breakdown(hand_worked(), "kind")
    assert list(by_kind) == ["absent", "class"]
    assert by_kind["class"].giou == pytest.approx(0.65)
    assert breakdown(hand_worked(), "target")["absent"].giou == 0.5
    assert list(breakdown(hand_worked(), "source")) == ["(none)"]


def test_repeated_id_is_an_error():
    records = hand_worked()
    with pytest.raises(DatasetError, match="'b' occurs twice"):
        merge_records([records, records[1:2]])


def test_docstrings_hold():
    assert doctest.testmod(metrics).failed == 0


@given(MASKS, MASKS)
def test_iou_is_symmetric_bounded_and_one_only_for_equal_masks(a, b):
    iou = mask_iou(a, b)
    assert iou == mask_iou(b, a)
    assert 0 <= iou <= 1
    assert (iou == 1) == bool((a == b).all())


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


def test_bootstrap_is_seeded_and_holds_the_mean():
    values = np.random.default_rng(1).random(60)
    clusters = [str(i // 3) for i in range(60)]
    low, high = bootstrap_interval(values, clusters, seed=3)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, clusters, seed=3)
    assert (low, high) != bootstrap_interval(values, clusters, seed=4)


def test_bootstrap_draws_images_not_questions():
    # 40 questions that agree within each of 4 images tell no more than 4 questions.
    values = np.repeat([0.0, 0.3, 0.6, 1.0], 10)
    by_image = bootstrap_interval(values, [str(i // 10) for i in range(40)])
    by_question = bootstrap_interval(values, [str(i) for i in range(40)])
    assert by_image[1] - by_image[0] > 2 * (by_question[1] - by_question[0])
