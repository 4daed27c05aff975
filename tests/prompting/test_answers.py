from __future__ import annotations

import json
import math
import random
import string
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.prompting.answers import Instance, ParsedAnswer, parse_answer, words_of
from segearth.prompting.templates import ANSWER_TEMPLATES, answer_template

THINK2SEG = answer_template("think2seg@1")
BOXES = replace(answer_template("rsground@1"), tags=(), fenced=False)  # a bare list, to test how things are read
NAMED = replace(answer_template("geovlm@1"), tags=(), fenced=False)
TURNED = replace(answer_template("geovlm_rotated@1"), tags=(), fenced=False, label_key=None)
POINTS = replace(answer_template("think2seg_negatives@1"), tags=(), fenced=False)
CORNERS = answer_template("qwen2_vl@1")
CLASS = answer_template("geovlm_classification@1")

THING = '{"bbox_2d": [10, 20, 30, 40], "positive_points": [[12, 22], [14, 24]]}'
SHIP = Instance((10, 20, 30, 40), None, ((12, 22), (14, 24)), (1, 1))
LISTED = f"```json\n[{THING}]\n```"
PERFECT = f"<think>A ship.</think><answer>{LISTED}</answer>"


def boxes_of(text: str) -> list[tuple[float, ...] | None] | None:
    found = parse_answer(text, BOXES).instances
    return None if found is None else [instance.box for instance in found]


# ---- form: what the rewards of Think2Seg-RS pay for


@pytest.mark.parametrize(
    ("text", "instances", "tags", "json_right"),
    [
        (PERFECT, (SHIP,), True, True),  # with a perfect mask worth 2 + 1 + 1
        (f"<think>A ship.</think><answer>[{THING}]</answer>", (SHIP,), True, False),  # without the fence
        ("<think>None.</think><answer>```json\n[]\n```</answer>", (), True, True),  # nothing is there
        ("There is a ship in the harbour.", None, False, False),  # prose
        ("", None, False, False),
        (f"\n<think>\nA ship.\n</think>\n\n<answer>\n{LISTED}\n</answer>\n", (SHIP,), True, True),
        (PERFECT + " Done.", (SHIP,), False, True),
        ("So: " + PERFECT, (SHIP,), False, True),
        (PERFECT.replace("</think>", "</think> then "), (SHIP,), False, True),
        (PERFECT.replace("answer>", "ANSWER>"), (SHIP,), False, True),
        (PERFECT.replace("</answer>", "</ answer >"), (SHIP,), False, True),
        (f"<answer>{LISTED}</answer><think>A ship.</think>", (SHIP,), False, True),
        (f"<answer>{LISTED}</answer>", (SHIP,), False, True),
        (f"<think>A ship.</think>{LISTED}", (SHIP,), False, True),
        (f"A ship.</think><answer>{LISTED}</answer>", (SHIP,), False, True),
        (f"<think>A ship.<answer>{LISTED}", (SHIP,), False, True),
        (f"<think>A ship.</think>{LISTED}</answer>", (SHIP,), False, True),
        (f"<answer>```json\n[]\n```</answer>{PERFECT}", (SHIP,), False, True),  # the last pair counts
        (f"<think>Not <answer>[]</answer> yet.</think><answer>{LISTED}</answer>", (SHIP,), False, True),
        (f"{PERFECT}<answer>", (SHIP,), False, True),  # begun again and cut off
        (f"<think>A ship at [{THING}] and", None, False, False),  # a thought that never ends is no answer
    ],
)
def test_form(text: str, instances: object, tags: bool, json_right: bool) -> None:
    answer = parse_answer(text, THINK2SEG)
    assert (answer.instances, answer.tags_are_right, answer.json_is_right) == (instances, tags, json_right)
    assert answer.text == text
    assert (answer.problems == ()) == (tags and json_right)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        (PERFECT, "A ship."),
        (f"A ship.</think><answer>{LISTED}</answer>", "A ship."),
        (f"<think>A ship.<answer>{LISTED}", "A ship."),
        ("<think>A ship", "A ship"),
        (LISTED, None),
    ],
)
def test_thought(text: str, thought: str | None) -> None:
    assert parse_answer(text, THINK2SEG).thought == thought


