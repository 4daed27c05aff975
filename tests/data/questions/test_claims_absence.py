"""Claims about what is known or not known to be there: absences, needs, and classes annotated incompletely."""

from __future__ import annotations

from dataclasses import replace

import pytest
from village import BUILDING, POOL, TABLE, answer, block, far, frame_of, verdict, village

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.claims import Claim, Margins, Verifier
from segearth.data.questions.table import Need


def test_incomplete_class_is_neither_counted_nor_called_absent() -> None:
    annotated = village(incomplete=frozenset(("building", "vehicle")))
    assert answer(BUILDING, annotated) == (1, 2, 3)
    for claim in (replace(BUILDING, count=3), replace(BUILDING, region="left half"), Claim(("vehicle",), absent=True)):
        assert answer(claim, annotated) is None


def test_unresolved_class_is_not_called_absent() -> None:
    assert answer(Claim(("vehicle",), absent=True), village(unresolved=frozenset(("vehicle",)))) is None


def test_ambiguous_name_is_dropped() -> None:
    trees = block(1, "trees and shrubs", 0, 0, 30, 30, is_thing=False)
    thicket = block(2, "dense vegetation", 50, 50, 90, 90, is_thing=False)
    vocabulary = frozenset(("trees and shrubs", "dense vegetation"))
    assert answer(Claim(("trees and shrubs",)), AnnotatedImage(100, 100, [trees], vocabulary)) == (1,)
    assert answer(Claim(("trees and shrubs",)), AnnotatedImage(100, 100, [trees, thicket], vocabulary)) is None


def shelter(annotated: AnnotatedImage) -> Claim | None:
    need = next(n for n in TABLE.needs if "Where could people find shelter from the storm?" in n.questions)
    known = tuple(name for name in need.classes if name in annotated.vocabulary)
    return Claim(known, need=need)


def test_need_takes_every_class_that_satisfies_it() -> None:
    objects = [block(1, "property roof", 0, 0, 30, 30), block(2, "secondary structure", 50, 50, 70, 70)]
    both = frozenset(("property roof", "secondary structure"))
    annotated = AnnotatedImage(100, 100, objects, both)
    assert answer(shelter(annotated), annotated) == (1, 2)
    only = AnnotatedImage(
        100, 100, objects[:1], frozenset(("property roof",))
    )  # not to be asked: sheds are not annotated
    assert answer(shelter(only), only) is None
    doubtful = replace(annotated, possible=frozenset(("under construction",)))
    assert answer(shelter(doubtful), doubtful) is None


# ---- what is known not to be there ------------------------------------------------------------------------------


def test_something_alike_makes_an_absence_doubtful_where_it_lies() -> None:
    road = block(1, "road", 0, 0, 30, 30, is_thing=False)
    pool = block(2, "swimming pool", 80, 80, 90, 90)
    vocabulary = frozenset(("road", "driveway", "swimming pool"))
    annotated = AnnotatedImage(100, 100, [road, pool, block(3, "driveway", 80, 5, 95, 20)], vocabulary)
    driveway = Claim(("driveway",), absent=True)
    assert answer(driveway, annotated) is None
    assert answer(replace(driveway, region="upper left quarter"), annotated) is None  # that road might be called one
    assert answer(replace(driveway, region="lower left quarter"), annotated) == ()
    near = replace(annotated, objects=[replace(road, box=(0, 52, 30, 82)), *annotated.objects[1:]])
    assert answer(replace(driveway, region="upper left quarter"), near) is None  # within the 3 % around it
    past = replace(annotated, objects=[replace(road, box=(0, 53, 30, 83)), *annotated.objects[1:]])
    assert answer(replace(driveway, region="upper left quarter"), past) == ()


def test_stuff_is_absent_from_a_place_only_with_a_gap_around_it() -> None:
    for top, ids in ((53, ()), (52, None), (20, None)):
        grass = block(1, "grass", 0, top, 40, top + 30, is_thing=False)
        assert verdict(Claim(("grass",), region="upper half", absent=True), grass) == ids
    claim = Claim(("grass",), region="lower right quarter", attribute=("roof:shape", "flat"), absent=True)
    assert verdict(claim, block(1, "grass", 0, 0, 40, 30, is_thing=False)) == ()


