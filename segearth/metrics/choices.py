"""Whether the right ones of given options were chosen: classification with one label, or with several."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from segearth.metrics.text import words


class ChoiceScores(NamedTuple):
    """How a set of chosen options and the set of right ones agree; all in [0, 1].

    Attributes:
        accuracy: 1 where the two sets are equal, else 0.
        precision: Share of the chosen options that are right.
        recall: Share of the right options that were chosen. Naming every option gets all of it.
        f1: Harmonic mean of the two: what is better raised by choosing well than by choosing much.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float


def choice_scores(chosen: Collection[Hashable], right: Collection[Hashable]) -> ChoiceScores:
    """Compares chosen options with right ones; an option that is named twice counts once.

    Args:
        chosen: Options, by name or index.
        right: The right ones. Where none is right, choosing none scores 1, and choosing any scores 0.

    Example:
        >>> choice_scores([0, 2], [0, 1])
        ChoiceScores(accuracy=0.0, precision=0.5, recall=0.5, f1=0.5)
        >>> everything = choice_scores(range(10), [3])
        >>> everything.recall, round(everything.f1, 4)
        (1.0, 0.1818)
    """
    mine, target = set(chosen), set(right)
    if not mine or not target:
        score = float(mine == target)
        return ChoiceScores(score, score, score, score)
    shared = len(mine & target)
    return ChoiceScores(
        float(mine == target), shared / len(mine), shared / len(target), 2 * shared / (len(mine) + len(target))
    )


def read_choices(answer: str, options: Sequence[str]) -> tuple[int, ...]:
    """Finds the options that an answer in words names.

    Case and punctuation do not count. A longer option goes first and uses up its words, so "dense residential" is not
    also "residential". Words around the options are passed over, so "not a forest" names the forest: ask for
    labels alone.

    Args:
        answer: Such as ``"Forest, river"`` or ``"It is a forest."``.
        options: Names of the options, each of at least one word.

    Returns:
        Indices of the options named, in ascending order, each once.

    Example:
        >>> read_choices("Dense residential and a river.", ["residential", "dense residential", "river"])
        (1, 2)
    """
    said: list[str | None] = list(words(answer))
    names = [words(option) for option in options]
    found = []
    for index in sorted(range(len(names)), key=lambda i: -len(names[i])):
        name: list[str | None] = list(names[index])
        length = len(name)
        starts = [i for i in range(len(said) - length + 1) if said[i : i + length] == name] if name else []
        for start in starts:
            said[start : start + length] = [None] * length
        if starts:
            found.append(index)
    return tuple(sorted(found))


def macro_f1(chosen: Sequence[Collection[Hashable]], right: Sequence[Collection[Hashable]]) -> float | None:
    """Returns the mean over classes of each class's F1 over a set of samples: rare classes weigh as much as others.

    Args:
        chosen: The chosen classes of each sample, by name or index.
        right: The right classes of each sample.

    Returns:
        In [0, 1], over the classes that are right or chosen somewhere; ``None`` where there is no such class.

    Example:
        >>> macro_f1([{0}, {0}], [{0}, {1}])  # class 0: 2/3, class 1: 0
        0.3333333333333333
    """
    pairs = [(set(mine), set(target)) for mine, target in zip(chosen, right, strict=True)]
    classes = sorted(set().union(*(mine | target for mine, target in pairs)), key=str)
    scores = []
    for name in classes:
        shared = sum(name in mine and name in target for mine, target in pairs)
        named = sum((name in mine) + (name in target) for mine, target in pairs)
        scores.append(2 * shared / named)
    return float(np.mean(scores)) if scores else None
