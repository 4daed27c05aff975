"""Proposes claims about an image, one function for each kind of question, in random order.

Proposed claims need not be true; :mod:`segearth.data.questions.claims` decides which of them hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.claims import SIDES, Claim
from segearth.data.questions.regions import HALVES, QUARTERS, SPOTS
from segearth.data.questions.table import Table

T = TypeVar("T")
Proposer = Callable[[AnnotatedImage, Table, np.random.Generator], Iterator[Claim]]

LARGEST_COUNT = 9


def propose_class(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Every class in view."""
    del table
    for name in _shuffled(list(annotated.by_category), rng):
        yield Claim((name,))


def propose_count(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Classes with two to nine countable objects, alone or in a half of the frame."""
    del table
    for name in _shuffled(_countable(annotated), rng):
        number = len(annotated.by_category[name])
        if 2 <= number <= LARGEST_COUNT:
            yield Claim((name,), count=number)
        for region in _shuffled([*HALVES, *QUARTERS], rng)[:3]:
            for count in (2, 3, 4):
                if count < number:
                    yield Claim((name,), region=region, count=count)


def propose_position(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """The one object in a corner or the middle; all of a class in a half or a quarter."""
    del table
    things = set(_countable(annotated))
    options = [(name, region, False) for name in annotated.by_category for region in (*HALVES, *QUARTERS)]
    options += [(name, region, True) for name in things for region in SPOTS] * 2
    for name, region, one in _shuffled(sorted(options), rng):
        yield Claim((name,), region=region, one=one)


def propose_size(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """The largest, second largest and smallest object of a class."""
    del table
    options = [(name, rank) for name in _countable(annotated) for rank in (1, 1, 2, -1)]
    for name, rank in _shuffled(options, rng):
        yield Claim((name,), rank=rank, one=True)


def propose_neighbour(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Objects by their position relative to an anchor: a class's only object, its largest object, or its stuff."""
    del table
    countable = _countable(annotated)
    anchors = []
    for name, items in annotated.by_category.items():
        if not items[0].is_thing:
            anchors.append(Claim((name,)))
        elif name in countable:
            anchors.append(Claim((name,), one=True) if len(items) == 1 else Claim((name,), rank=1, one=True))
    options = []
    for anchor in anchors:
        stuff = not anchor.about_individuals
        for name in countable:
            if name == anchor.categories[0] and anchor.rank is None:
                continue
            options.append(Claim((name,), one=True, relation="closest", anchor=anchor))
            if name != anchor.categories[0]:
                options.append(Claim((name,), relation="beside", anchor=anchor))
            if not stuff:
                options += [Claim((name,), relation=side, anchor=anchor) for side in SIDES]
    yield from _shuffled(options, rng)


def propose_attribute(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Objects with an attribute: all of them, the only one, the largest, or those in a part of the frame."""
    options = []
    for name in _countable(annotated):
        present = {pair for item in annotated.by_category[name] for pair in item.attributes.items()}
        for key, value in sorted(present):
            if key not in table.attributes or value not in table.attributes[key].values:
                continue
            base = Claim((name,), attribute=(key, value))
            options += [base, replace(base, one=True), replace(base, rank=1, one=True)]
            options += [replace(base, region=region) for region in (*HALVES, *QUARTERS)]
            options += [replace(base, region=region, one=True) for region in SPOTS]
    yield from _shuffled(options, rng)


def propose_reasoning(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Needs that a class in view satisfies."""
    yield from (claim for claim in _shuffled(_need_claims(annotated, table), rng) if annotated.of(claim.categories))


def propose_absent(annotated: AnnotatedImage, table: Table, rng: np.random.Generator) -> Iterator[Claim]:
    """Absent classes and needs, and present classes with an absent attribute or in a part of the frame without them."""
    missing = sorted((annotated.vocabulary | annotated.known_absent) - annotated.by_category.keys())
    options = [Claim((name,), absent=True) for name in missing]
    needs = [replace(c, absent=True) for c in _need_claims(annotated, table) if not annotated.of(c.categories)]
    placed = [Claim((n,), region=r, absent=True) for n in annotated.by_category for r in (*HALVES, *QUARTERS)]
    for name in _countable(annotated):
        for key, spec in table.attributes.items():
            if any(key in item.attributes for item in annotated.by_category[name]):
                placed += [Claim((name,), attribute=(key, value), absent=True) for value in spec.values]
                placed += [
                    Claim((name,), region=region, attribute=(key, value), absent=True)
                    for value in spec.values
                    for region in (*QUARTERS, *SPOTS)
                ]
    queues = [iter(_shuffled(claims, rng)) for claims in (options, needs, placed)]
    while queues:  # one from each queue in turn: there are many more places to propose than classes
        for queue in _shuffled(queues, rng):
            claim = next(queue, None)
            if claim is None:
                queues = [other for other in queues if other is not queue]
            else:
                yield claim


PROPOSERS: dict[str, Proposer] = {
    "class": propose_class,
    "count": propose_count,
    "position": propose_position,
    "size": propose_size,
    "neighbour": propose_neighbour,
    "attribute": propose_attribute,
    "reasoning": propose_reasoning,
    "absent": propose_absent,
}


def _need_claims(annotated: AnnotatedImage, table: Table) -> list[Claim]:
    known = annotated.vocabulary | annotated.known_absent
    claims = []
    for need in table.needs:
        categories = tuple(name for name in need.classes if name in known)
        if categories:
            claims.append(Claim(categories, need=need))
    return claims


def _countable(annotated: AnnotatedImage) -> list[str]:
    return [
        name for name, items in annotated.by_category.items() if items[0].is_thing and name not in annotated.incomplete
    ]


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[k] for k in rng.permutation(len(items))]
