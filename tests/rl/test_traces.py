from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.registry import build_dataset
from segearth.errors import ConfigError, SegEarthError, TraceError
from segearth.prompting.answers import parse_answer
from segearth.prompting.frames import Frame
from segearth.prompting.templates import answer_template
from segearth.rl.traces import check, grid_cell, trace_of, written
from segearth.structures import Boxes, Question, Regions, Text

SIZE = (90, 90)
BRIEF = replace(answer_template("brief@1"), frame=Frame.resized(30, 30))
RSGROUND, THINK2SEG, GEOVLM = (answer_template(f"{name}@1") for name in ("rsground", "think2seg", "geovlm"))


def thing(number: int, category: str, box: tuple[int, int, int, int]) -> AnnotatedObject:
    x0, y0, x1, y1 = box
    return AnnotatedObject(number, category, np.ones((y1 - y0, x1 - x0), bool), box)


LEFT, RIGHT = thing(0, "roof", (0, 0, 30, 30)), thing(1, "roof", (60, 3, 90, 27))
SHIP = thing(2, "ship", (30, 60, 60, 90))
ANNOTATED = AnnotatedImage(90, 90, [LEFT, RIGHT, SHIP])


def question(*items: AnnotatedObject, kind: str = "position", text: str = "the left roof") -> Question:
    return Question(text, ANNOTATED.union_mask([item.id for item in items]), kind=kind)


def test_the_nine_cells() -> None:
    names = [[grid_cell((x, y, x + 30, y + 30), 90, 90) for x in (0, 30, 60)] for y in (0, 30, 60)]
    columns = ("left", "centre", "right")
    assert names == [[f"{row} {column}" for column in columns] for row in ("upper", "middle", "lower")]
    assert grid_cell((-50, 200, -40, 300), 90, 90) == "lower left"  # beyond the image the nearest cell
    assert grid_cell((100, 0, 110, 10), 90, 300) == "upper centre"  # columns are thirds of the width


def test_a_full_trace_names_cell_candidates_what_decides_and_the_choice() -> None:
    text = written(trace_of(question(LEFT), SIZE, ANNOTATED), BRIEF)
    assert text == (
        "<think>I look at the upper left. Roof: [0, 0, 10, 10], [20, 1, 30, 9]. "
        "Its place decides: [0, 0, 10, 10].</think>\n"
        '<answer>```json\n[{"bbox_2d": [0, 0, 10, 10]}]\n```</answer>'
    )
    both = written(trace_of(question(LEFT, RIGHT, kind="class"), SIZE, ANNOTATED), BRIEF)
    assert "upper left, upper right" in both and "decides" not in both  # nothing is left out


def test_a_brief_trace_is_the_cells_alone() -> None:
    text = written(trace_of(question(SHIP), SIZE, ANNOTATED), BRIEF, "cells")
    assert text.startswith("<think>lower centre</think>") and "[10, 20, 20, 30]" in text


def test_what_is_absent_ends_with_an_empty_list() -> None:
    for thought, words in (("full", "Nothing of the kind is there."), ("cells", "nowhere")):
        text = written(trace_of(Question("the ships", np.zeros(SIZE, bool)), SIZE, ANNOTATED), BRIEF, thought)
        assert words in text and parse_answer(text, BRIEF).instances == ()


def test_points_lie_inside_and_apart() -> None:
    ring = np.ones((40, 40), bool)
    ring[8:32, 8:32] = False
    item = AnnotatedObject(0, "track", ring, (20, 30, 60, 70))
    annotated = AnnotatedImage(90, 90, [item])
    trace = trace_of(Question("the track", annotated.union_mask([0])), SIZE, annotated)
    first, second = trace.chosen[0].instance.points
    mask = annotated.union_mask([0])
    assert mask[int(first[1]), int(first[0])] and mask[int(second[1]), int(second[0])]  # never in the hole
    assert np.hypot(first[0] - second[0], first[1] - second[1]) > 30
    assert "positive_points" in written(trace, THINK2SEG)
    with pytest.raises(TraceError, match="points"):
        written(trace_of(Question("it", target=Boxes(((1, 2, 3, 4),)), task="detection"), SIZE), THINK2SEG)


