from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from drawn_claims import POOL, draw_claim
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_facts import RELATIONS, TABLE, read
from village import block, frame_of, village

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.claims import SIDES, Claim, Referents, verify_claim
from segearth.data.questions.wording import COMMANDS, answer_text, question_text

HOUSE, GRASS = Claim(("building",)), Claim(("grass",))
TIN = replace(HOUSE, attribute=("roof:material", "tin"))
TREES = Claim(("trees and shrubs",))


def phrasings(claim: Claim, number: int, within: tuple[int, int, int, int] | None = None) -> set[str]:
    """Everything a claim about so many objects is ever called."""
    referents = Referents(tuple(range(number)), within)
    return {question_text(claim, referents, TABLE, np.random.default_rng(seed)) for seed in range(400)}


def bare(texts: set[str]) -> set[str]:
    """Those that are no sentence."""
    return {text for text in texts if text[-1] not in ".?"}


def spelled(text: str) -> set[str]:
    """Every choice of "{this|that}" in a text."""
    parts = [part.split("|") for part in re.split(r"[{}]", text)]
    return {"".join(choice) for choice in product(*parts)}


def every(*nouns: str) -> set[str]:
    return {f"{opening}{noun}" for noun in nouns for opening in ("", "the ", "all ", "all the ")}


def test_a_class_by_hand() -> None:
    plural, singular = every("buildings", "structures"), {"every building", "every structure"}
    assert bare(phrasings(HOUSE, 3)) == plural | singular
    assert bare(phrasings(HOUSE, 1)) == {"the building", "the structure"}
    assert bare(phrasings(GRASS, 2)) == bare(phrasings(GRASS, 1)) == every("grass", "lawn", "grassy ground")
    assert bare(phrasings(Claim(("ship",), absent=True), 0)) == every("ships") | {"every ship"}


def test_sentences_by_hand() -> None:
    for command in COMMANDS:
        assert command.format(x="the ships") in phrasings(Claim(("ship",)), 2)
    for text in phrasings(HOUSE, 3) - bare(phrasings(HOUSE, 3)):
        assert re.search(r"(buildings|structures)[.?]$|every (building|structure)\.$", text)
    questions = {text for claim in (HOUSE, GRASS, TREES) for k in (1, 3) for text in phrasings(claim, k) if "?" in text}
    assert questions == {
        *(f"Where is the {noun}?" for noun in ("building", "structure")),
        *(f"Where are {the}{noun}?" for noun in ("buildings", "structures") for the in ("", "the ")),
        *(f"Where is {the}{noun}?" for noun in ("grass", "lawn", "grassy ground") for the in ("", "the ")),
        *(f"Where are {the}trees and {noun}?" for noun in ("shrubs", "bushes") for the in ("", "the ")),
    }
    shown = {text for text in phrasings(HOUSE, 3) if text.startswith("Show ") and not text.startswith("Show me")}
    assert shown == {f"Show {x}." for x in bare(phrasings(HOUSE, 3)) if x.startswith(("all ", "every "))}


TREE, SHIPS = Claim(("tree",)), Claim(("ship",))


@pytest.mark.parametrize(
    ("claim", "number", "expected"),
    [
        (replace(HOUSE, count=2), 2, "the two {buildings|structures}"),
        (replace(HOUSE, count=9), 9, "the nine {buildings|structures}"),
        (replace(HOUSE, rank=1, one=True), 1, "the {largest|biggest} {building|structure}"),
        (replace(HOUSE, rank=2, one=True), 1, "the second {largest|biggest} {building|structure}"),
        (replace(HOUSE, rank=-1, one=True), 1, "the smallest {building|structure}"),
        (replace(TREE, relation="beside", anchor=POOL), 1, "the tree next to the swimming pool"),
        (replace(TREE, relation="beside", anchor=Claim(("road",))), 2, "the trees next to the roads"),
        (replace(TREE, relation="closest", one=True, anchor=POOL), 1,
         "the tree {closest|nearest} to the swimming pool"),
        (replace(TREE, relation="beside", anchor=POOL, region="left half"), 1,
         "the tree next to the swimming pool in the left half{| of the image}"),
        (replace(SHIPS, region="middle", one=True), 1, "the ship in the middle{| of the image}"),
        (replace(SHIPS, count=3, region="left half"), 3, "the three ships in the left half{| of the image}"),
        (replace(TREE, relation="left", anchor=POOL), 1,
         "the tree {further left than|to the left of} the swimming pool"),
        (replace(TREE, relation="right", anchor=POOL), 2,
         "the trees {further right than|to the right of} the swimming pool"),
        (replace(TREE, relation="above", anchor=POOL), 1,
         "the tree {further up in the image than the swimming pool|above the swimming pool in the image}"),
        (replace(TREE, relation="below", anchor=POOL), 2,
         "the trees {further down in the image than the swimming pool|below the swimming pool in the image}"),
        (replace(TIN, rank=1, one=True), 1,
         "the {largest|biggest} {tin-roofed building|building with a tin roof|building with a sheet-metal roof|"
         "tin-roofed structure|structure with a tin roof|structure with a sheet-metal roof}"),
    ],
)  # fmt: skip
def test_phrases_by_hand(claim: Claim, number: int, expected: str) -> None:
    assert bare(phrasings(claim, number)) == spelled(expected)


