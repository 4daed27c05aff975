"""What is kept from training: worded by hand, read by another reader, and never found where a model learns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from drawn_claims import POOL, draw_claim
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_facts import Said, check, read
from village import random_image, village

from segearth.config import AugmentConfig
from segearth.data.feed.views import AnnotatedViews
from segearth.data.questions.builder import DEFAULT_MIX, BuilderSettings, Expression, ExpressionBuilder
from segearth.data.questions.claims import Claim, Referents
from segearth.data.questions.held_out import FRAMES, held_out_text, is_held_out
from segearth.data.questions.table import SIZES, Attribute, ClassWords, Table, load_table
from segearth.data.questions.wording import RANKS
from segearth.data.readers.aerial import FILE_NAMES, PACKAGED, SPLITS, UNSEEN_SPLITS, AerialMini
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.structures import Question

TABLE = load_table()
HOUSE, TREE = Claim(("building",)), Claim(("tree",))
TIN = replace(HOUSE, attribute=("roof:material", "tin"))
GRASS = Claim(("grass",), region="lower left quarter")

COUNTS = dict(zip("23456789", ("two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True))
RELATIONS = {
    "at the shortest distance from": "closest to",
    "least far from": "closest to",
    "beside": "next to",
    "adjacent to": "next to",
    "more to the left than": "further left than",
    "more to the right than": "further right than",
    "higher up than": "further up in the image than",
    "lower down than": "further down in the image than",
}
FACTS = {
    "roofed with concrete": "with a concrete roof",
    "roofed with tin": "with a tin roof",
    "roofed with clay tiles": "with a clay tile roof",
    "under a flat roof": "with a flat roof",
    "under a gabled roof": "with a gabled roof",
}
SUPERLATIVES = {
    "that is the largest": "largest",
    "that is largest of all": "largest",
    "that is the second largest": "second largest",
    "that comes second in size": "second largest",
    "that is the smallest": "smallest",
    "that is smallest of all": "smallest",
}
NAMES = {
    held_out: first
    for words in TABLE.classes.values()
    for pair in words.held_out
    for held_out, first in zip(pair, (words.singular, words.plural), strict=True)
}
FRAME = re.compile(
    r"(?:Point out|Pick out|Trace|I am looking for) (.+)\."
    r"|(?:Could you draw|Where do you see|Which pixels belong to) (.+)\?"
)
MARKS = re.compile(
    FRAME.pattern
    + r"|\b(picture|top|bottom|centre|any|each of|\d+|"
    + "|".join((*RELATIONS, *FACTS, *SUPERLATIVES, *sorted(NAMES)))
    + r")\b"
)
SENTENCES = {sentence for need in TABLE.needs for sentence in need.held_out}


def in_seen_words(text: str) -> str:
    """Translates a question in held-out words, word by word, so that the reader of seen words understands it."""
    framed = FRAME.fullmatch(text)
    assert framed, f"no held-out frame: {text}"
    phrase = framed[1] or framed[2]
    for pattern in (r" within the ([a-z ]+) of the picture", r" in the picture's ([a-z ]+)"):
        if found := re.search(pattern, phrase):
            words = {"top": "upper", "bottom": "lower", "centre": "middle"}
            place = " ".join(words.get(word, word) for word in found[1].split(" that ")[0].split())
            phrase = phrase.replace(found[0], f" in the {place} of the image")
    for held_out, seen in sorted({**NAMES, **RELATIONS, **FACTS}.items(), key=lambda pair: -len(pair[0])):
        phrase = re.sub(rf"\b{held_out}\b", seen, phrase)
    for held_out, seen in SUPERLATIVES.items():
        if phrase.endswith(f" {held_out}"):
            phrase = phrase.removesuffix(f" {held_out}").replace("the ", f"the {seen} ", 1)
    phrase = re.sub(r"^the (\d) ", lambda found: f"the {COUNTS[found[1]]} ", phrase)
    return re.sub(r"^(any|each of the) ", "all ", phrase)


def understood(text: str) -> Said:
    return read(in_seen_words(text))[0]


def worded(claim: Claim, number: int, within: tuple[int, int, int, int] | None = None) -> set[str]:
    """What stands in the frames of a claim about so many objects."""
    referents = Referents(tuple(range(number)), within)
    texts = {held_out_text(claim, referents, TABLE, np.random.default_rng(seed)) for seed in range(200)}
    frames = {text for text in texts if FRAME.fullmatch(text)}
    assert texts == frames
    return {found[1] or found[2] for text in texts if (found := FRAME.fullmatch(text))}


@pytest.mark.parametrize(
    ("claim", "number", "expected"),
    [
        (HOUSE, 3, {"the built structures", "any built structures", "each of the built structures"}),
        (HOUSE, 1, {"the built structure"}),
        (TREE, 1, {"the tree"}),  # no name of it is held out
        (Claim(("grass",)), 1, {"the grass cover", "any grass cover"}),
        (Claim(("ship",), absent=True), 0,
         {"the sea-going vessels", "any sea-going vessels", "each of the sea-going vessels"}),
        (replace(HOUSE, count=3), 3, {"the 3 built structures"}),
        (replace(HOUSE, rank=1, one=True), 1,
         {"the built structure that is the largest", "the built structure that is largest of all"}),
        (replace(TIN, rank=-1, one=True), 1,
         {"the built structure roofed with tin that is the smallest",
          "the built structure roofed with tin that is smallest of all"}),
        (replace(TREE, relation="closest", one=True, anchor=POOL), 1,
         {"the tree at the shortest distance from the swimming pool", "the tree least far from the swimming pool"}),
        (replace(TREE, relation="above", anchor=replace(HOUSE, rank=1, one=True)), 2,
         {"the trees higher up than the largest building"}),
        (replace(TREE, relation="beside", anchor=Claim(("road",))), 2,
         {"the trees beside the roads", "the trees adjacent to the roads"}),
        (replace(HOUSE, region="middle", one=True), 1,
         {"the built structure within the centre of the picture", "the built structure in the picture's centre"}),
    ],
)  # fmt: skip
def test_phrases_by_hand(claim: Claim, number: int, expected: set[str]) -> None:
    assert worded(claim, number) == expected


def test_what_is_cut_at_a_line_is_not_each_of_it() -> None:
    ships = Claim(("ship",), region="upper half")
    assert any(text.startswith("each of the") for text in worded(ships, 2))
    assert {text.split()[0] for text in worded(ships, 2, within=(0, 0, 9, 9))} == {"the", "any"}


def test_every_frame_is_used_and_a_need_is_asked_in_its_held_out_sentences() -> None:
    texts = {held_out_text(TREE, Referents((1,)), TABLE, np.random.default_rng(seed)) for seed in range(200)}
    assert texts == {frame.format(x="the tree") for frame in FRAMES}
    need = TABLE.needs[0]
    claim = Claim(need.classes, need=need)
    asked = {held_out_text(claim, Referents((1,)), TABLE, np.random.default_rng(seed)) for seed in range(50)}
    assert asked == set(need.held_out) and len(asked) == 2


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_read_is_what_was_claimed(data: st.DataObject) -> None:
    claim, number = draw_claim(data, TABLE)
    (name,) = claim.categories
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    said = understood(held_out_text(claim, Referents(tuple(range(number))), TABLE, rng))
    facts_said = (said.category, said.attribute, said.place, said.rank, said.count, said.relation)
    assert facts_said == (name, claim.attribute, claim.region, claim.rank, claim.count, claim.relation)
    if claim.anchor is not None and said.anchor is not None:
        assert (said.anchor.category, said.anchor.rank) == (claim.anchor.categories[0], claim.anchor.rank)
    assert TABLE.classes[name].mass or ("plural" if number > 1 else "singular") in said.numbers


def test_a_table_that_holds_nothing_out_is_asked_in_its_first_words() -> None:
    words = {"silo": ClassWords("silo", "silos", synonyms=(("tower", "towers"),))}
    table = Table(words, {"colour": Attribute({"red": ("red {noun}", "{noun} in red")})})
    claim = Claim(("silo",), attribute=("colour", "red"))
    texts = {held_out_text(claim, Referents((1,)), table, np.random.default_rng(seed)) for seed in range(99)}
    assert texts == {frame.format(x="the red silo") for frame in FRAMES}


# ---- never in training --------------------------------------------------------------------------------------------


def test_held_out_words_are_others_than_those_of_training() -> None:
    for words in TABLE.classes.values():
        assert not {name for pair in words.held_out for name in pair} & {n for pair in words.names for n in pair}
    for need in TABLE.needs:
        assert need.held_out and not set(need.held_out) & {q for other in TABLE.needs for q in other.questions}
    for spec in TABLE.attributes.values():
        assert spec.held_out.keys() == spec.values.keys()
        for value, phrases in spec.values.items():
            assert not set(phrases) & set(spec.held_out[value])
    assert {rank: names[0] for rank, names in RANKS.items()} == {rank: name for name, rank in SIZES.items()}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, False),
        ({"region": "left half"}, True),
        ({"region": "left half", "absent": True}, True),
        ({"region": "upper half"}, False),
        ({"rank": 1, "one": True}, False),  # of concrete alone
        ({"rank": 1, "one": True, "attribute": ("roof:material", "concrete")}, True),
        ({"rank": -1, "one": True, "attribute": ("roof:material", "concrete")}, False),
        ({"region": "left half", "attribute": ("roof:shape", "gabled")}, False),
        ({"region": "left half", "attribute": None}, False),
    ],
)
def test_combinations_by_hand(facts: dict, expected: bool) -> None:
    assert is_held_out(replace(TIN, **facts), TABLE) == expected


def assert_seen(text: str) -> None:
    assert text not in SENTENCES
    if not any(text in need.questions for need in TABLE.needs):
        assert not (found := MARKS.search(text)), f"{found} in {text!r}"
        said = read(text)[0]
        if said.attribute is not None:
            claim = Claim((said.category,), attribute=said.attribute, region=said.place, rank=said.rank)
            assert not is_held_out(claim, TABLE), text


def built(settings: BuilderSettings) -> Iterator[Expression]:
    builder = ExpressionBuilder(TABLE, settings)
    for seed in range(150):
        annotated = village() if seed % 3 == 0 else random_image(np.random.default_rng(seed))
        yield from builder.expressions(annotated, np.random.default_rng(seed))


def test_no_built_question_is_held_out_unless_that_is_asked_for() -> None:
    evenly = BuilderSettings(max_questions=30, mix=dict.fromkeys(DEFAULT_MIX, 1.0))
    found = list(built(evenly))
    assert {each.kind for each in found} == set(DEFAULT_MIX)
    assert sum(each.claim.attribute is not None for each in found) > 100
    for each in found:
        assert_seen(each.text)
        assert not is_held_out(each.claim, TABLE)
    with_pairs = [each for each in built(replace(evenly, held_out=True)) if is_held_out(each.claim, TABLE)]
    assert {each.kind for each in with_pairs} == {"attribute", "absent"}  # what the assertions above could have found


def test_views_and_drawn_images_ask_in_seen_words_alone() -> None:
    data = AerialMini(split="train", questions="none")
    mix = {"attribute": 0.6, "absent": 0.2, "position": 0.2}
    augment = AugmentConfig(mosaic=0.3, paste=0.4, min_scale=0.4)
    views = AnnotatedViews(data, 96, augment, BuilderSettings(12, mix))
    roofs = [index for index in range(len(data)) if data.source_of(index) == "hot_banepa_roofs"]
    asked = [q for index in roofs for q in views.draw(index, np.random.default_rng(index))[1]]
    assert sum("roof" in question.text for question in asked) > 50
    for question in (*asked, *(q for sample in SyntheticDataset(length=25) for q in sample.questions)):
        assert_seen(question.text)


@pytest.mark.parametrize("split", SPLITS)
def test_the_fixed_and_dense_questions_hold_no_held_out_words(split: str) -> None:
    for layout in (FILE_NAMES.questions, FILE_NAMES.dense):
        for line in (PACKAGED / layout.format(split=split)).read_text().splitlines():
            text = json.loads(line)["question"]
            if (split, layout) == ("train", FILE_NAMES.questions):
                assert_seen(text)  # learned from where views are not drawn afresh: no combination either
            else:
                assert text not in SENTENCES
                assert not MARKS.search(text) or any(text in need.questions for need in TABLE.needs)


# ---- the packaged questions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", UNSEEN_SPLITS)
def test_every_unseen_question_is_held_out_and_means_what_its_twin_says(split: str) -> None:
    lines = [json.loads(line) for line in (PACKAGED / FILE_NAMES.unseen.format(split=split)).read_text().splitlines()]
    combined = 0
    for line in lines:
        need = next((need for need in TABLE.needs if line["seen"] in need.questions), None)
        if need is not None:
            assert line["question"] in need.held_out and line["task"] == "reasoning"
            continue
        one, other = understood(line["question"]), read(line["seen"])[0]
        assert replace(one, opening="", numbers=frozenset()) == replace(other, opening="", numbers=frozenset())
        claim = Claim((one.category,), attribute=one.attribute, region=one.place, rank=one.rank)
        assert is_held_out(claim, TABLE) == (line["kind"] == "combination")
        combined += line["kind"] == "combination"
    assert combined >= 2
    assert set(Counter(line["kind"] for line in lines)) == {*DEFAULT_MIX, "combination"}


def test_the_twins_are_true_by_their_words_and_pixels() -> None:
    unseen = AerialMini(split="val", questions="seen")
    for index in range(0, len(unseen), 4):
        annotated = unseen.annotated(index)
        for question in unseen[index].questions:
            kind = "attribute" if question.kind == "combination" else question.kind
            check(annotated, Question(question.text, question.mask, question.answer, question.task, kind))
