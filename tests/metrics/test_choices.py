from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.metrics.choices import choice_scores, macro_f1, read_choices

OPTIONS = ("residential", "dense residential", "river", "golf course", "river bank")
sets = st.lists(st.integers(0, 9), max_size=10)


@given(sets, sets)
def test_scores_are_in_range_and_change_places_with_the_sets(chosen, right):
    one, other = choice_scores(chosen, right), choice_scores(right, chosen)
    assert all(0 <= value <= 1 for value in one)
    assert (one.accuracy, one.precision, one.recall, one.f1) == (
        other.accuracy, other.recall, other.precision, other.f1
    )  # fmt: skip


@given(sets, st.randoms())
def test_neither_order_nor_repetition_counts(chosen, random):
    again = [*chosen, *chosen]
    random.shuffle(again)
    assert choice_scores(again, [1, 2]) == choice_scores(chosen, [1, 2])


@given(st.sets(st.integers(0, 9), min_size=1, max_size=9))
def test_naming_every_class_never_wins(right):
    everything, exact = choice_scores(range(10), right), choice_scores(right, right)
    assert everything.recall == 1
    assert everything.f1 < exact.f1 == 1
    assert everything.accuracy == 0


def test_none_right():
    assert choice_scores([], []).f1 == 1
    assert choice_scores([1], []).f1 == choice_scores([], [1]).f1 == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("River.", (2,)),
        ("It is a DENSE RESIDENTIAL area", (1,)),
        ("residential, dense-residential", (0, 1)),
        ("golf course; river; river", (2, 3)),
        ("a river bank", (4,)),
        ("golf", ()),
        ("riverside", ()),
        ("", ()),
    ],
)
def test_options_are_found_as_whole_words_longest_first(answer, expected):
    assert read_choices(answer, OPTIONS) == expected


@given(st.text(max_size=60))
def test_any_text_is_read(answer):
    assert set(read_choices(answer, OPTIONS)) <= set(range(len(OPTIONS)))


def test_an_option_without_words_is_never_chosen():
    assert read_choices("river", ("", "!", "river")) == (2,)


def test_macro_f1_weighs_classes_and_not_samples():
    assert macro_f1([{0}] * 9 + [{0}], [{0}] * 9 + [{1}]) == pytest.approx((18 / 19 + 0) / 2)
    assert macro_f1([set()], [set()]) is None
