from __future__ import annotations

from collections import Counter

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.claims import Claim, Margins, verify_claim
from segearth.data.questions.dense import every_expression, minimal_pairs
from segearth.data.questions.table import load_table

TABLE = load_table()


def square(number, category, x, y, side):
    return AnnotatedObject(number, category, np.ones((side, side), bool), (x, y, x + side, y + side))


def an_annotated_image():
    """Two houses upper left, one small house lower right, a ship upper right."""
    houses = [square(1, "building", 10, 10, 20), square(2, "building", 50, 12, 14), square(3, "building", 150, 150, 8)]
    return AnnotatedImage(200, 200, [*houses, square(4, "ship", 150, 20, 20)], frozenset({"building", "ship"}))


def expressions():
    return every_expression(an_annotated_image(), TABLE, np.random.default_rng(0))


def test_every_claim_that_holds_is_asked_once():
    found = expressions()
    assert len({(each.claim, each.kind) for each in found}) == len(found)
    assert {each.claim.categories for each in found if each.kind == "class"} == {("building",), ("ship",)}
    placed = [each for each in found if each.kind == "position" and each.claim.categories == ("building",)]
    halves = {each.claim.region: each.referents.ids for each in placed if "half" in each.claim.region}
    halves = {region: ids for region, ids in halves.items() if region in ("left half", "right half")}
    assert halves == {"left half": (1, 2), "right half": (3,)}
    ranks = {each.claim.rank: each.referents.ids for each in found if each.kind == "size"}
    assert ranks == {1: (1,), 2: (2,), -1: (3,)}
    for each in found:
        assert verify_claim(an_annotated_image(), each.claim, TABLE, Margins()) == each.referents


def test_kinds_left_out_are_not_asked():
    found = every_expression(an_annotated_image(), TABLE, np.random.default_rng(0), kinds=("size",))
    assert Counter(each.kind for each in found) == {"size": 3}


def test_pairs_differ_in_one_word_and_in_their_targets():
    found = expressions()
    pairs = [(what, found[a].claim, found[b].claim) for what, a, b in minimal_pairs(found)]
    assert len(pairs) == len({frozenset((first, second)) for _, first, second in pairs})  # none twice
    assert all(found[a].referents != found[b].referents for _, a, b in minimal_pairs(found))
    wanted = [
        ("side", Claim(("building",), region="left half"), Claim(("building",), region="right half")),
        ("size", Claim(("building",), rank=1, one=True), Claim(("building",), rank=-1, one=True)),
        ("size", Claim(("building",), rank=1, one=True), Claim(("building",), rank=2, one=True)),
        ("class", Claim(("building",)), Claim(("ship",))),
    ]
    for what, first, second in wanted:
        assert (what, first, second) in pairs or (what, second, first) in pairs
    assert not [p for p in pairs if p[0] == "class" and (p[1].region or p[2].region)]


def test_two_questions_with_one_target_are_no_pair():
    """Everything lies in the upper left quarter: "left" and "upper" say nothing different."""
    annotated = AnnotatedImage(200, 200, [square(1, "building", 10, 10, 20)], frozenset({"building"}))
    found = every_expression(annotated, TABLE, np.random.default_rng(0))
    assert found and not list(minimal_pairs(found))
