from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from village import block, frame_of, village

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.claims import SIDES, Claim
from segearth.data.questions.propose import PROPOSERS
from segearth.data.questions.regions import HALVES, QUARTERS, SPOTS
from segearth.data.questions.table import load_table

TABLE = load_table()
HOUSE, POOL, ROAD = Claim(("building",)), Claim(("swimming pool",)), Claim(("road",))
LARGEST = replace(HOUSE, rank=1, one=True)


def proposed(kind: str, annotated: AnnotatedImage | None = None, seed: int = 0) -> Counter[Claim]:
    return Counter(PROPOSERS[kind](annotated or village(), TABLE, np.random.default_rng(seed)))


def over_seeds(kind: str, annotated: AnnotatedImage | None = None) -> set[Claim]:
    return {claim for seed in range(60) for claim in proposed(kind, annotated, seed)}


def test_classes() -> None:
    assert proposed("class") == Counter((HOUSE, POOL, ROAD))


def test_counts() -> None:
    placed = {replace(HOUSE, count=2, region=place) for place in (*HALVES, *QUARTERS)}
    assert over_seeds("count") == {replace(HOUSE, count=3), *placed}
    assert len(proposed("count")) == 4  # three places a time, so that they do not crowd out the rest
    for number in (2, 9, 10):
        ships = frame_of(*(block(k, "ship", 8 * k, 0, 8 * k + 5, 9) for k in range(number)))
        all_of_them = {claim for claim in over_seeds("count", ships) if claim.region is None}
        assert all_of_them == ({Claim(("ship",), count=number)} if number < 10 else set())
        some = {claim.count for claim in over_seeds("count", ships) if claim.region}
        assert some == ({2, 3, 4} if number > 4 else set())


def test_positions() -> None:
    found = proposed("position")
    things = [replace(c, region=place, one=True) for c in (HOUSE, POOL) for place in SPOTS]
    parts = [replace(c, region=place) for c in (HOUSE, POOL, ROAD) for place in (*HALVES, *QUARTERS)]
    assert found == Counter(things * 2 + parts)


def test_sizes() -> None:
    ranked = [replace(c, rank=rank, one=True) for c in (HOUSE, POOL) for rank in (1, 1, 2, -1)]
    assert proposed("size") == Counter(ranked)


def test_neighbours() -> None:
    pool = replace(POOL, one=True)
    expected = [replace(HOUSE, relation="closest", one=True, anchor=anchor) for anchor in (pool, LARGEST, ROAD)]
    expected += [replace(POOL, relation="closest", one=True, anchor=anchor) for anchor in (LARGEST, ROAD)]
    expected += [replace(HOUSE, relation="beside", anchor=anchor) for anchor in (pool, ROAD)]
    expected += [replace(POOL, relation="beside", anchor=anchor) for anchor in (LARGEST, ROAD)]
    for side in SIDES:  # of stuff, which lies everywhere, nothing is on a side
        expected += [replace(HOUSE, relation=side, anchor=pool), replace(HOUSE, relation=side, anchor=LARGEST)]
        expected += [replace(POOL, relation=side, anchor=LARGEST)]
    assert proposed("neighbour") == Counter(expected)


def test_attributes() -> None:
    expected = []
    for value in ("tin", "concrete"):
        base = replace(HOUSE, attribute=("roof:material", value))
        expected += [base, replace(base, one=True), replace(base, rank=1, one=True)]
        expected += [replace(base, region=place) for place in (*HALVES, *QUARTERS)]
        expected += [replace(base, region=place, one=True) for place in SPOTS]
    assert proposed("attribute") == Counter(expected)
    odd = block(1, "building", 0, 0, 9, 9, attributes={"roof:material": "thatch", "colour": "red"})
    assert not proposed("attribute", frame_of(odd))
    later = block(2, "building", 20, 0, 29, 9, attributes={"roof:shape": "flat"})
    assert {c.attribute for c in proposed("attribute", frame_of(odd, later))} == {("roof:shape", "flat")}


def test_needs_of_what_is_in_view() -> None:
    found = proposed("reasoning")
    assert all(claim.need is not None and not claim.absent for claim in found)
    for need in TABLE.needs:
        categories = tuple(n for n in need.classes if n in (*village().vocabulary, "ship"))
        in_view = bool({"building", "swimming pool", "road"} & set(categories))
        assert (Claim(categories, need=need) in found) == in_view
    assert max(found.values()) == 1


def test_absences() -> None:
    found = proposed("absent")
    assert all(claim.absent for claim in found)
    assert {c.categories[0] for c in found if c.need is None and not c.region and not c.attribute} == {
        "vehicle", "driveway", "ship"
    }  # fmt: skip
    named = {claim.categories for claim in found if claim.need is not None}
    assert ("vehicle",) in named and ("ship",) in named and ("building",) not in named
    places = {c.region for c in found if c.categories == ("road",)}
    assert places == {*HALVES, *QUARTERS}
    roofs = [c for c in found if c.attribute]
    assert {c.attribute for c in roofs} == {("roof:material", v) for v in TABLE.attributes["roof:material"].values}
    assert {c.region for c in roofs} == {None, *QUARTERS, *SPOTS} and {c.categories for c in roofs} == {("building",)}


def test_kinds_of_absence_take_turns() -> None:
    """There are 150 places without something and three classes: unless they took turns, places would be all."""
    for seed in range(20):
        first = list(PROPOSERS["absent"](village(), TABLE, np.random.default_rng(seed)))[:9]
        kinds = Counter("need" if c.need else "placed" if c.region or c.attribute else "class" for c in first)
        assert kinds == {"need": 3, "placed": 3, "class": 3}


@pytest.mark.parametrize("kind", ["count", "size", "neighbour", "attribute"])
def test_incomplete_classes_are_not_told_apart(kind: str) -> None:
    annotated = village(incomplete=frozenset(("building",)))
    assert all(claim.categories != ("building",) for claim in proposed(kind, annotated))
    assert all(claim.anchor is None or claim.anchor.categories != ("building",) for claim in proposed(kind, annotated))
    if kind == "count":
        assert not proposed(kind, annotated)


@pytest.mark.parametrize("kind", sorted(PROPOSERS))
def test_the_order_is_the_generators(kind: str) -> None:
    first, again, other = ([*PROPOSERS[kind](village(), TABLE, np.random.default_rng(s))] for s in (1, 1, 2))
    assert first == again
    assert kind == "class" or first != other
    orders = {tuple(PROPOSERS[kind](village(), TABLE, np.random.default_rng(s))) for s in range(20)}
    assert len(orders) > 2
