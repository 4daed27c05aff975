from __future__ import annotations

import numpy as np
import pytest

from segearth.evaluation.listening import (
    PairRecord,
    listening_facts,
    needs_words,
    pair_won,
    score_pairs,
    swapped_partner,
)
from segearth.evaluation.records import SampleRecord
from segearth.metrics.bootstrap import bootstrap_interval


def columns(*wanted, width=8, height=4):
    mask = np.zeros((height, width), bool)
    mask[:, list(wanted)] = True
    return mask


NOTHING = columns()


def test_what_most_questions_ask_for_needs_no_words():
    house, tree = columns(0, 1, 2, 3), columns(6)
    assert needs_words([house, house, tree, NOTHING]) == [False, False, True, False]
    assert needs_words([NOTHING, house, tree, house]) == [False, False, True, False]


def test_nearly_the_same_target_is_the_same():
    house = columns(*range(10), width=40)
    nearly = columns(*range(10), width=40)
    nearly[0, 10] = True  # 40 of 41 pixels
    half = columns(*range(6), width=40)  # 0.6 of it: another target, but guessing the house still helps
    far = columns(*range(4), width=40)  # 0.4
    assert needs_words([house, nearly, half, far]) == [False, False, False, True]
    nine, tree = columns(*range(9), width=40), columns(*range(20, 35), width=40)
    assert needs_words([house, nine, tree]) == [False, False, True]  # 0.9 is enough: two houses beat the larger tree
    assert needs_words([house, house, columns(*range(5), width=40)]) == [False] * 3  # a half of it still is no other


def test_of_equally_common_targets_the_larger_stands_out():
    assert needs_words([columns(0), columns(3, 4, 5)]) == [True, False]
    assert needs_words([columns(3, 4, 5), columns(0)]) == [False, True]


def test_an_image_of_absences_needs_no_words():
    assert needs_words([NOTHING, NOTHING]) == [False, False]
    assert needs_words([]) == []


def test_partners_ask_for_something_else_in_other_words():
    targets = [columns(0), columns(0), columns(5), columns(6)]
    assert swapped_partner(targets, ["a", "b", "c", "d"]) == [2, 2, 3, 0]
    assert swapped_partner(targets, ["a", "b", "c", "c"]) == [2, 2, 0, 0]
    assert swapped_partner(targets[:2], ["a", "b"]) == [None, None]
    assert swapped_partner([columns(0), NOTHING], ["a", "b"]) == [1, 0]
    assert swapped_partner([columns(0, 1), columns(0)], ["a", "b"]) == [None, None]  # IoU of exactly one half


def test_the_right_map_wins_whatever_both_maps_like():
    left, right = columns(0, 1), columns(6, 7)
    common = np.linspace(-20, 30, 32).reshape(4, 8)  # far higher on the right for both
    assert pair_won(common + left, common, left, right)
    assert pair_won(common, common + right, left, right)
    assert not pair_won(common + right, common, left, right)
    assert not pair_won(common, common, left, right)  # alike: not won


def test_places_are_judged_by_their_mean_not_their_size():
    left, right = columns(0), columns(2, 3, 4, 5, 6, 7)
    moved = np.zeros((4, 8))
    moved[:, 0], moved[:, 2:] = 1.0, 0.5  # the sum is larger on the right
    assert pair_won(moved, np.zeros((4, 8)), left, right)


def test_pairs_of_an_image():
    targets = [columns(0, 1, 2), columns(2, 5), columns(0), columns(7)]
    logits = [3.0 * t - 1 for t in targets]
    pairs = [("side 0", "class 1"), ("side 0",), ("class 1",), ("side 9",)]
    records = score_pairs("im", ["a", "b", "c", "d"], pairs, targets, logits)
    # "class 1": the third target lies within the first; "side 9" has one member.
    assert [(r.image_id, r.what, r.first, r.second, r.won) for r in records] == [("im", "side", "a", "b", True)]
    assert not score_pairs("im", ["a", "b", "c", "d"], pairs, targets, [logits[1], logits[0], *logits[2:]])[0].won


@pytest.mark.parametrize("elsewhere", [-9.0, 9.0])
def test_a_pair_is_judged_where_only_one_of_the_two_is_asked_for(elsewhere):
    """Neither by what both ask for nor by what none does, however the map moves there; and after a lone question."""
    targets = [columns(7), columns(0, 1, 2), columns(2, 5)]
    moved = np.full((4, 8), elsewhere)
    moved[:, [0, 1]], moved[:, 5] = 1.0, 0.0
    logits = [np.zeros((4, 8)), moved, np.zeros((4, 8))]
    (record,) = score_pairs("im", ["l", "a", "b"], [("side 9",), ("side 0",), ("side 0",)], targets, logits)
    assert record == PairRecord("im", "side", "a", "b", True)