def test_names_go_where_the_template_has_a_place_for_them() -> None:
    assert '"label": "ship"' in written(trace_of(question(SHIP), SIZE, ANNOTATED), GEOVLM)
    description = answer_template("geovlm_description@1")
    assert "<answer>ship\n" in written(trace_of(question(SHIP), SIZE, ANNOTATED), description)


def test_without_an_annotation_the_target_is_all_that_is_quoted() -> None:
    trace = trace_of(question(LEFT, RIGHT), SIZE)
    assert trace.candidates == trace.chosen and len(trace.chosen) == 2
    assert "Candidates: [0, 0, 30, 30], [60, 3, 90, 27]." in written(trace, replace(BRIEF, frame=Frame.resized(90, 90)))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('<think>left</think>\n<answer>```json\n[{"bbox_2d": [0, 0, 10, 9]}]\n```</answer>', "ends with"),
        ("<think>left</think>\n<answer>```json\n[]\n```</answer>", "ends with"),
        ('<think>[1, 1, 9, 9]</think>\n<answer>```json\n[{"bbox_2d": [0, 0, 10, 10]}]\n```</answer>', "quotes the box"),
        ('<answer>```json\n[{"bbox_2d": [0, 0, 10, 10]}]\n```</answer>', "cannot be read"),
    ],
)
def test_a_trace_that_is_not_true_is_refused(answer: str, problem: str) -> None:
    with pytest.raises(TraceError, match=problem):
        check(answer, trace_of(question(LEFT), SIZE, ANNOTATED), BRIEF)


@pytest.mark.parametrize(
    "asked",
    [
        Question("what is it?", target=Text(("a ship",)), task="vqa"),
        Question("it", target=Boxes(((1, 2, 3, 4, 30.0),)), task="detection"),
        Question("half of it", np.pad(np.ones((30, 15), bool), ((0, 60), (0, 75)))),
        Question("all", target=Boxes(tuple((i, i, i + 1, i + 1) for i in range(13))), task="detection"),
    ],
    ids=["words", "rotated", "a part of a thing", "too many"],
)
def test_what_no_trace_can_be_made_of(asked: Question) -> None:
    with pytest.raises(TraceError):
        trace_of(asked, SIZE, ANNOTATED)
    with pytest.raises(ConfigError, match="full, cells"):
        written(trace_of(question(LEFT), SIZE), BRIEF, "long")


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 30)] * 2), min_size=1, max_size=6), st.data())
def test_every_trace_is_true_of_its_image(rows: list[tuple[int, int, int, int]], data: Any) -> None:
    items = [thing(i, f"kind {i % 2}", (x, y, x + w, y + h)) for i, (x, y, w, h) in enumerate(rows)]
    annotated = AnnotatedImage(90, 90, items)
    chosen = data.draw(st.sets(st.integers(0, len(items) - 1), min_size=1))
    mask = annotated.union_mask(chosen)
    trace = trace_of(Question("them", mask, kind="size"), SIZE, annotated)
    drawn = np.zeros(SIZE, bool)
    for one in trace.chosen:
        assert one in trace.candidates
        x0, y0, x1, y1 = map(int, one.instance.box or ())
        drawn[y0:y1, x0:x1] = True
    assert np.array_equal(drawn, mask)
    for template in (BRIEF, RSGROUND, THINK2SEG, GEOVLM):
        written(trace, template)  # which checks itself


@pytest.mark.parametrize("name", ["aerial_mini", "synthetic", "roofs"])
def test_the_data_sets_of_this_package_give_traces(name: str) -> None:
    dataset: Any = build_dataset(name, None, "train")
    made = asked = 0
    for index in range(6):
        sample = dataset[index]
        for one in sample.questions:
            if not isinstance(one.target, Regions):
                continue
            asked += 1
            try:
                written(trace_of(one, sample.image.shape[:2], dataset.annotated(index)), THINK2SEG)
                made += 1
            except SegEarthError:
                pass
    assert asked >= 6 and made / asked > 0.5