@pytest.mark.parametrize(
    "answer",
    [
        f"```\n[{THING}]\n```",
        f"```JSON\n[{THING}]\n```",
        f"```json\n[{THING}]",
        f"```json\n[{THING}]\n``` Done.",
        f"Here: ```json\n[{THING}]\n```",
        f"```json\n[]\n```\n```json\n[{THING}]\n```",  # the last list counts
        f"```json\n{THING}\n```",
        f"```json\n[[{THING}]]\n```",
        f"```json\n[{THING},]\n```",
        f"```json\n[{THING}\n```",
        "```json\n[" + THING.replace('"', "'") + "]\n```",
        "```json\n[" + THING.replace("}", ', "score": NaN}') + "]\n```",
        "```json\n[" + THING.replace("20", '"20"') + "]\n```",
        "```json\n[" + THING.replace("10, 20, 30, 40", "30, 40, 10, 20") + "]\n```",
    ],
)
def test_json_that_is_not_right_but_readable(answer: str) -> None:
    read = parse_answer(f"<think>A ship.</think><answer>{answer}</answer>", THINK2SEG)
    assert (read.instances, read.tags_are_right, read.json_is_right) == ((SHIP,), True, False)
    assert read.problems


def test_a_template_without_tags_or_fence_asks_for_none() -> None:
    box = '[{"bbox_2d": [1, 2, 3, 4]}]'
    assert parse_answer(box, BOXES).problems == ()
    tagged, fenced = parse_answer(f"<answer>{box}</answer>", BOXES), parse_answer(f"```json\n{box}\n```", BOXES)
    assert (tagged.instances, tagged.tags_are_right, tagged.json_is_right) == (fenced.instances, False, True)
    assert (fenced.tags_are_right, fenced.json_is_right) == (True, False)


# ---- things


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [3, 4, 1, 2]}]', [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [3, 2, 1, 4]}]', [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [1, "2", 3, " 4.5 "]}]', [(1, 2, 3, 4.5)]),
        ('[{"bbox_2d": ["left", 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]', [(5, 6, 7, 8)]),
        ('[{"bbox_2d": [NaN, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]', [(5, 6, 7, 8)]),
        ('[{"bbox_2d": ["nan", 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]', [(5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, Infinity, 4]}]', None),
        ('[{"bbox_2d": [1, 2, 1e999, 4]}]', None),
        ('[{"bbox_2d": [1, 2, true, 4]}]', None),
        ('[{"bbox_2d": [1, 2, null, 4]}]', None),
        ('[{"bbox_2d": [1, 2, 3]}]', None),
        ('[{"bbox_2d": [1, 2, 3, 4, 5]}]', None),
        ('[{"bbox_2d": "1, 2, 3, 4"}]', None),
        ('[{"bbox_2d": [-1e300, 2, 3, 4e20]}]', [(-1e9, 2, 3, 1e9)]),
        (f'[{{"bbox_2d": [1, 2, 3, {"9" * 5000}]}}]', None),
        (f'[{{"bbox_2d": [1, 2, {"9" * 329}e5, 4]}}]', None),
        ('[{"bbox_2d": [[1, 2], [3, 4]]}]', [(1, 2, 3, 4)]),
        ('[{"bbox": [1, 2, 3, 4]}, {"box": [5, 6, 7, 8]}]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('{"bbox_2d": [1, 2, 3, 4]}', [(1, 2, 3, 4)]),
        ('{"bbox_2d": [1, 2, 3, 4]}\n{"bbox_2d": [5, 6, 7, 8]}', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('{"objects": [{"bbox_2d": [1, 2, 3, 4]}], "count": 1}', [(1, 2, 3, 4)]),
        ('[[{"bbox_2d": [1, 2, 3, 4]}], [{"bbox_2d": [5, 6, 7, 8]}]]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("[1, 2, 3, 4]", [(1, 2, 3, 4)]),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("The ship is at [1, 2, 3, 4].", [(1, 2, 3, 4)]),
        ("(1, 2), (3, 4)", [(1, 2, 3, 4)]),
        ("[(1, 2), (3, 4)]", [(1, 2, 3, 4)]),
        ('As in [1]: [{"bbox_2d": [1, 2, 3, 4]}]', [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [1, 2, 3, 4]}] or rather [{"bbox_2d": [5, 6, 7, 8]}]', [(5, 6, 7, 8)]),
        ('[null, 7, "ship", {"bbox_2d": [1, 2, 3, 4]}]', [(1, 2, 3, 4)]),
        ("[]", []),
        ("The answer is []", []),
        ("[", None),
        ("[{}]", None),
        ("{}", None),
        ("[[[]]]", None),
        ('{"objects": []}', None),
        ('["left", "right"]', None),
        ("null", None),
        ("12", None),
        ('"[]', []),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8', [(1, 2, 3, 4)]),  # 8 may be the begin of 800
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
    ],
)
def test_boxes(text: str, boxes: list[tuple[float, ...]] | None) -> None:
    assert boxes_of(text) == boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[{'bbox_2d': [1, 2, 3, 4]}]", [(1, 2, 3, 4)]),
        ("[{bbox_2d: [1, 2, 3, 4]}]", [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [1 2 3 4]} {"bbox_2d": [5,,6, 7, 8,],},]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4}, {"bbox_2d": [5, 6, 7, 8]}]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4]}}, {"bbox_2d": [5, 6, 7, 8]}]', [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1., .5, +3, 4e0]}]', [(1, 0.5, 3, 4)]),
        ("[{'label': 'the ship's bow', 'bbox_2d': [1, 2, 3, 4]}]", [(1, 2, 3, 4)]),
        ("[{'label': it's, 'bbox_2d': [1, 2, 3, 4]}]", [(1, 2, 3, 4)]),  # the box's key is now "s, 'bbox_2d"
        ("[{'label': it's,\n 'bbox_2d': [1, 2, 3, 4]}]", [(1, 2, 3, 4)]),
        ('[{"label": "a \\" b", "bbox_2d": [1, 2, 3, 4],}]', [(1, 2, 3, 4)]),
        ('[{"label": , "bbox_2d": [1, 2, 3, 4]}]', [(1, 2, 3, 4)]),
        ('[{"bbox_2d": (1, 2, 3, 4)}]', [(1, 2, 3, 4)]),
        ('[{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}]', [(5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4], [5, 6]: 7}]', [(1, 2, 3, 4)]),
        ('[True, {"bbox_2d": [1, 2, 3, 4]}, None]', [(1, 2, 3, 4)]),
    ],
)
def test_broken_json(text: str, boxes: list[tuple[float, ...]] | None) -> None:
    assert boxes_of(text) == boxes


