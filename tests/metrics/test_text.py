from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.metrics.text import (
    best_reference,
    bleu,
    exact_match,
    levenshtein_ratio,
    meteor,
    rouge_l,
    rouge_n,
    word_jaccard,
    words,
)

SCORES = [exact_match, word_jaccard, levenshtein_ratio, rouge_n, rouge_l, meteor]
SYMMETRIC = [exact_match, word_jaccard, levenshtein_ratio, rouge_n, rouge_l]
any_text = st.text(max_size=40)
sentences = st.lists(st.sampled_from(["a", "the", "red", "roof", "road", "north"]), max_size=12).map(" ".join)


def test_worked_values_of_the_facts_page():
    assert levenshtein_ratio("kitten", "sitting") == 8 / 13
    assert word_jaccard("yes", "Yes.") == 1


def test_words_are_folded_and_numbers_stay_apart():
    assert words("  The RED-roofed house, (north)! ") == ["the", "red", "roofed", "house", "north"]
    assert words("ﬁeld ÉTÉ") == ["field", "été"]  # a ligature is its letters
    assert exact_match("3.5", "35") == 0
    assert exact_match("1,000 trees.", "1000 trees") == 1


@pytest.mark.parametrize("score", SCORES)
@given(first=st.one_of(any_text, sentences), second=st.one_of(any_text, sentences))
def test_scores_are_in_range(score, first, second):
    assert 0 <= score(first, second) <= 1


@pytest.mark.parametrize("score", SYMMETRIC)
@given(first=sentences, second=sentences)
def test_scores_are_symmetric(score, first, second):
    assert score(first, second) == score(second, first)


@pytest.mark.parametrize("score", SYMMETRIC)
@given(text=any_text)
def test_a_text_is_its_own_best_answer(score, text):
    assert score(text, text) == 1


@pytest.mark.parametrize("score", SCORES)
def test_an_empty_answer_is_right_only_where_nothing_is_to_be_said(score):
    assert score("", "") == 1
    assert score("", "roof") == score("roof", "") == 0


@given(sentences.filter(bool), sentences.filter(bool))
def test_saying_a_right_answer_twice_never_helps(answer, reference):
    for score in (rouge_n, exact_match, word_jaccard):
        if words(answer) == words(reference):
            assert score(f"{answer} {answer}", reference) <= score(answer, reference)


@given(st.text("abcd", max_size=15), st.text("abcd", max_size=15))
def test_levenshtein_ratio_is_the_table_filled_by_hand(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if not i or not j:
                table[i][j] = i + j
            elif first[i - 1] == second[j - 1]:
                table[i][j] = table[i - 1][j - 1]
            else:
                table[i][j] = 1 + min(table[i - 1][j], table[i][j - 1])
    total = len(first) + len(second)
    assert levenshtein_ratio(first, second) == ((total - table[-1][-1]) / total if total else 1)


def test_rouge_of_lin_2004():
    """The example of the paper: the two answers have the same bigram in common, and one has the better order."""
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == 0.75
    assert rouge_l("the gunman kill police", reference) == 0.5
    assert rouge_n("police kill the gunman", reference, 2) == rouge_n("the gunman kill police", reference, 2) == 1 / 3


def test_meteor_by_hand():
    assert meteor("the cat sat on the mat", "the cat sat on the mat") == 1 - 0.5 / 6**3
    # 3 of 4 words match 3 of 6, one chunk: P = 3/4, R = 1/2
    assert meteor("a cat sat on", "yesterday the cat sat on it") == pytest.approx(
        10 * 0.75 * 0.5 / (0.5 + 9 * 0.75) * (1 - 0.5 / 27)
    )
    assert meteor("roofs", "roof") == 0  # no stems


@given(sentences.filter(bool))
def test_meteor_likes_the_right_order_best(text):
    backwards = " ".join(reversed(words(text)))
    assert meteor(backwards, text) <= meteor(text, text)


def test_bleu_by_hand():
    references = [["the cat is on the mat", "there is a cat on the mat"]]
    # The example of Papineni et al.: "the" is clipped at two of seven.
    assert bleu(["the the the the the the the"], references, n=1) == pytest.approx(2 / 7)
    assert bleu(["the cat is on"], [["the cat is on the mat"]]) == pytest.approx(math.exp(1 - 6 / 4))  # too short
    assert bleu(["dogs"], references) == 0
    assert bleu([""], [[""]]) == 0


def test_bleu_sums_counts_before_it_divides():
    answers, references = ["a b c d e", "x"], [["a b c d e"], ["y"]]
    assert bleu(answers, references, n=1) == pytest.approx(5 / 6)


def test_the_nearest_of_several_references_counts():
    assert best_reference(rouge_l, "red roof", ["grey road", "red roof"]) == 1
    assert best_reference(rouge_l, "red roof", []) == 0


def test_long_answers_are_scored_in_no_time():
    long, other = "roof road tree " * 1500, "tree roof lake " * 1500
    start = time.process_time()
    rouge_l(long, other), meteor(long, other), levenshtein_ratio(long[:20000], other[:20000])
    assert time.process_time() - start < 5
