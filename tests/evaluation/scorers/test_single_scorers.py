"""Each scorer by itself, on one answer worked by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scorer_fakes import CLASSES, answered, region

from segearth.errors import DatasetError
from segearth.evaluation.protocols import PROTOCOLS
from segearth.evaluation.scorers import SCORERS
from segearth.structures import Boxes, Choices, Question, Sample, Text

SAMPLE = Sample("image", np.zeros((20, 30, 3), np.uint8), meta={"source": "naip"})
NOTHING = np.zeros((20, 30), bool)


def scored(name, question, answer):
    record = SCORERS[name].score("q", question, answer, SAMPLE, PROTOCOLS["native"])
    assert (record.id, record.image_id, record.question, record.source) == ("q", "image", question.text, "naip")
    again = SCORERS[name].record(**json.loads(json.dumps(asdict(record))))
    assert again.truth == record.truth and again.value == record.value  # as `segearth compare` reads it
    return record


def boxes_answer(*regions):
    mask = NOTHING.copy()
    for one in regions:
        mask |= one.in_image(20, 30)
    return answered("find", mask, regions=tuple(regions))


def test_boxes_are_those_of_the_regions_and_count_one_to_one():
    question = Question("find", task="detection", target=Boxes(((0, 0, 10, 10), (20, 0, 30, 10))))
    record = scored("boxes", question, boxes_answer(region((0, 0, 10, 10), 0.9)))
    assert (record.matched_iou, record.recall, record.precision, record.target) == (0.5, 0.5, 1, "present")
    assert record.confidences == (0.9,)
    metrics = SCORERS["boxes"].summary([record])
    assert (metrics.empty_targets, metrics.f1) == (0, pytest.approx(2 / 3))
    assert metrics.ap50 == pytest.approx(51 / 101)


def test_a_region_without_a_score_has_that_of_the_answer():
    question = Question("find", task="detection", target=Boxes(()))
    record = scored("boxes", question, boxes_answer(region((0, 0, 10, 10))))
    assert (record.confidences, record.value, record.target) == ((0.75,), 0, "absent")
    nothing_found = scored("boxes", question, boxes_answer())
    assert nothing_found.value == 1
    assert SCORERS["boxes"].summary([nothing_found]).ap50 is None


def test_boxes_that_were_written_go_before_those_of_the_regions():
    """A region cannot begin within a pixel, nor be less than one."""
    question = Question("find", task="detection", target=Boxes(((0.5, 0, 10, 10), (3, 3, 3.5, 3.5))))
    answer = boxes_answer(region((0, 0, 10, 10)))
    answer.boxes = ((0.5, 0, 10, 10), (3, 3, 3.5, 3.5))
    record = scored("boxes", question, answer)
    assert record.value == 1 and record.confidences == (0.75, 0.75)
    answer.boxes = ((15, 10, 10, 6, 90),)
    turned = Question("find", task="detection", target=Boxes(((12, 5, 18, 15),)))
    assert scored("boxes", turned, answer).value == pytest.approx(1)


def test_a_description_needs_its_right_words():
    question = Question("describe", task="grounding_description", target=Boxes(((0, 0, 10, 10),)), answer="a ship")
    answer = boxes_answer(region((0, 0, 10, 10)))
    assert scored("descriptions", question, answer).value == 0.5  # it said nothing
    answer.answer = "A ship."
    assert scored("descriptions", question, answer).wording == pytest.approx(1 - 0.5 / 8 / 3)  # two words in one piece
    with pytest.raises(DatasetError, match=r"question q: a grounding description has boxes .* give them, or ask for"):
        scored("descriptions", Question("describe", task=question.task, target=question.target), answer)


def test_a_rotated_target_is_made_upright():
    question = Question("find", task="grounding", target=Boxes(((15, 10, 10, 6, 90),)))
    assert scored("boxes", question, boxes_answer(region((12, 5, 18, 15)))).value == pytest.approx(1)


def test_words_are_held_against_the_nearest_reference():
    question = Question("describe", task="caption", target=Text(("two ships", "ships at a pier")))
    record = scored("captions", question, answered("describe", NOTHING, "Two boats at a pier."))
    assert record.rouge_l == record.value == pytest.approx(2 * 3 / 9)
    assert record.exact == 0
    assert scored("captions", question, answered("describe", NOTHING)).value == 0  # it said nothing


def test_short_answers_count_where_the_words_are_the_same():
    question = Question("is it?", task="vqa", target=Text(("yes",)))
    assert scored("short_answers", question, answered("is it?", NOTHING, "Yes.")).value == 1
    assert scored("short_answers", question, answered("is it?", NOTHING, "yes it is")).value == 0


def test_options_are_read_off_the_answer():
    question = Question("which?", task="classification", target=Choices(CLASSES, ("dense residential", "river")))
    record = scored("choices", question, answered("which?", NOTHING, "Dense residential."))
    assert record.chosen == ("dense residential",)
    assert (record.accuracy, record.precision, record.recall) == (0, 1, 0.5)
    assert record.value == pytest.approx(2 / 3)
    everything = scored("choices", question, answered("which?", NOTHING, ", ".join(CLASSES)))
    assert everything.recall == 1 and everything.value == pytest.approx(2 / 3)
    both = scored("choices", question, answered("which?", NOTHING, "river; dense residential"))
    assert both.value == both.accuracy == 1
    assert SCORERS["choices"].summary([record, both]).macro_f1 == pytest.approx((1 + 2 / 3) / 2)