@pytest.mark.parametrize("seed", range(3))
def test_noise_wins_half_of_the_time(seed):
    rng = np.random.default_rng(seed)
    won = [pair_won(rng.normal(size=(4, 8)), rng.normal(size=(4, 8)), columns(0), columns(7)) for _ in range(600)]
    assert 0.43 < np.mean(won) < 0.57


def a_record(number, iou_percent, swapped=None, needs=True, image="im0", **facts):
    return SampleRecord(
        f"q{number}", image, "text", "referring", "", "", iou_percent, 100, 100, iou_percent, needs_words=needs,
        swapped_iou=swapped, **facts,
    )  # fmt: skip


def test_facts_of_the_questions_that_need_words():
    records = [
        a_record(0, 60, 0.2), a_record(1, 40, 0.1, image="im1"),
        a_record(2, 90, 0.9, needs=False), a_record(3, 90, None),  # neither counts
    ]  # fmt: skip
    hard = listening_facts(records, [])["needs_words"]
    assert hard["samples"] == 2
    assert (hard["giou"], hard["swapped_giou"], hard["margin"]) == pytest.approx((0.5, 0.15, 0.35))
    assert hard["margin_interval_95"] == pytest.approx((0.3, 0.4))
    assert listening_facts(records[2:], [])["needs_words"] is None
    missed = listening_facts([a_record(0, 60, 0.0)], [])["needs_words"]  # the other answer has no pixel in common
    assert (missed["swapped_giou"], missed["margin"]) == pytest.approx((0.0, 0.6))


@pytest.mark.parametrize("given", [{}, {"seed": 7}])
def test_the_seed_decides_which_images_the_intervals_draw(given):
    rng = np.random.default_rng(0)
    records = [a_record(k, int(rng.integers(100)), 0.2, image=f"im{k}") for k in range(9)]
    pairs = [PairRecord(f"im{k}", "side", "1", "2", bool((k + n) % 3)) for k in range(9) for n in range(1 + k % 5)]
    facts, seed = listening_facts(records, pairs, **given), given.get("seed", 0)
    images = [r.image_id for r in records]
    expected = bootstrap_interval([r.iou - 0.2 for r in records], images, seed=seed)
    assert facts["needs_words"]["margin_interval_95"] == expected
    assert expected != bootstrap_interval([r.iou - 0.2 for r in records], images, seed=seed + 1)
    won, images = [float(pair.won) for pair in pairs], [pair.image_id for pair in pairs]
    expected = bootstrap_interval(won, images, seed=seed)
    assert expected != bootstrap_interval(won, images) or seed == 0
    assert facts["pairs"]["side"]["interval_95"] == facts["pairs"]["all"]["interval_95"] == expected


def test_facts_of_pairs_by_word():
    pairs = [PairRecord("a", "side", "1", "2", True), PairRecord("a", "side", "3", "4", False),
             PairRecord("b", "class", "5", "6", True)]  # fmt: skip
    facts = listening_facts([], pairs)["pairs"]
    assert {what: (row["pairs"], round(row["won"], 4)) for what, row in facts.items()} == {
        "class": (1, 1.0), "side": (2, 0.5), "all": (3, 0.6667),
    }  # fmt: skip
    assert listening_facts([], [])["pairs"] == {}


def test_facts_of_confidence():
    sure = a_record(0, 50, presence=0.9, score=0.7)  # said 0.7, reached 0.5
    empty = SampleRecord("e", "im", "t", "referring", "", "", 0, 0, 0, 0, presence=0.1, score=0.0)
    confidence = listening_facts([sure, empty], [])["calibration"]
    assert confidence["presence"] == pytest.approx(0.1)  # 0.9 where it is there, 0.1 where it is not
    assert confidence["score"] == pytest.approx(0.2)  # the empty answer makes no claim about a mask
    assert listening_facts([a_record(0, 50)], [])["calibration"] is None
    unsure = listening_facts([a_record(0, 30, presence=0.0, score=0.0)], [])["calibration"]
    assert (unsure["presence"], unsure["score"]) == pytest.approx((1.0, 0.3))  # 0 of what is there, and of 0.3
