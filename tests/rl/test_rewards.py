"""The formulas; presets and batches are in test_reward_batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from segearth.errors import ConfigError, RewardError, UnknownNameError
from segearth.metrics.matching import average_precision
from segearth.prompting.answers import Instance, ParsedAnswer
from segearth.rl.rewards.places import (
    boxes_of_answer,
    boxes_of_target,
    detection_reward,
    instances_to_segment,
    mask_iou_reward,
    positional_reward,
)
from segearth.rl.rewards.settings import DETECTION_SCORES, RewardSettings
from segearth.rl.rewards.wording import (
    caption_reward,
    grounding_description_reward,
    hybrid_caption_reward,
    lexical_score,
    multi_label_reward,
    short_answer_reward,
    single_label_reward,
)
from segearth.structures import Boxes, Choices, Regions, Text

SIZE = (100, 100)
BOX, FAR = (10, 10, 30, 30), (60, 60, 80, 80)
pure = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(1, 20), st.integers(1, 20))
boxes = st.lists(sides.map(lambda s: (s[0], s[1], s[0] + s[2], s[1] + s[3])), max_size=5)
some_boxes = boxes.filter(bool)
different_boxes = st.sets(sides.map(lambda s: (s[0], s[1], s[0] + s[2], s[1] + s[3])), min_size=1, max_size=5).map(
    lambda found: Boxes(tuple(found))
)
shapes = st.sampled_from(["exp", "gaussian", "linear"])


def square(x0: int, y0: int, side: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


# Masks


def test_the_mask_of_an_answer_is_scored_by_its_iou(pointing):
    target = Regions(square(0, 0, 10))
    assert mask_iou_reward(pointing([BOX]), target, square(0, 0, 10)) == 1
    assert mask_iou_reward(pointing([BOX]), target, square(5, 0, 10)) == pytest.approx(50 / 150)


def test_absence_is_scored_by_what_the_answer_says_not_by_the_mask(pointing):
    nothing, something = Regions(np.zeros((20, 20), bool)), Regions(square(0, 0, 10))
    assert mask_iou_reward(pointing([]), nothing, None) == 1
    assert mask_iou_reward(pointing([BOX]), nothing, np.zeros((20, 20), bool)) == 0
    assert mask_iou_reward(pointing([]), something, None) == 0


def test_an_answer_that_was_mended_counts_where_that_is_asked_for(pointing):
    target, lenient = Regions(square(0, 0, 10)), RewardSettings(mended_answers_count=True)
    mended, nothing = pointing([BOX], json=False), Regions(np.zeros((20, 20), bool))
    assert mask_iou_reward(mended, target, square(0, 0, 10)) == 0
    assert mask_iou_reward(mended, target, square(0, 0, 10), lenient) == 1
    assert mask_iou_reward(pointing([], json=False), nothing, None) == 0
    assert mask_iou_reward(pointing([], json=False), nothing, None, lenient) == 1
    assert mask_iou_reward(pointing(None, json=False), target, None, lenient) == 0


def test_the_segmenter_is_asked_only_where_its_mask_decides(pointing):
    target, nothing = Regions(square(0, 0, 10)), Regions(np.zeros((20, 20), bool))
    assert instances_to_segment(pointing([BOX]), target) == (Instance(box=BOX),)
    for answer, other in [
        (pointing([BOX]), nothing), (pointing([]), target), (pointing(None), target),
        (pointing([BOX], json=False), target), (pointing([BOX]), Boxes((BOX,))), (pointing([BOX]), None),
    ]:  # fmt: skip
        assert instances_to_segment(answer, other) == ()
    lenient = RewardSettings(mended_answers_count=True)
    assert instances_to_segment(pointing([BOX], json=False), target, lenient) == (Instance(box=BOX),)


def test_a_missing_mask_and_one_of_another_size_are_errors(pointing):
    with pytest.raises(RewardError, match="ask the segmenter"):
        mask_iou_reward(pointing([BOX]), Regions(square(0, 0, 10)), None)
    with pytest.raises(ValueError, match="shape"):
        mask_iou_reward(pointing([BOX]), Regions(square(0, 0, 10)), square(0, 0, 10, size=30))


# Where boxes lie


def test_the_positional_reward_of_the_worked_example(pointing):
    """An image of 100 x 100, centres 25 px apart in x, σ 0.25."""
    answer, target = pointing([(35, 10, 55, 30)]), Boxes((BOX,))
    assert positional_reward(answer, target, SIZE) == pytest.approx(0.367879, abs=1e-6)
    gaussian, linear = (RewardSettings(positional_shape=name) for name in ("gaussian", "linear"))
    assert positional_reward(answer, target, SIZE, gaussian) == pytest.approx(math.exp(-0.5))
    assert positional_reward(answer, target, SIZE, linear) == 0
    wide = RewardSettings(positional_shape="linear", positional_sigma=0.5)
    assert positional_reward(answer, target, SIZE, wide) == 0.5
    assert positional_reward(answer, target, (100, 200)) == pytest.approx(math.exp(-0.5))


@given(different_boxes, shapes)
@pure
def test_the_right_boxes_have_the_highest_positional_reward(pointing, target, shape):
    assert positional_reward(pointing(target.values), target, SIZE, RewardSettings(positional_shape=shape)) == 1


@given(st.integers(0, 900), st.integers(1, 50), st.floats(0, 2 * math.pi), st.sampled_from(["exp", "gaussian"]))
@pure
def test_without_overlap_there_is_still_a_signal_and_it_falls_with_distance(pointing, near, more, angle, shape):
    target = Boxes(((450, 450, 460, 460),))
    rule = RewardSettings(positional_shape=shape)

    def worth(distance: float) -> float:
        x, y = 455 + distance * math.cos(angle), 455 + distance * math.sin(angle)
        value = positional_reward(pointing([(x - 5, y - 5, x + 5, y + 5)]), target, (1000, 1000), rule)
        assert value is not None
        return value

    assert 1 >= worth(near) > worth(near + more) > 0
    if near > 20:
        assert detection_reward(pointing([(455 + near, 450, 465 + near, 460)]), target) == 0


def test_boxes_too_many_and_too_few_cost_position(pointing):
    target = Boxes((BOX, FAR))
    apart = math.exp(-math.hypot(0.5, 0.5) / 0.25)
    assert positional_reward(pointing([BOX]), target, SIZE) == pytest.approx(0.5)
    assert positional_reward(pointing([BOX, FAR, BOX]), target, SIZE) == pytest.approx(2 / 3)
    assert positional_reward(pointing([BOX, BOX]), target, SIZE) == pytest.approx(0.5)  # the copy is paired with none
    assert positional_reward(pointing([FAR]), Boxes((BOX,)), SIZE) == pytest.approx(apart)


def test_nothing_there_has_no_position_and_no_answer_has_the_floor(pointing):
    assert positional_reward(pointing([BOX]), Boxes(()), SIZE) is None
    assert positional_reward(pointing([]), Boxes((BOX,)), SIZE) == 0
    assert positional_reward(pointing(None), Boxes((BOX,)), SIZE) == 0


def test_a_thing_of_points_lies_at_the_mean_of_the_inner_ones():
    def answer(*things: Instance) -> ParsedAnswer:
        return ParsedAnswer("", "", "", things, True, True)

    points = Instance(points=((10, 10), (30, 30), (90, 90)), point_labels=(1, 1, 0))
    unlabelled = Instance(points=((15, 20), (25, 20)))
    outside = Instance(points=((20, 20),), point_labels=(0,))
    rotated = Instance(rotated_box=(20, 20, 10, 20, 90))
    np.testing.assert_allclose(boxes_of_answer(answer(points, unlabelled)), [[20, 20, 20, 20]] * 2)
    np.testing.assert_allclose(boxes_of_answer(answer(rotated)), [[10, 15, 30, 25]])
    assert np.isnan(boxes_of_answer(answer(outside))).all()
    assert positional_reward(answer(points), Boxes((BOX,)), SIZE) == 1
    assert positional_reward(answer(outside), Boxes((BOX,)), SIZE) == 0
    assert detection_reward(answer(points), Boxes((BOX,))) == 0


def test_targets_of_every_kind_have_upright_boxes():
    one, other = square(0, 0, 5), square(10, 10, 5)
    expected = [[0, 0, 5, 5], [10, 10, 15, 15]]
    np.testing.assert_allclose(boxes_of_target(Regions.of_masks([one, other])), expected)
    np.testing.assert_allclose(boxes_of_target(Regions(one | other)), expected)
    given_boxes = Regions(one, Regions.of_masks([one]).regions, ((1, 1, 4, 4),))
    np.testing.assert_allclose(boxes_of_target(given_boxes), [[1, 1, 4, 4]])
    np.testing.assert_allclose(boxes_of_target(Boxes(((20, 20, 10, 20, 90),))), [[10, 15, 30, 25]])
    assert boxes_of_target(Regions(np.zeros((4, 4), bool))).shape == (0, 4)
    assert boxes_of_target(Text(("a",))) is boxes_of_target(None) is None


# How boxes fit


@pytest.mark.parametrize("score", DETECTION_SCORES)
def test_detection_of_the_worked_examples(pointing, score):
    rule = RewardSettings(detection_score=score)
    half = detection_reward(pointing([BOX]), Boxes((BOX, FAR)), rule)  # two targets, one perfect box
    # COCO reads precision, which is 1, at 51 of 101 recalls.
    assert half == (0.5 if score in ("matched_iou", "recall") else pytest.approx(51 / 101))
    assert detection_reward(pointing([]), Boxes(()), rule) == 1
    assert detection_reward(pointing([BOX]), Boxes(()), rule) == 0
    assert detection_reward(pointing([]), Boxes((BOX,)), rule) == 0
    assert detection_reward(pointing(None), Boxes((BOX,)), rule) == 0
    assert detection_reward(pointing(None), Boxes(()), rule) == 0


def test_what_the_detection_scores_tell_apart(pointing):
    target, answer = Boxes((BOX,)), pointing([FAR, (10, 10, 30, 24)])  # the second one has an IoU of 0.7
    values = {name: detection_reward(answer, target, RewardSettings(detection_score=name)) for name in DETECTION_SCORES}
    assert values == {
        "matched_iou": pytest.approx(0.35), "recall": 1, "ap50": 0.5,
        "ap": pytest.approx(0.5 * 5 / 10),  # 0.70 itself is reached
    }  # fmt: skip
    assert detection_reward(answer, target, RewardSettings(detection_score="recall", match_iou=0.75)) == 0


def test_average_precision_takes_the_order_of_writing_for_confidence(pointing):
    rule, target = RewardSettings(detection_score="ap50"), Boxes((BOX,))
    assert detection_reward(pointing([BOX, FAR]), target, rule) == 1
    assert detection_reward(pointing([FAR, BOX]), target, rule) == average_precision([[[0.0], [1.0]]], [[0, 0]]) == 0.5


@given(boxes, different_boxes, st.randoms(), shapes, st.sampled_from(["matched_iou", "recall"]))
@pure
def test_neither_the_order_of_boxes_nor_that_of_targets_counts(pointing, answer, target, random, shape, score):
    rule = RewardSettings(positional_shape=shape, detection_score=score)
    mixed, others = list(answer), list(target.values)
    random.shuffle(mixed)
    random.shuffle(others)
    for reward in (lambda a, t: positional_reward(a, t, SIZE, rule), lambda a, t: detection_reward(a, t, rule)):
        value = reward(pointing(answer), target)
        assert 0 <= value <= 1
        assert reward(pointing(mixed), Boxes(tuple(others))) == pytest.approx(value)


@given(some_boxes, different_boxes, st.data(), st.sampled_from(DETECTION_SCORES))
@pure
def test_writing_a_box_again_never_helps(pointing, answer, target, data, score):
    again = list(answer)
    again.insert(data.draw(st.integers(0, len(answer))), data.draw(st.sampled_from(answer)))
    rule = RewardSettings(detection_score=score)
    assert detection_reward(pointing(again), target, rule) <= detection_reward(pointing(answer), target, rule) + 1e-12
    position = [positional_reward(pointing(each), target, SIZE) for each in (answer, again)]
    assert position[1] <= position[0] + 1e-12


@pytest.mark.parametrize("score", DETECTION_SCORES)
def test_a_copy_does_not_stand_for_another_target_that_it_also_fits(pointing, score):
    rule, target = RewardSettings(detection_score=score), Boxes(((0, 0, 10, 10), (0, 0, 10, 14)))
    once, twice = pointing([(0, 0, 10, 12)]), pointing([(0, 0, 10, 12)] * 2)
    assert 0 < detection_reward(twice, target, rule) <= detection_reward(once, target, rule) < 0.6


@given(boxes, different_boxes, st.floats(0.1, 20), shapes)
@pure
def test_boxes_in_an_enlarged_image_are_worth_the_same(pointing, answer, target, factor, shape):
    rule = RewardSettings(positional_shape=shape, positional_sigma=0.7)
    larger = pointing([tuple(factor * x for x in box) for box in answer])
    larger_target = Boxes(tuple(tuple(factor * x for x in box) for box in target.values))
    size = (100 * factor, 100 * factor)
    before, after = positional_reward(pointing(answer), target, SIZE, rule), positional_reward(
        larger, larger_target, size, rule
    )  # fmt: skip
    assert after == pytest.approx(before)
    assert detection_reward(larger, larger_target) == pytest.approx(detection_reward(pointing(answer), target))


def test_masks_in_an_enlarged_image_are_worth_the_same(pointing):
    target, mask = square(0, 0, 10), square(3, 2, 10)
    larger, larger_mask = (np.kron(each, np.ones((3, 3), bool)) for each in (target, mask))
    assert mask_iou_reward(pointing([BOX]), Regions(larger), larger_mask) == mask_iou_reward(
        pointing([BOX]), Regions(target), mask
    )


@pytest.mark.parametrize("box", [(30, 30, 10, 10), (math.nan, 0, 1, 1), (-1e300, -1e300, 1e300, 1e300), (5, 5, 5, 5)])
def test_odd_boxes_are_scored(pointing, box):
    assert 0 <= detection_reward(pointing([box]), Boxes((BOX,))) <= 1
    assert 0 <= positional_reward(pointing([box]), Boxes((BOX,)), SIZE) <= 1


def test_thousands_of_things_are_refused_before_they_cost_time(pointing):
    flood, rule = pointing([BOX] * 5000), RewardSettings(most_instances=3)
    for score in (
        lambda: detection_reward(flood, Boxes((BOX,))),
        lambda: positional_reward(flood, Boxes((BOX,)), SIZE),
        lambda: instances_to_segment(flood, Regions(square(0, 0, 10))),
        lambda: mask_iou_reward(flood, Regions(square(0, 0, 10)), square(0, 0, 10)),
        lambda: detection_reward(pointing([BOX] * 4), Boxes((BOX,)), rule),
    ):
        with pytest.raises(RewardError, match="most_instances"):
            score()
    assert detection_reward(pointing([BOX] * 3), Boxes((BOX,)), rule) == pytest.approx(1 / 3)


# Classes


CLASSES = Choices(("forest", "river", "dense residential", "residential"), ("river",))
LABELS = Choices(CLASSES.options, ("river", "forest"))


def test_a_single_label_is_right_or_wrong(saying):
    assert single_label_reward(saying("It is a River."), CLASSES) == 1
    assert single_label_reward(saying("forest"), CLASSES) == 0
    assert single_label_reward(saying("river, forest"), CLASSES) == 0
    assert single_label_reward(saying(""), CLASSES) == 0


def test_several_labels_are_scored_by_f1_or_as_published_by_recall(saying):
    recall = RewardSettings(multi_label_score="recall")
    assert multi_label_reward(saying("river"), LABELS) == pytest.approx(2 / 3)
    assert multi_label_reward(saying("river"), LABELS, recall) == 0.5
    assert multi_label_reward(saying("forest, river"), LABELS) == 1


@given(st.sets(st.integers(0, 9), min_size=1, max_size=9))
@pure
def test_naming_every_class_never_wins_by_default(saying, right):
    names = tuple(f"class{i}" for i in range(10))
    target = Choices(names, tuple(names[i] for i in sorted(right)))
    everything, exact = saying(", ".join(names)), saying(", ".join(target.right))
    assert multi_label_reward(everything, target) < multi_label_reward(exact, target) == 1
    assert single_label_reward(everything, target) == 0
    assert multi_label_reward(everything, target, RewardSettings(multi_label_score="recall")) == 1  # why not by default


# Words


def test_an_image_caption_is_scored_by_levenshtein_ratio(saying):
    assert caption_reward(saying(" kitten\n"), Text(("sitting",))) == 8 / 13
    assert caption_reward(saying("kitten"), Text(("dog", "kitten"))) == 1


def test_a_short_answer_is_scored_by_its_words(saying):
    assert short_answer_reward(saying("Yes."), Text(("yes",))) == 1
    assert short_answer_reward(saying("a red roof"), Text(("the red roof", "roof"))) == 0.5


def test_the_list_of_things_is_no_part_of_the_words(saying):
    answer = saying('Two cars.\n```json\n[{"bbox_2d": [1, 2, 3, 4]}]\n```')
    assert caption_reward(answer, Text(("Two cars.",))) == short_answer_reward(answer, Text(("cars two",))) == 1


def test_the_lexical_score_is_the_mean_of_three():
    # "the cat" beside "the cat sat": ROUGE-1 and ROUGE-L 4/5; METEOR 10·(2/3) / (2/3 + 9) · (1 - 0.5/8).
    expected = (0.8 + 0.8 + (20 / 3) / (29 / 3) * (1 - 0.5 / 8)) / 3
    assert lexical_score("the cat", "the cat sat") == pytest.approx(expected)


def test_a_grounding_description_is_half_boxes_half_words():
    answer = ParsedAnswer("", "", "the cat\n```json\n[]\n```", (Instance(box=BOX),), True, True)
    words, target = lexical_score("the cat", "the cat sat"), Boxes((BOX, FAR))
    assert grounding_description_reward(answer, target, "the cat sat") == pytest.approx(0.25 + words / 2)
    mostly_boxes = RewardSettings(detection_share=0.8)
    assert grounding_description_reward(answer, target, "the cat sat", mostly_boxes) == pytest.approx(0.4 + words / 5)
    assert grounding_description_reward(answer, target, None) is None
    assert grounding_description_reward(answer, Text(("the cat sat",)), "the cat sat") is None


def embed_by_table(texts):
    table = {"a": [2.0, 0.0], "b": [0.0, 1.0], "c": [3.0, 3.0], "d": [-1.0, 0.0], "nothing": [0.0, 0.0]}
    return np.array([table[text] for text in texts])


@pytest.mark.parametrize(("reference", "cosine"), [("b", 0), ("c", math.sqrt(0.5)), ("d", 0), ("nothing", 0)])
def test_a_hybrid_caption_mixes_meaning_and_words(saying, reference, cosine):
    value = hybrid_caption_reward(saying("a"), Text((reference,)), embed_by_table)
    assert value == pytest.approx(cosine / 2)  # no word in common
    rule = RewardSettings(embedding_share=0.9)
    assert hybrid_caption_reward(saying("a"), Text((reference,)), embed_by_table, rule) == pytest.approx(0.9 * cosine)


def test_a_hybrid_caption_takes_the_nearest_reference(saying):
    words = lexical_score("a", "a")
    assert hybrid_caption_reward(saying("a"), Text(("b", "a")), embed_by_table) == pytest.approx(0.5 + words / 2)


@pytest.mark.parametrize("returned", [np.zeros(2), np.zeros((3, 4)), np.full((2, 4), np.nan)])
def test_embeddings_that_are_none_are_an_error(saying, returned):
    with pytest.raises(RewardError, match="embed returned"):
        hybrid_caption_reward(saying("a"), Text(("b",)), lambda texts: returned)


@given(st.text(max_size=60), st.text(max_size=60))
@pure
def test_every_score_of_words_is_a_share(saying, text, reference):
    assume(reference.strip())
    for value in (
        caption_reward(saying(text), Text((reference,))),
        short_answer_reward(saying(text), Text((reference,))),
        lexical_score(text, reference),
        multi_label_reward(saying(text), CLASSES),
        hybrid_caption_reward(saying(text), Text((reference,)), lambda texts: np.ones((len(texts), 3))),
    ):
        assert 0 <= value <= 1


# What does not apply, and settings


def test_a_reward_does_not_apply_to_targets_of_other_kinds(pointing, saying):
    answer, words = pointing([BOX]), saying("yes")
    for target in (Text(("yes",)), Choices(("yes",), ("yes",)), None):
        assert mask_iou_reward(answer, target, None) is None
        assert positional_reward(answer, target, SIZE) is None
        assert detection_reward(answer, target) is None
        assert grounding_description_reward(answer, target, "yes") is None
    assert mask_iou_reward(answer, Boxes((BOX,)), None) is None
    for target in (Boxes((BOX,)), Text(("yes",)), None):
        assert single_label_reward(words, target) is multi_label_reward(words, target) is None
    for target in (Boxes((BOX,)), Choices(("yes",), ("yes",)), None):
        assert caption_reward(words, target) is short_answer_reward(words, target) is None
        assert hybrid_caption_reward(words, target, embed_by_table) is None


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("positional_shape", "cubic", UnknownNameError), ("detection_score", "map", UnknownNameError),
        ("multi_label_score", "accuracy", UnknownNameError), ("positional_sigma", 0, ConfigError),
        ("positional_sigma", math.inf, ConfigError), ("match_iou", 0, ConfigError), ("match_iou", 1.1, ConfigError),
        ("embedding_share", -0.1, ConfigError), ("detection_share", math.nan, ConfigError),
        ("most_instances", 0, ConfigError),
    ],
)  # fmt: skip
def test_settings_are_checked(field, value, error):
    with pytest.raises(error, match=field):
        RewardSettings(**{field: value})