def test_what_is_cut_at_a_line_or_told_by_a_fact_is_worded_so() -> None:
    ships = Claim(("ship",), region="left half")
    ends = ("", " of the image")
    whole = {f"{o}ships in the left half{e}" for o in ("the ", "all ", "all the ") for e in ends}
    assert bare(phrasings(ships, 2)) == whole | {f"every ship in the left half{e}" for e in ends}
    assert bare(phrasings(ships, 2, within=(0, 0, 50, 100))) == whole  # part of a ship is not every ship
    nouns = [("buildings", "building"), ("structures", "structure")]
    forms = ("{} with a tin roof", "tin-roofed {}", "{} with a sheet-metal roof")
    expected = {o + f.format(many) for many, _ in nouns for f in forms for o in ("the ", "all ", "all the ")}
    assert bare(phrasings(TIN, 2)) == expected | {"every " + f.format(one) for _, one in nouns for f in forms}


def test_half_of_the_questions_are_bare_phrases_and_first_names_lead() -> None:
    texts = [question_text(HOUSE, Referents((1, 2)), TABLE, np.random.default_rng(k)) for k in range(1000)]
    assert sum(t[-1] not in ".?" for t in texts) == pytest.approx(500, abs=65)
    assert sum("building" in t for t in texts) == pytest.approx(600, abs=65)  # the class's own name, three in five
    assert sum(bool(re.match("Where|Show (?!me)", text)) for text in texts) == pytest.approx(125, abs=45)
    claim, two = replace(HOUSE, region="left half"), Referents((1, 2))
    placed = [question_text(claim, two, TABLE, np.random.default_rng(k)) for k in range(1000)]
    assert sum("of the image" in t for t in placed) == pytest.approx(600, abs=65)


def test_a_need_is_asked_in_one_of_its_sentences() -> None:
    need = TABLE.needs[0]
    assert phrasings(Claim(need.classes, need=need), 2) == set(need.questions)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_is_read_is_what_was_claimed(data: st.DataObject) -> None:
    """Another reader, which knows English but not the wording's code, understands what the claim means."""
    claim, number = draw_claim(data, TABLE)
    (name,) = claim.categories
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    said, verb = read(question_text(claim, Referents(tuple(range(number))), TABLE, rng))
    facts_said = (said.category, said.attribute, said.place, said.rank, said.count, said.relation)
    assert facts_said == (name, claim.attribute, claim.region, claim.rank, claim.count, claim.relation)
    assert set(RELATIONS.values()) == {*SIDES, "closest", "beside"}
    if claim.anchor is not None:
        assert (said.anchor.category, said.anchor.rank) == (claim.anchor.categories[0], claim.anchor.rank)
        assert ("plural" if claim.anchor == Claim(("road",)) else "singular") in said.anchor.numbers
    words = TABLE.classes[name]
    many = number > 1
    assert words.mass or ("plural" if many and said.opening != "every" else "singular") in said.numbers
    if verb:
        assert verb == ("are" if (" and " in words.singular if words.mass else many) else "is")


# ---- answers ------------------------------------------------------------------------------------------------------


