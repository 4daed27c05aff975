from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.data.questions.regions import REGIONS
from segearth.geo.scene_questions import NUMBERS, SIZES, Condition, understand


@pytest.mark.parametrize(
    "text",
    ["the red roofs", "which roofs could carry solar panels?", "Segment the pools.", "where could people shelter?"],
)
def test_what_a_tile_shows_is_asked_of_tiles_as_typed(text: str) -> None:
    question = understand(text)
    assert (question.mode, question.local, question.conditions) == ("tile", text, ())
    assert question.asked_of_tiles == (text,)


@pytest.mark.parametrize("text", [
    "the longest road", "the only ship", "most of the wood", "how much of it is water", "the largest of oaks",
    "which house is the largest in the left half?",
])  # fmt: skip
def test_what_depends_on_the_whole_and_is_not_understood_is_asked_of_the_whole(text: str) -> None:
    question = understand(text)
    assert question.mode == "whole" and question.asked_of_tiles == () and "reduced size" in question.reason


@pytest.mark.parametrize(
    ("text", "local", "conditions"),
    [
        ("the largest building", "the buildings", [Condition("size")]),
        ("Segment the second largest ship.", "the ships", [Condition("size", rank=2)]),
        ("the three smallest pools", "the pools", [Condition("size", rank=-1, number=3)]),
        ("Which is the largest building?", "the buildings", [Condition("size")]),
        ("Which building is the largest?", "the buildings", [Condition("size")]),
        ("which ship is the second largest", "the ships", [Condition("size", rank=2)]),
        ("the three largest of all the buildings", "the buildings", [Condition("size", number=3)]),
        ("the smallest one of the pools", "the pools", [Condition("size", rank=-1)]),
        ("the leftmost of the ships", "the ships", [Condition("most", direction=(-1, 0))]),
        ("Which house is the leftmost one?", "the houses", [Condition("most", direction=(-1, 0))]),
        ("the north-easternmost house", "the houses", [Condition("most", direction=(1, -1), of_compass=True)]),
        ("the northernmost house", "the houses", [Condition("most", direction=(0, -1), of_compass=True)]),
        ("Where is the leftmost ship?", "the ships", [Condition("most", direction=(-1, 0))]),
        ("the ship nearest the pier", "the ships", [Condition("nearest", other="the pier")]),
        ("Which building is closest to the road?", "the buildings", [Condition("nearest", other="the road")]),
        ("the closest car to the house", "the cars", [Condition("nearest", other="the house")]),
        ("the tree farthest away from the road", "the trees", [Condition("farthest", other="the road")]),
        ("buildings within 50 m of the river", "the buildings", [Condition("within", length=50, other="the river")]),
        ("houses more than 1.5 km from water", "the houses", [Condition("beyond", length=1500, other="the water")]),
        ("cars within 30 px of a road", "the cars", [Condition("within", length=30, in_pixels=True, other="the road")]),
        ("the cars to the left of the house", "the cars", [Condition("side", direction=(-1, 0), other="the house")]),
        (
            "the cars north-east of the house",
            "the cars",
            [Condition("side", direction=(1, -1), of_compass=True, other="the house")],
        ),
        ("grass in the left half of the image", "the grass", [Condition("region", box=(0, 0, 0.5, 1))]),
        ("the pool in the lower right corner", "the pools", [Condition("region", box=(0.5, 0.5, 1, 1))]),
        ("houses in the north", "the houses", [Condition("region", direction=(0, -1), of_compass=True)]),
        ("the trees in the middle", "the trees", [Condition("region", box=(0.25, 0.25, 0.75, 0.75))]),
        (
            "the two biggest boxes in the upper half",
            "the boxes",
            [Condition("region", box=(0, 0, 1, 0.5)), Condition("size", number=2)],
        ),
        ("How many houses in the south?", "the houses", [Condition("region", direction=(0, 1), of_compass=True)]),
        ("the largest building with a tin roof", "the buildings with a tin roof", [Condition("size")]),
        ("the largest city", "the cities", [Condition("size")]),
    ],
)
def test_what_is_settled(text: str, local: str, conditions: list[Condition]) -> None:
    question = understand(text)
    assert question.mode == "settle" and question.local == local
    assert list(question.conditions) == conditions
    assert question.text == text


def test_other_things_are_asked_for_as_well() -> None:
    assert understand("the ship nearest the pier").asked_of_tiles == ("the ships", "the pier")
    assert understand("the ship nearest the ships").asked_of_tiles == ("the ships",)


def test_a_count_asks_for_the_things() -> None:
    question = understand("How many ships are there?")
    assert (question.mode, question.local) == ("tile", "the ships")


@pytest.mark.parametrize("mode", ["tile", "whole"])
def test_a_mode_that_is_told_is_taken(mode: str) -> None:
    question = understand("the largest building", mode)
    assert question.mode == mode and question.local == "the largest building" and "as told" in question.reason


@pytest.mark.parametrize("name", sorted(set(REGIONS) - {"middle"}))
def test_parts_of_the_frame_are_those_that_models_are_trained_on(name: str) -> None:
    (condition,) = understand(f"the buildings in the {name}").conditions
    assert condition.box == REGIONS[name].box


@given(st.text(max_size=80))
def test_any_text_is_understood_somehow(text: str) -> None:
    assert understand(text).mode in ("tile", "settle", "whole")


NOUNS = st.from_regex(r"[a-z]{3,8}[bdt]", fullmatch=True)


@given(st.sampled_from(sorted(SIZES)), st.sampled_from(sorted(NUMBERS)), NOUNS)
def test_number_and_rank_are_read(size: str, number: str, noun: str) -> None:
    question = understand(f"the {number} {size} {noun}s")
    assert question.local == f"the {noun}s"
    assert question.conditions == (Condition("size", rank=SIZES[size], number=NUMBERS[number]),)