@pytest.mark.parametrize(
    ("facts", "known"),
    [
        (dict(vocabulary=frozenset(("ship",))), True),
        (dict(known_absent=frozenset(("ship",))), True),
        (dict(), False),
        (dict(vocabulary=frozenset(("ship",)), incomplete=frozenset(("ship",))), False),
        (dict(vocabulary=frozenset(("ship",)), unresolved=frozenset(("ship",))), False),
        (dict(known_absent=frozenset(("ship",)), incomplete=frozenset(("ship",))), True),
    ],
)
def test_absence_is_known_or_not_asked(facts: dict, known: bool) -> None:
    annotated = AnnotatedImage(100, 100, [far()], **facts)
    assert answer(Claim(("ship",), absent=True), annotated) == (() if known else None)


def test_absence_of_several_classes_needs_each() -> None:
    both = Claim(("ship", "airplane"), absent=True)
    assert answer(both, AnnotatedImage(100, 100, [], frozenset(("ship", "airplane")))) == ()
    assert answer(both, AnnotatedImage(100, 100, [], frozenset(("ship",)))) is None
    assert answer(both, AnnotatedImage(100, 100, [far(1, "airplane")], frozenset(("ship", "airplane")))) is None


# ---- needs --------------------------------------------------------------------------------------------------------


def test_a_need_asks_for_all_it_can() -> None:
    need = Need(("building", "property roof", "tree"), ("Where is it dry?",), ("ship",))
    objects = (block(1, "building", 0, 0, 20, 20), block(2, "tree", 40, 40, 60, 60))
    annotated = AnnotatedImage(100, 100, objects, frozenset(("building", "tree")))
    asked = Claim(("building", "tree"), need=need)  # `building` covers what other sources call property roofs
    assert answer(asked, annotated) == (1, 2)
    assert answer(Claim(("building",), need=need), annotated) is None  # a part of the answer
    assert answer(asked, replace(annotated, vocabulary=frozenset(("building",)))) is None
    assert answer(Claim(("building",), need=need), replace(annotated, vocabulary=frozenset(("building",)))) is None
    for doubt in (dict(objects=[*objects, far(3, "ship")]), dict(possible=frozenset(("ship",)))):
        assert answer(asked, replace(annotated, **doubt)) is None
    known = replace(
        annotated, vocabulary=frozenset(("building",)), known_absent=frozenset(("tree",)), objects=objects[:1]
    )
    assert answer(asked, known) == (1,)
    none = replace(annotated, objects=[])
    assert answer(replace(asked, absent=True), none) == ()
    assert answer(asked, none) is None


def test_a_need_is_asked_although_a_bare_name_would_be_ambiguous() -> None:
    need = next(n for n in TABLE.needs if "Where could birds build their nests?" in n.questions)
    trees = block(1, "trees and shrubs", 0, 0, 20, 30, is_thing=False)
    thicket = block(2, "dense vegetation", 40, 0, 60, 30, is_thing=False)
    annotated = AnnotatedImage(
        100, 100, [trees, thicket], frozenset(("trees and shrubs", "dense vegetation", "forest"))
    )
    assert answer(Claim(("trees and shrubs", "dense vegetation", "forest"), need=need), annotated) == (1, 2)
    assert answer(Claim(("dense vegetation",)), annotated) is None


# ---- what is annotated incompletely -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        dict(count=2),
        dict(region="left half"),
        dict(attribute=("roof:material", "tin")),
        dict(rank=1, one=True),
        dict(one=True),
        dict(relation="beside", anchor=POOL),
    ],
)
def test_an_incomplete_class_is_asked_for_as_a_class_only(told: dict) -> None:
    tin = {"roof:material": "tin"}
    houses = [block(1, "building", 2, 2, 32, 32, attributes=tin), block(2, "building", 80, 80, 96, 96, attributes=tin)]
    objects = [*houses, block(3, "swimming pool", 34, 2, 44, 12)]
    facts = dict(incomplete=frozenset(("building",)))
    assert verdict(BUILDING, *objects, **facts) == (1, 2)
    assert verdict(replace(BUILDING, **told), *objects, **facts) is None
    never = Verifier(frame_of(*objects, **facts), TABLE, Margins(ask_incomplete=False))
    assert never.referents(BUILDING) is None
    assert never.referents(POOL).ids == (3,)
