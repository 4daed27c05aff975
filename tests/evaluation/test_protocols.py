from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segearth.errors import DatasetError, UnknownNameError
from segearth.evaluation.protocols import (
    PROTOCOLS,
    EvaluationProtocol,
    ask,
    get_protocol,
    scored_questions,
)
from segearth.structures import Boxes, Question, Sample, Segmentation

NATIVE, PUBLISHED = PROTOCOLS["native"], PROTOCOLS["segearth_r1"]
FRAME_8 = EvaluationProtocol("frame_8", "compared in 8x8", frame_size=8)


def sample_of(*questions):
    return Sample("tile", np.zeros((2, 4, 3), np.uint8), list(questions))


def asked(text, id="", mask=True):
    return Question(text, np.zeros((2, 4), bool) if mask else None, id=id)


def answered(mask, frame_mask=None):
    return Segmentation("roofs", mask, 1.0, True, 1.0, frame_mask=frame_mask)


def test_native_asks_all_and_the_published_protocol_the_first():
    sample = sample_of(asked("roofs", "a"), asked("roads", "b"))
    assert list(scored_questions(sample, NATIVE)) == ["a", "b"]
    assert list(scored_questions(sample, PUBLISHED)) == ["a"]
    assert scored_questions(sample, NATIVE)["b"] is sample.questions[1]


def test_what_has_no_mask_is_not_scored_and_nothing_takes_its_place():
    sample = sample_of(asked("roofs", "a", mask=False), asked("roads", "b"))
    assert list(scored_questions(sample, NATIVE)) == ["b"]
    assert scored_questions(sample, PUBLISHED) == {}  # the second question is not the first


def test_a_question_without_an_id_is_called_after_its_place():
    sample = sample_of(asked("roofs", mask=False), asked("roads"), asked("trees", "own"), asked("cars"))
    assert list(scored_questions(sample, NATIVE)) == ["tile#1", "own", "tile#3"]


def test_native_leaves_a_mask_as_it_is():
    mask = np.eye(3, 5, dtype=bool)
    assert NATIVE.to_frame(mask) is mask
    assert NATIVE.frame_size is None


def test_a_mask_is_centred_in_a_square_of_zeros():
    """2 x 4 pixels become 4 x 8, two rows of padding above and two below; each pixel becomes four."""
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], bool)
    expected = np.zeros((8, 8), bool)
    expected[2:6] = mask.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(FRAME_8.to_frame(mask), expected)
    assert np.array_equal(FRAME_8.to_frame(mask.T), expected.T)


def test_a_shrunken_target_takes_the_nearest_pixel():
    """Of 16 x 16 pixels every second is kept; an average would keep or drop whole pairs."""
    mask = np.zeros((16, 16), bool)
    mask[::2, ::2] = True
    assert FRAME_8.to_frame(mask).all()
    assert not FRAME_8.to_frame(~mask).any()


def test_a_letterboxed_answer_is_compared_as_the_model_thresholded_it():
    """Resizing the finished mask into the frame would move its contour; the frame's own mask is taken where there is
    one of the protocol's size."""
    mask = np.ones((2, 4), bool)
    frame = np.zeros((8, 8), bool)
    frame[0, 0] = True  # in the padding, where no finished mask can be
    assert FRAME_8.predicted(answered(mask, frame)) is frame
    assert NATIVE.predicted(answered(mask, frame)) is mask
    for other in (None, np.zeros((4, 4), bool), np.zeros((8, 4), bool)):
        assert np.array_equal(FRAME_8.predicted(answered(mask, other)), FRAME_8.to_frame(mask))
    assert FRAME_8.to_frame(mask).sum() == 32


def test_the_published_frame():
    assert (PUBLISHED.frame_size, PUBLISHED.first_question_only) == (1024, True)
    assert PUBLISHED.to_frame(np.ones((32, 48), bool)).sum() == 1024 * 682


def test_only_wordings_and_tasks_are_asked_and_answers_come_back_by_image():
    class Noting:
        def predict(self, questions, **options):
            self.seen = questions, options
            return [f"about {text}" for text in questions]

    predictor = Noting()
    needs = Question("where to land?", np.ones((2, 2), bool), "at the pier", task="reasoning", kind="need", id="n")
    rows = [[Question("roofs"), needs], [], iter([Question("roads")])]
    assert ask(predictor, rows) == [["about roofs", "about where to land?"], [], ["about roads"]]
    tasks = ["referring", "reasoning", "referring"]
    assert predictor.seen == (["roofs", "where to land?", "roads"], {"task": tasks, "about": [0, 0, 2]})
    ask(predictor, [[replace(needs, pairs=("side 1",))]])
    assert predictor.seen[1]["return_logits"] is True  # only logits tell pairs apart


def test_a_target_that_cannot_be_scored_is_refused_and_not_passed_over():
    boxes = Question("ships", target=Boxes(((0, 0, 2, 2),)), id="s")
    with pytest.raises(DatasetError, match="question 's': task 'referring' takes a target of Regions, not Boxes"):
        scored_questions(sample_of(asked("roofs"), boxes), NATIVE)
    with pytest.raises(UnknownNameError, match=r"unknown task 'refering'; did you mean 'referring' or "):
        scored_questions(sample_of(Question("ships", task="refering")), NATIVE)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_is_found_by_name_and_says_what_it_does(name):
    assert get_protocol(name).name == name
    assert "Both empty: IoU 1." in get_protocol(name).rule
    assert "Pr@t: IoU > t" in get_protocol(name).rule


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"evaluation protocol 'natve'.*did you mean 'native'"):
        get_protocol("natve")