def test_what_is_mended_is_said() -> None:
    text = '[{"bbox_2d": [3, 4, 1, "2"], "label": 7}, {"bbox_2d": ["left", 2, 1e12, 4], "label": "a"}]'
    assert parse_answer(text, NAMED).problems == (
        "box of thing 1: the text '2' taken for a number",
        "box of thing 1: corners exchanged",
        "label of thing 1: 7.0 is no text",
        "box of thing 2: 'left' is no number, left out",
        "box of thing 2: 1e+12 cut at 1e+09",
        "thing 2 says nowhere where it is: left out",
    )
    assert parse_answer('[{"bbox_2d": [1, 2, 3, 4]}]', NAMED).problems == ("thing 1 has no label",)
    assert parse_answer('[{"label": "ship"}]', NAMED).problems == (
        "thing 1 has no bbox_2d", "thing 1 says nowhere where it is: left out",
    )  # fmt: skip
    long = parse_answer(f'[{{"bbox_2d": [1, 2, 3, "{"4" * 60}"], "label": "a"}}]', NAMED).problems
    assert long[0] == f"box of thing 1: the text '{'4' * 30}' taken for a number"


@pytest.mark.parametrize(
    ("points", "expected", "labels"),
    [
        ('"positive_points": [[1, 2]], "negative_points": [[3, 4], [5, 6]]', ((1, 2), (3, 4), (5, 6)), (1, 0, 0)),
        ('"positive_points": [1, 2, 3, 4], "negative_points": []', ((1, 2), (3, 4)), (1, 1)),
        ('"positive_points": [1, 2, 3], "negative_points": []', ((1, 2),), (1,)),
        ('"positive_points": [[1, 2], [3], ["x", 4], [5, "6"], 7], "negative_points": []', ((1, 2), (5, 6)), (1, 1)),
        ('"positive_points": {"x": 1}', (), ()),
        ('"positive_points": [[NaN, 1]]', (), ()),
    ],
)
def test_points(points: str, expected: tuple, labels: tuple) -> None:
    answer = parse_answer(f'[{{"bbox_2d": [1, 2, 3, 4], {points}}}]', POINTS)
    assert answer.instances == (Instance((1, 2, 3, 4), None, expected, labels),)


def test_a_thing_may_have_points_alone() -> None:
    assert parse_answer('[{"positive_points": [[1, 2]]}]', POINTS).instances == (
        Instance(points=((1, 2),), point_labels=(1,)),
    )
    assert parse_answer('[{"negative_points": [[1, 2]]}]', POINTS).instances is None
    many = parse_answer(json.dumps([{"positive_points": [[1, 2]] * 65}]), POINTS)
    assert many.instances is not None and len(many.instances[0].points) == 64
    assert "points of thing 1: those after the first 64 are left out" in many.problems


