from __future__ import annotations

import numpy as np
import pytest

from segearth.data.questions.foreign import among_foreign_words, made_up_word, with_foreign_words
from segearth.structures import Question


def questions() -> list[Question]:
    masks = [np.eye(4, dtype=bool), np.zeros((4, 4), bool), np.ones((4, 4), bool)]
    texts = ["Show me the roads.", "the ships", "the road in the left half"]
    return [
        Question(text, mask, answer="The road.", kind="class", id=str(i), pairs=("side 1",) if i == 2 else ())
        for i, (text, mask) in enumerate(zip(texts, masks, strict=True))
    ]


def test_a_question_stays_whole_among_made_up_words() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = among_foreign_words("Show me the roads.", rng)
        before, found, after = text.partition("show me the roads")
        assert found and before and before[0].isupper()
        assert 1 <= len(before.split()) <= 3 and len(after.rstrip(".?").split()) <= 2


def test_made_up_words_are_words_of_letters() -> None:
    rng = np.random.default_rng(0)
    words = [made_up_word(rng) for _ in range(100)]
    assert all(word.isalpha() and word.islower() and 4 <= len(word) <= 7 for word in words)
    assert len(set(words)) > 95


def test_without_a_share_nothing_changes_and_nothing_is_drawn() -> None:
    rng = np.random.default_rng(3)
    asked = questions()
    assert with_foreign_words(asked, 0.0, rng) is asked
    assert rng.random() == np.random.default_rng(3).random()


def test_targets_stay_unless_the_name_is_made_up() -> None:
    rng = np.random.default_rng(1)
    unknown = 0
    for _ in range(200):
        for before, after in zip(questions(), with_foreign_words(questions(), 1.0, rng), strict=True):
            assert after.id == before.id and after.text != before.text
            if before.text.rstrip(".")[1:] in after.text:
                assert np.array_equal(after.mask, before.mask) and after.present == before.present
                assert (after.kind, after.answer) == (before.kind, before.answer)
                continue
            unknown += 1
            assert not before.pairs, "a twin would have no opposite any more"
            assert after.present is False and not after.mask.any() and after.mask.shape == (4, 4)
            assert after.kind == "absent" and after.answer.startswith("There is no ")
    assert unknown / 400 == pytest.approx(0.25, abs=0.06)


def test_the_share_is_kept() -> None:
    rng = np.random.default_rng(2)
    changed = sum(
        after.text != before.text
        for _ in range(300)
        for before, after in zip(questions(), with_foreign_words(questions(), 0.3, rng), strict=True)
    )
    assert changed / 900 == pytest.approx(0.3, abs=0.05)
