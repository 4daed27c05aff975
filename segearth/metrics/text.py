"""How near an answer in words comes to a reference. Every score is in [0, 1]; the higher, the nearer.

All scores but :func:`levenshtein_ratio` look at :func:`words`: lower case, no punctuation. Where several references are
right, :func:`best_reference` takes the score of the nearest one. Two empty texts are equal and score 1; if only one is
empty, the score is 0.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")


def words(text: str) -> list[str]:
    """Splits a text into lower-case words; punctuation is dropped, and a hyphen or a slash parts two words.

    A point between two digits stays, or 3.5 would be 35.

    Example:
        >>> words("Yes, it's a  T-junction, 3.5 of 1,000.")
        ['yes', 'its', 'a', 't', 'junction', '3.5', 'of', '1000']
    """
    folded = DECIMAL_POINT.sub("\0", unicodedata.normalize("NFKC", text).casefold().replace("\0", " "))
    kept = []
    for letter in folded:
        if letter == "\0":
            kept.append(".")
        elif letter in "-/_" or unicodedata.category(letter) == "Pd":
            kept.append(" ")
        elif not unicodedata.category(letter).startswith("P"):
            kept.append(letter)
    return "".join(kept).split()


def exact_match(answer: str, reference: str) -> float:
    """Returns 1 where two texts have the same words in the same order, else 0.

    Example:
        >>> exact_match("Yes.", "yes"), exact_match("yes it is", "yes")
        (1.0, 0.0)
    """
    return float(words(answer) == words(reference))


def word_jaccard(answer: str, reference: str) -> float:
    """Returns the share of the different words of two texts that both have; order and repetition do not count.

    Example:
        >>> word_jaccard("a red roof", "the red roof")  # 2 of 4
        0.5
    """
    a, b = set(words(answer)), set(words(reference))
    return len(a & b) / len(a | b) if a or b else 1.0


def levenshtein_ratio(answer: str, reference: str) -> float:
    """Returns how alike two texts are, letter by letter: ``(|a| + |b| - D) / (|a| + |b|)``.

    ``D`` counts the letters to insert or delete to get from one to the other; a replaced letter is one of each.

    Example:
        >>> levenshtein_ratio("kitten", "sitting") == 8 / 13
        True
    """
    total = len(answer) + len(reference)
    return 2 * _common_subsequence(answer, reference) / total if total else 1.0


def rouge_n(answer: str, reference: str, n: int = 1) -> float:
    """Returns ROUGE-N as an F1: the n-grams that two texts share (Lin 2004).

    Args:
        answer: What is scored.
        reference: What it is held against.
        n: Words an n-gram. Texts of fewer words than that have none, and count as empty.

    Example:
        >>> round(rouge_n("the cat", "the cat sat"), 4)  # precision 1, recall 2/3
        0.8
    """
    a, b = _ngrams(words(answer), n), _ngrams(words(reference), n)
    return _f1((a & b).total(), a.total(), b.total())


def rouge_l(answer: str, reference: str) -> float:
    """Returns ROUGE-L as an F1: the longest sequence of words that two texts share, gaps allowed (Lin 2004).

    Example:
        >>> rouge_l("police kill the gunman", "police killed the gunman")  # 3 of 4, and 3 of 4
        0.75
    """
    a, b = words(answer), words(reference)
    return _f1(_common_subsequence(a, b), len(a), len(b))


def meteor(answer: str, reference: str) -> float:
    """Returns METEOR (Banerjee and Lavie 2005) with its first stage alone: words match where they are equal.

    The published metric goes on to match stems, and synonyms by WordNet. Both need tables of one language and are left
    out, so values are lower than published ones and must not stand in one table with them. The rest is as published:
    with ``m`` matched words, precision ``P`` and recall ``R``, the score is
    ``10PR / (R + 9P) · (1 - 0.5 (chunks / m)³)``, where chunks are runs of matched words that stand together in both
    texts. Even equal texts therefore stay below 1: they are one chunk and score ``1 - 0.5 / m³``.

    Chunks are found run by run, the longest possible one at each word; fewest chunks are not guaranteed.

    Example:
        Six words of six match, in two chunks ("on the mat" and "sat"; "the cat" makes a third): 1 - 0.5 (3/6)³.

        >>> meteor("on the mat sat the cat", "the cat sat on the mat")
        0.9375
    """
    a, b = words(answer), words(reference)
    matched, chunks = _aligned(a, b)
    if not matched:
        return float(a == b)
    precision, recall = matched / len(a), matched / len(b)
    mean = 10 * precision * recall / (recall + 9 * precision)
    return mean * (1 - 0.5 * (chunks / matched) ** 3)


def lexical_score(answer: str, reference: str) -> float:
    """Returns the mean of ROUGE-1, ROUGE-L and METEOR, in [0, 1]: how near the words of two descriptions are."""
    return (rouge_n(answer, reference) + rouge_l(answer, reference) + meteor(answer, reference)) / 3


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], n: int = 4) -> float:
    """Returns BLEU of a set of answers (Papineni et al. 2002): counts are summed over the set before they are divided.

    A mean over BLEUs of single answers would be another number, mostly 0: few short answers share four words in a row.

    Args:
        answers: At least one.
        references: The right answers to each, at least one.
        n: Longest n-gram.

    Returns:
        In [0, 1]; 0 where some length of n-gram is never shared (nothing is smoothed).

    Example:
        >>> round(bleu(["the cat sat on the mat today"], [["the cat sat on the mat"]]), 4)  # (6/7 5/6 4/5 3/4) ** (1/4)
        0.8091
    """
    shared, written = [0] * n, [0] * n
    answer_length = reference_length = 0
    for answer, right in zip(answers, references, strict=True):
        own, others = words(answer), [words(reference) for reference in right]
        answer_length += len(own)
        reference_length += min((len(other) for other in others), key=lambda k: (abs(k - len(own)), k), default=0)
        for size in range(1, n + 1):
            most: Counter[Hashable] = Counter()
            for other in others:
                most |= _ngrams(other, size)
            grams = _ngrams(own, size)
            shared[size - 1] += (grams & most).total()
            written[size - 1] += grams.total()
    if not all(shared):
        return 0.0
    mean = math.exp(sum(math.log(s / w) for s, w in zip(shared, written, strict=True)) / n)
    return mean * min(1.0, math.exp(1 - reference_length / answer_length))


def best_reference(score: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    """Returns the highest score that an answer gets against one of several references; 0 where there is none."""
    return max((score(answer, reference) for reference in references), default=0.0)


def _ngrams(tokens: Sequence[str], n: int) -> Counter[Hashable]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _f1(shared: int, first: int, second: int) -> float:
    """Harmonic mean of ``shared / first`` and ``shared / second``; 1 where both texts are empty."""
    return 2 * shared / (first + second) if first or second else 1.0


def _common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest sequence that both hold in order, gaps allowed.

    The usual table is kept one row at a time as the bits of an integer (Hyyrö 2004): one addition carries a step along
    a whole row, where a loop in Python would take a hundred times as long.
    """
    places: dict[Hashable, int] = {}
    for index, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << index
    full = (1 << len(a)) - 1
    row = full  # a zero bit is a step up
    for item in b:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()


def _aligned(a: Sequence[str], b: Sequence[str]) -> tuple[int, int]:
    """Pairs equal words of two texts; returns how many pairs there are and in how many runs."""
    places: dict[str, list[int]] = {}
    for index, word in enumerate(b):
        places.setdefault(word, []).append(index)
    taken = [False] * len(b)
    matched = chunks = at = 0

    def run(start: int) -> int:
        length = 0
        while (
            at + length < len(a)
            and start + length < len(b)
            and not taken[start + length]
            and a[at + length] == b[start + length]
        ):
            length += 1
        return length

    while at < len(a):
        length, negative_start = max(((run(place), -place) for place in places.get(a[at], ())), default=(0, 0))
        if length:
            taken[-negative_start : -negative_start + length] = [True] * length
            matched, chunks = matched + length, chunks + 1
        at += max(1, length)
    return matched, chunks
