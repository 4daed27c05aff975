"""Words and combinations that are kept out of training, to test whether a model understands what it has never seen.

A model that was trained on "the largest building" may have learned what these words mean, or only this sentence. Asked
for "the building that is largest of all", it needs the meaning. The sentences here are never used by
:func:`~segearth.data.questions.wording.question_text`, which words all other questions. Further names of classes,
phrases of attributes and sentences of needs are under ``held_out`` in the table (``needs.yaml``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from segearth.data.questions.claims import Claim, Referents
from segearth.data.questions.table import SIZES, Table
from segearth.data.questions.wording import are_many, plain_phrase

T = TypeVar("T")

FRAMES = (
    "Point out {x}.",
    "Pick out {x}.",
    "Trace {x}.",
    "Could you draw {x}?",
    "Where do you see {x}?",
    "Which pixels belong to {x}?",
    "I am looking for {x}.",
)
RANKS = {
    1: ("that is the largest", "that is largest of all"),
    2: ("that is the second largest", "that comes second in size"),
    -1: ("that is the smallest", "that is smallest of all"),
}
RELATIONS = {
    "closest": ("at the shortest distance from {x}", "least far from {x}"),
    "beside": ("beside {x}", "adjacent to {x}"),
    "left": ("more to the left than {x}",),
    "right": ("more to the right than {x}",),
    "above": ("higher up than {x}",),
    "below": ("lower down than {x}",),
}
PLACES = ("within the {place} of the picture", "in the picture's {place}")
PLACE_WORDS = {"upper": "top", "lower": "bottom", "middle": "centre"}


def is_held_out(claim: Claim, table: Table) -> bool:
    """Whether a claim combines an attribute with a place or size that the table lists under its ``never_with``."""
    if claim.attribute is None:
        return False
    key, value = claim.attribute
    combined_with = {claim.region, *(name for name, rank in SIZES.items() if rank == claim.rank)}
    return not combined_with.isdisjoint(table.attributes[key].never_with.get(value, ()))


def held_out_text(claim: Claim, referents: Referents, table: Table, rng: np.random.Generator) -> str:
    """Words the question of a claim in a way that no training question is worded.

    If the table holds out no words for a class, a need or an attribute, its usual words are used. The sentence around
    a class or an attribute is a held-out one in any case.

    Args:
        claim: The claim that is asked.
        referents: The objects that the claim is true of.
        table: Words and needs.
        rng: Decides the phrasing.
    """
    if claim.need is not None:
        return _pick(claim.need.held_out or claim.need.questions, rng)
    return _pick(FRAMES, rng).format(x=_phrase(claim, referents, table, rng))


def _phrase(claim: Claim, referents: Referents, table: Table, rng: np.random.Generator) -> str:
    words, many = table.words(claim.categories[0]), are_many(claim, referents, table)
    singular, plural = _pick(words.held_out or words.names[:1], rng)
    tail = "".join(f" {part}" for part in _tail(claim, table, rng))
    if claim.attribute is not None:
        key, value = claim.attribute
        spec = table.attributes[key]
        form = _pick(spec.held_out.get(value) or spec.values[value][:1], rng)
        singular, plural = form.format(noun=singular), form.format(noun=plural)
    if claim.count is not None:
        return f"the {claim.count} {plural}{tail}"
    if claim.about_individuals or not many:
        return f"the {plural if many else singular}{tail}"
    openings = ["the", "any"]
    openings += ["each of the"] if referents.within is None and not words.mass else []  # stuff cut at a box has no each
    return f"{_pick(openings, rng)} {plural}{tail}"


def _tail(claim: Claim, table: Table, rng: np.random.Generator) -> list[str]:
    """Returns the phrases that follow the noun: relation, place and size."""
    parts = []
    if claim.relation is not None and claim.anchor is not None:
        anchor = plain_phrase(claim.anchor, not claim.anchor.about_individuals, table)
        parts.append(_pick(RELATIONS[claim.relation], rng).format(x=anchor))
    if claim.region is not None:
        place = " ".join(PLACE_WORDS.get(word, word) for word in claim.region.split())
        parts.append(_pick(PLACES, rng).format(place=place))
    if claim.rank is not None:
        parts.append(_pick(RANKS[claim.rank], rng))
    return parts


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]