def test_rotated_boxes() -> None:
    right = '[{"rbox_2d": [1, 2, 3, 4, 95]}, {"rbox_2d": [1, 2, -3, 4, 0]}, [9, 8, 7, 6, 5], {"rbox_2d": [1, 2, 3, 4]}]'
    found = parse_answer(right, TURNED).instances
    assert found is not None
    assert [thing.rotated_box for thing in found] == [(1, 2, 3, 4, 95), (1, 2, 3, 4, 0), (9, 8, 7, 6, 5)]
    assert parse_answer('[{"rbox_2d": [1, 2, 3, 4, 95]}]', TURNED).problems == ()


def test_labels() -> None:
    def label(written: str) -> str | None:
        found = parse_answer(f'[{{"bbox_2d": [1, 2, 3, 4], "label": {written}}}]', NAMED).instances
        assert found is not None
        return found[0].label

    assert label('"gr\\u00fcnes Boot 🚤"') == "grünes Boot 🚤"
    assert label('"gr\\u00fcn\tes Boot"') == "grün\tes Boot"  # JSON wants the tab escaped
    assert label("'gr\\u00fcn'") == "gr\\u00fcn"
    assert label('"\\ud83d"') == "?"  # half a character, which no file could hold
    assert label("7") == "7.0"
    assert label('["ship"]') is label("null") is None
    assert label(f'"{"x" * 300}"') == "x" * 200


@pytest.mark.parametrize(
    ("text", "boxes", "right"),
    [
        ("(1,2),(3,4)", [(1, 2, 3, 4)], True),
        ("(1,2),(3,4)\n( 5 , 6.5 ) (7, 8)", [(1, 2, 3, 4), (5, 6.5, 7, 8)], True),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", [(1, 2, 3, 4)], False),
        ("ship (1,2),(3,4).", [(1, 2, 3, 4)], False),
        ("(3,4),(1,2)", [(1, 2, 3, 4)], False),
        ("none", [], True),
        ("None.", [], False),
        ("[]", [], False),
        ('[{"bbox_2d": [1, 2, 3, 4]}]', [(1, 2, 3, 4)], False),
        ("(1,2)", None, False),
        ("(1,2),(left,4)", None, False),
        ("nothing there", None, False),
        (f"(1,2),(3,{'4' * 30})", None, False),
    ],
)
def test_corners(text: str, boxes: list | None, right: bool) -> None:
    answer = parse_answer(text, CORNERS)
    assert (answer.instances and [thing.box for thing in answer.instances]) == (boxes if boxes != [] else ())
    assert answer.json_is_right == right


def test_words() -> None:
    answer = parse_answer("<think>Cranes.</think><answer> Harbor\n</answer>", CLASS)
    assert (answer.answer, answer.instances, answer.problems) == ("Harbor", None, ())
    assert parse_answer("Harbor", CLASS).answer == "Harbor"
    assert parse_answer("<think>Cranes.</think> Harbor", CLASS).answer == "Harbor"
    described = answer_template("geovlm_description@1")
    answer = parse_answer(f"<think>A ship.</think><answer>A ship.\n{LISTED}</answer>", described)
    assert words_of(answer.answer) == "A ship."
    assert words_of("A ship. ```json\n[]\n``` It is moored.") == "A ship. It is moored."
    assert answer.instances == (replace(SHIP, points=(), point_labels=()),)


# ---- limits


def test_too_many_things() -> None:
    thing = '{"bbox_2d": [1, 2, 3, 4]}'
    for text in (f"[{', '.join([thing] * 5000)}]", f"[{' '.join([thing] * 5000)}]", "(1,2),(3,4) " * 5000):
        answer = parse_answer(text, BOXES)
        assert answer.instances is not None and len(answer.instances) == 1000
        assert any("1000" in problem for problem in answer.problems)


def test_too_many_values() -> None:
    assert "more than 100000 values: the rest is left out" in parse_answer("[" + "1 " * 100_001, BOXES).problems


def test_problems_are_counted_beyond_the_first() -> None:
    problems = parse_answer("[" + '{"bbox_2d": ["x", 2, 3, 4]},' * 50 + "]", BOXES).problems
    # Besides the two of each thing: JSON with a comma too many.
    assert len(problems) == 21 and problems[-1] == "and 81 more"


def test_nesting() -> None:
    box = "[1, 2, 3, 4]"
    assert boxes_of("[" * 20 + box + "]" * 20) == [(1, 2, 3, 4)]
    assert boxes_of("[" * 20 + box + "," + "]" * 20) == [(1, 2, 3, 4)]  # a comma too many
    assert boxes_of("[" * 500 + box + "]" * 500) == [(1, 2, 3, 4)]  # valid JSON
    assert boxes_of("[" * 100_000 + box + "]" * 100_000) is None
    assert boxes_of("[" * 500 + box + "," + "]" * 500 + ' [{"bbox_2d": [5, 6, 7, 8]}]') == [(5, 6, 7, 8)]