def answered(annotated: AnnotatedImage, claim: Claim) -> str:
    referents = verify_claim(annotated, claim, TABLE)
    assert referents is not None
    return answer_text(claim, referents, annotated, TABLE)


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (HOUSE, "The 3 buildings."),
        (Claim(("road",)), "The road."),
        (Claim(("swimming pool",)), "The swimming pool."),
        (replace(HOUSE, count=3), "The three buildings."),
        (replace(HOUSE, rank=1, one=True), "The largest building."),
        (replace(HOUSE, rank=2, one=True), "The second largest building."),
        (replace(HOUSE, rank=-1, one=True), "The smallest building."),
        (replace(HOUSE, region="left half"), "The buildings in the left half of the image."),
        (replace(HOUSE, region="upper right corner", one=True), "The building in the upper right corner of the image."),
        (TIN, "The buildings with a tin roof."),
        (replace(HOUSE, attribute=("roof:material", "concrete")), "The building with a concrete roof."),
        (replace(HOUSE, relation="closest", one=True, anchor=POOL), "The building closest to the swimming pool."),
        (replace(HOUSE, relation="left", anchor=POOL), "The buildings further left than the swimming pool."),
        (replace(POOL, one=False, relation="right", anchor=replace(HOUSE, rank=1, one=True)),
         "The swimming pool further right than the largest building."),
        (replace(SHIPS, absent=True), "There is no ship in this image."),
        (replace(HOUSE, region="lower right quarter", absent=True),
         "There is no building in the lower right quarter of this image."),
        (replace(HOUSE, attribute=("roof:material", "clay_tiles"), absent=True),
         "There is no building with a clay tile roof in this image."),
    ],
)  # fmt: skip
def test_answers_by_hand(claim: Claim, text: str) -> None:
    assert answered(village(), claim) == text


def many(number: int, **facts: object) -> list[AnnotatedObject]:
    return [block(k, "ship", 4 * k, 0, 4 * k + 3, 9, **facts) for k in range(number)]


def test_numbers_are_told_only_where_they_are_known() -> None:
    ships = Claim(("ship",))
    assert answered(frame_of(*many(1)), ships) == "The ship."
    assert answered(frame_of(*many(2)), ships) == "The 2 ships."
    assert answered(frame_of(*many(20)), ships) == "The 20 ships."
    assert answered(frame_of(*many(21)), ships) == "The ships."  # nobody counts that far
    for number in (1, 2):
        incomplete = frame_of(*many(number), incomplete=frozenset(("ship",)))
        assert answered(incomplete, ships) == "The ships."
    assert answered(frame_of(*many(2), incomplete=frozenset(("tree",))), ships) == "The 2 ships."
    cut = many(3)
    cut[1] = replace(cut[1], truncated=True)
    assert answered(frame_of(*cut), ships) == "The ships."
    pieces = [block(k, "road", 0, 20 * k, 100, 20 * k + 5, is_thing=False) for k in range(3)]
    assert answered(frame_of(*pieces), Claim(("road",))) == "The roads."
    lawns = [block(k, "grass", 0, 20 * k, 100, 20 * k + 5, is_thing=False) for k in range(3)]
    assert answered(frame_of(*lawns), GRASS) == answered(frame_of(lawns[0]), GRASS) == "The grass."
    left = answered(frame_of(*lawns, size=120), replace(GRASS, region="left half"))
    assert left == "The grass in the left half of the image."


def test_the_answer_to_a_need_names_what_is_there_class_by_class() -> None:
    need = next(n for n in TABLE.needs if "Which surfaces are made for wheels?" in n.questions)
    road = block(1, "road", 0, 0, 100, 5, is_thing=False)
    drives = [block(k, "driveway", 10 * k, 20, 10 * k + 5, 40) for k in (2, 3)]
    parking = block(9, "parking area", 50, 50, 80, 80)
    claim = Claim(need.classes, need=need)
    assert need.classes == ("road", "driveway", "parking area")

    def told(*objects: AnnotatedObject) -> str:
        return answer_text(claim, Referents(tuple(o.id for o in objects)), frame_of(road, *drives, parking), TABLE)

    assert told(road) == "The road."
    assert told(*drives, road) == "The road and the 2 driveways."
    assert told(road, *drives, parking) == "The road, the 2 driveways and the parking area."
    assert answer_text(claim, Referents((1,)), frame_of(road), TABLE) == "The road."  # no driveway in view at all
    absent = answer_text(replace(claim, absent=True), Referents(()), frame_of(), TABLE)
    assert absent == "There is no road or driveway or parking area in this image."
