from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.metrics.boxes import box_iou
from segearth.metrics.matching import (
    average_precision,
    best_assignment,
    match_boxes,
    matched_iou,
    precision_recall_f1,
)

tables = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.9, 1.0]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0], max_size=shape[0],
    ).map(lambda rows: np.array(rows, float).reshape(shape))
)  # fmt: skip
sides = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2)
corners = sides.map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
box_lists = st.lists(corners, max_size=5)


def exhaustive(table):
    """The best sum over all ways to pair rows with columns."""
    table = table if table.shape[0] <= table.shape[1] else table.T
    ways = itertools.permutations(range(table.shape[1]), table.shape[0])
    return max((sum(table[i, j] for i, j in enumerate(way)) for way in ways), default=0.0)


@settings(deadline=None)
@given(tables)
def test_the_assignment_is_one_to_one_and_the_best_there_is(table):
    pairs = best_assignment(table)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert table[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(exhaustive(table))
    assert (table[pairs[:, 0], pairs[:, 1]] > 0).all()


def test_values_that_are_not_numbers_or_not_positive_are_never_paired():
    assert best_assignment([[np.nan, -1.0], [0.0, 0.5]]).tolist() == [[1, 1]]
    assert best_assignment(np.zeros((0, 3))).shape == (0, 2)


def test_worked_values_of_the_facts_page():
    """2 targets, 1 perfect box: recall 0.5. Both empty: 1. One empty: 0."""
    two, one = [[0, 0, 10, 10], [20, 20, 30, 30]], [[0, 0, 10, 10]]
    assert match_boxes(one, two) == (0.5, 1.0, 0.5, 2 / 3)
    assert match_boxes([], []) == (1, 1, 1, 1)
    assert match_boxes([], one) == match_boxes(one, []) == (0, 0, 0, 0)


def test_the_number_of_pairs_counts_before_their_iou():
    """By the sum alone two pairs of 0.95 would be chosen before three of 0.5, and one target would go without."""
    chain = np.array([[0.5, 0.95, 0.0], [0.0, 0.5, 0.95], [0.0, 0.0, 0.5]])
    assert precision_recall_f1(chain, 0.5) == (1, 1, 1)


def test_a_pair_at_exactly_the_threshold_counts():
    assert precision_recall_f1([[0.5]], 0.5)[2] == 1
    assert precision_recall_f1([[0.5]], 0.51)[2] == 0


@settings(deadline=None)
@given(box_lists, box_lists, st.randoms())
def test_scores_are_in_range_and_no_order_changes_them(predicted, target, random):
    scores = match_boxes(predicted, target)
    assert all(0 <= value <= 1 for value in scores)
    random.shuffle(predicted)
    random.shuffle(target)
    assert match_boxes(predicted, target) == pytest.approx(scores)


@settings(deadline=None)
@given(box_lists, box_lists)
def test_precision_and_recall_change_places_with_the_sets(predicted, target):
    predicted, target = list(set(predicted)), list(set(target))
    one, other = match_boxes(predicted, target), match_boxes(target, predicted)
    assert (one.matched_iou, one.precision, one.f1) == pytest.approx((other.matched_iou, other.recall, other.f1))


@settings(deadline=None)
@given(box_lists, st.lists(corners, min_size=1, max_size=5, unique=True), st.data())
def test_a_duplicate_never_helps(predicted, target, data):
    if not predicted:
        return
    again = [*predicted, data.draw(st.sampled_from(predicted))]
    before, after = match_boxes(predicted, target), match_boxes(again, target)
    assert all(now <= was + 1e-9 for was, now in zip(before, after, strict=True))


def test_one_box_over_two_targets_does_not_pay_twice():
    targets = [[0, 0, 10, 10], [10, 0, 20, 10]]
    over_both = [0, 0, 20, 10]
    assert match_boxes([over_both], targets).matched_iou == pytest.approx(0.25)
    assert match_boxes([over_both, over_both], targets).matched_iou == pytest.approx(0.25)


def test_a_target_annotated_twice_may_be_answered_twice():
    twice = [[0, 0, 10, 10]] * 2
    assert match_boxes(twice, twice).matched_iou == 1
    assert match_boxes(twice[:1], twice).matched_iou == 0.5


@settings(deadline=None)
@given(st.lists(corners, unique=True, max_size=5))
def test_a_set_matches_itself(boxes):
    assert match_boxes(boxes, boxes) == pytest.approx((1, 1, 1, 1))


def test_matched_iou_of_masks_takes_the_same_table():
    assert matched_iou(np.zeros((0, 0))) == 1
    assert matched_iou(np.zeros((0, 2))) == 0


def random_images(count, seed=0):
    rng = np.random.default_rng(seed)
    ious, confidences, images = [], [], []
    for _ in range(count):
        corner = rng.integers(0, 60, (rng.integers(0, 6), 2))
        target = np.concatenate([corner, corner + rng.integers(8, 30, corner.shape)], axis=1).astype(float)
        predicted = np.concatenate([target, target[:2]]) + rng.normal(0, 1.5, (len(target) + len(target[:2]), 4))
        certain = rng.permutation(1000)[: len(predicted)] / 1000
        ious.append(box_iou(predicted, target))
        confidences.append(certain)
        images.append((predicted, certain, target))
    return ious, confidences, images


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_average_precision_is_that_of_pycocotools(threshold):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ious, confidences, images = random_images(20)

    def row(box, index, image, **more):
        left, top, right, bottom = map(float, box)
        sides = [right - left, bottom - top]
        return {"id": index, "image_id": image, "category_id": 1, "bbox": [left, top, *sides],
                "area": sides[0] * sides[1], "iscrowd": 0, **more}  # fmt: skip

    targets = [(image, box) for image, (_, _, own) in enumerate(images) for box in own]
    found = [
        (image, box, score)
        for image, (own, certain, _) in enumerate(images)
        for box, score in zip(own, certain, strict=True)
    ]
    truth, results = COCO(), COCO()
    common = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": 1}]}
    truth.dataset = {**common, "annotations": [row(box, k + 1, image) for k, (image, box) in enumerate(targets)]}
    results.dataset = {
        **common, "annotations": [row(box, k + 1, image, score=float(s)) for k, (image, box, s) in enumerate(found)]
    }  # fmt: skip
    truth.createIndex()
    results.createIndex()
    judge = COCOeval(truth, results, "bbox")
    judge.params.iouThrs = np.array([threshold])
    judge.evaluate()
    judge.accumulate()
    expected = judge.eval["precision"][0, :, 0, 0, -1].mean()
    assert 0.2 < expected < 0.95
    assert average_precision(ious, confidences, threshold) == pytest.approx(expected, abs=1e-9)


def test_average_precision_without_targets_predictions_or_confidences():
    assert average_precision([np.zeros((2, 0))], [[0.5, 0.4]]) is None
    assert average_precision([np.zeros((0, 2))], [[]]) == 0
    with pytest.raises(ValueError, match="2 predictions have 1 confidences"):
        average_precision([np.zeros((2, 1))], [[0.5]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_a_duplicate_never_raises_average_precision(confidences):
    table = np.eye(6)[: len(confidences)]
    once = average_precision([table], [confidences])
    twice = average_precision([np.concatenate([table, table])], [[*confidences, *confidences]])
    assert 0 <= twice <= once <= 1


def test_two_thousand_scattered_boxes_are_matched_in_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 4000, (2000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, corner.shape)], axis=1)
    start = time.process_time()
    scores = match_boxes(boxes + rng.normal(0, 2, boxes.shape), boxes)
    assert scores.f1 > 0.9
    assert time.process_time() - start < 10  # the whole table at once would take minutes