@pytest.mark.parametrize(
    "piece",
    [
        "[", "[{", "{}", "[]", "['", "'a", "' ", '["', "\\", '\\"', "\\'", "9", "1.", "1e", "-", "[1,2],", "}", "a ",
        "\n'", "<", "<think>", "<answer>", "</answer>", "```", "```json[", "(1,2),", "(1,2),(3,4)", " ", "<  ", "(",
        "[(", '{"a":', '"a":[', ",", "\ud800",
    ],
)  # fmt: skip
def test_a_long_text_is_read_in_time_in_proportion_to_its_length(piece: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        for template in (THINK2SEG, CORNERS):
            parse_answer("[" + piece * (length // len(piece)), template)
        return time.process_time() - begin

    # Eight times the text may take 32 times the time, for a busy machine; a quadratic reader would take 64 times, and
    # not in one try of five alone.
    assert any(seconds(80_000) < 32 * max(seconds(10_000), 0.02) for _ in range(5))


def check(answer: ParsedAnswer, text: str) -> None:
    assert answer.text == text
    assert len(answer.problems) <= 21
    if answer.tags_are_right and answer.json_is_right:
        assert answer.problems == () or answer.instances is None
    for thing in answer.instances or ():
        assert thing.box is not None or thing.rotated_box is not None or 1 in thing.point_labels
        assert len(thing.points) == len(thing.point_labels) <= 128
        places = [thing.box or (), thing.rotated_box or (), *thing.points]
        numbers = [number for place in places for number in place]
        assert all(type(number) is float and math.isfinite(number) and abs(number) <= 1e9 for number in numbers)
        if thing.box is not None:
            assert thing.box[0] <= thing.box[2] and thing.box[1] <= thing.box[3]
        if thing.label is not None:
            assert len(thing.label) <= 200 and thing.label.encode()


PIECES = [
    *'[]{}(),:"\'`<>/\\ \n\t-+.eE0123456789', "```", "```json\n", "<think>", "</think>", "<answer>", "</answer>", "<",
    "</", '"bbox_2d": ', '"rbox_2d": ', '"positive_points": ', '"negative_points": ', '"label": ', "bbox", THING,
    LISTED, "NaN", "-Infinity", "1e999", "true", "null", "None", "left", "it's", "9" * 400, "[[", "]]", "[{", "}]",
    "(1,2),(3,4)", "\ud800", "\udfff", "森", "🌲", "\x00", "\u2028", "\\ud83d", "\\u12", "<|im_end|>", "[1, 2, 3, 4]",
    "none",
]  # fmt: skip


def fuzzed(generator: random.Random) -> str:
    """A text of one of three kinds: pieces in any order, a good answer with some damage, or any characters."""
    kind = generator.random()
    if kind < 0.5:
        return "".join(generator.choices(PIECES, k=generator.randrange(60)))
    if kind < 0.9:
        text = list(PERFECT)
        for _ in range(generator.randrange(1, 12)):
            place = generator.randrange(len(text) + 1)
            text[place : place + generator.randrange(4)] = generator.choice(PIECES)
        return "".join(text[: generator.randrange(len(text))] if generator.random() < 0.3 else text)
    anything = generator.choices(string.printable, k=40) + [chr(generator.randrange(0x110000)) for _ in range(40)]
    return "".join(generator.choices(anything, k=generator.randrange(200)))


def fuzz(count: int, seed: int) -> None:
    generator, templates = random.Random(seed), list(ANSWER_TEMPLATES.values())
    for _ in range(count):
        text = fuzzed(generator)
        check(parse_answer(text, generator.choice(templates)), text)


def test_three_thousand_fuzzed_texts() -> None:
    fuzz(3000, seed=0)


@pytest.mark.slow
def test_a_hundred_thousand_fuzzed_texts_within_a_minute() -> None:
    begin = time.perf_counter()
    fuzz(100_000, seed=1)
    assert time.perf_counter() - begin < 60


@settings(max_examples=50)
@given(st.text(), st.sampled_from(list(ANSWER_TEMPLATES)))
def test_any_text(text: str, name: str) -> None:
    check(parse_answer(text, answer_template(name)), text)


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.sampled_from(["bbox_2d", "box", "rbox_2d", "positive_points", "label"]), inner, max_size=4),
))  # fmt: skip
def test_any_json(value: object) -> None:
    text = json.dumps(value)
    for template in (BOXES, POINTS, TURNED, CORNERS):
        check(parse_answer(text, template), text)
