from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.errors import DatasetError
from segearth.evaluation.dealing import derange


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 3), st.integers(1, 6))
def test_derangement_moves_every_item_to_another_group(sizes, seed, vocabulary):
    groups = [f"image{g}" for g, size in enumerate(sizes) for _ in range(size)]
    texts = [f"text{i % vocabulary}" for i in range(len(groups))]
    dealt = derange(groups, texts, seed)
    assert all(groups[place] != groups[item] for place, item in enumerate(dealt))
    if 2 * max(sizes) <= len(groups):
        assert sorted(dealt) == list(range(len(groups)))
    assert dealt == derange(groups, texts, seed)


def test_derangement_prefers_other_texts():
    groups = [f"image{i // 2}" for i in range(40)]
    texts = [f"text{i % 4}" for i in range(40)]
    dealt = derange(groups, texts, seed=1)
    assert all(texts[place] != texts[item] for place, item in enumerate(dealt))
    assert dealt != derange(groups, texts, seed=2)
    assert derange(groups, texts) == derange(groups, texts, seed=0)


def test_equal_texts_are_exchanged_after_the_deal():
    """Laid end to end and turned by one place, each of these images would be asked its own wording again."""
    groups = ["a", "b", "c", "d", "e", "f"]
    texts = ["roof", "roof", "road", "road", "tree", "tree"]
    for seed in range(20):
        dealt = derange(groups, texts, seed)
        assert sorted(dealt) == list(range(6))
        assert all(place != item and texts[place] != texts[item] for place, item in enumerate(dealt))


def test_an_image_with_more_than_half_of_the_questions_gets_those_of_others_several_times():
    groups, texts = ["a", "a", "a", "b", "c"], ["roof", "road", "tree", "roof", "road"]
    for seed in range(20):
        dealt = derange(groups, texts, seed)
        assert all(groups[place] != groups[item] and texts[place] != texts[item] for place, item in enumerate(dealt))
    assert dealt[0] == 4  # the only question of another image and of another wording
    assert dealt[1] == 3


def test_half_of_all_questions_can_still_be_dealt_once_each():
    dealt = derange(["a", "a", "b", "c"], ["q", "r", "s", "t"])
    assert sorted(dealt) == [0, 1, 2, 3]
    assert set(dealt[:2]) == {2, 3}


def test_a_wording_shared_by_all_is_dealt_all_the_same():
    assert derange(["a", "b"], ["roof", "roof"]) == [1, 0]
    dealt = derange(["a", "a", "a", "b"], ["roof"] * 4)
    assert dealt[:3] == [3, 3, 3]
    assert dealt[3] in (0, 1, 2)


def test_one_image_cannot_be_deranged():
    with pytest.raises(DatasetError, match="two images"):
        derange(["a", "a"], ["x", "y"])
