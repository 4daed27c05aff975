"""Dealing the questions of images out anew, so that none goes to its own image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segearth.errors import DatasetError
from segearth.utils.seeds import rng_for


def derange(groups: Sequence[str], texts: Sequence[str], seed: int = 0) -> list[int]:
    """Assigns to each item another one, of another group (image) and, where possible, with another text.

    Args:
        groups: The group (image) of each item.
        texts: The text of each item.
        seed: Decides the deal.

    Returns:
        For each item the index of the one dealt to it: a permutation, unless one group holds more than half of all
        items, in which case none exists and items of the smaller groups are dealt more than once.

    Raises:
        DatasetError: All items are of one group.

    Example:
        >>> derange(["a", "b"], ["roofs", "roads"])
        [1, 0]
    """
    if len(set(groups)) < 2:
        raise DatasetError("questions of at least two images are needed to exchange them")
    rng = rng_for(seed)
    members: dict[str, list[int]] = {}
    for index in rng.permutation(len(groups)):
        members.setdefault(groups[index], []).append(int(index))
    largest = max(map(len, members.values()))
    if 2 * largest > len(groups):
        return [_draw_other(index, groups, texts, rng) for index in range(len(groups))]
    # All items stand in a circle, group by group. Each is dealt the one that stands further on by the size of the
    # largest group. That leads out of its own group, and not all the way round into it again, since no group is more
    # than half of the circle.
    row = [index for group in members.values() for index in group]
    dealt = dict(zip(row, row[largest:] + row[:largest], strict=True))
    _avoid_equal_texts(dealt, groups, texts, rng)
    return [dealt[index] for index in range(len(groups))]


def _avoid_equal_texts(
    dealt: dict[int, int], groups: Sequence[str], texts: Sequence[str], rng: np.random.Generator
) -> None:
    """Exchanges, in ``dealt`` itself, what two items were dealt, until none has its own text or no exchange helps."""

    def fits(index: int, item: int) -> bool:
        return groups[index] != groups[item] and texts[index] != texts[item]

    for index in list(dealt):
        if fits(index, dealt[index]):
            continue
        for other in rng.permutation(len(groups)).tolist():
            if fits(index, dealt[other]) and fits(other, dealt[index]):
                dealt[index], dealt[other] = dealt[other], dealt[index]
                break


def _draw_other(index: int, groups: Sequence[str], texts: Sequence[str], rng: np.random.Generator) -> int:
    others = [i for i, group in enumerate(groups) if group != groups[index]]
    reworded = [i for i in others if texts[i] != texts[index]]
    return int(rng.choice(reworded or others))
