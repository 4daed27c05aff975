from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segearth.errors import ConfigError, RewardError, UnknownNameError
from segearth.rl.groups import agreement, consistency_weight, consistent_advantages, group_advantages
from segearth.rl.rewards.settings import ConsistencySettings

SIZE = (100, 100)
LEFT, RIGHT = [0, 0, 10, 10], [50, 0, 60, 10]  # centres (5, 5) and (55, 5), each 25 px from their mean
rewards = arrays(float, (3, 4), elements=st.floats(0, 4).map(lambda value: round(value, 3)))
boxes = st.lists(st.tuples(*[st.floats(0, 100)] * 4), min_size=2, max_size=6)


def test_a_group_is_standardised_by_hand():
    # Mean 2, squared distances 4 + 0 + 0 + 4, over 3: the deviation of a sample is sqrt(8/3).
    expected = np.array([[-2, 0, 0, 2]]) / math.sqrt(8 / 3)
    np.testing.assert_allclose(group_advantages([[0, 2, 2, 4]], epsilon=0), expected)
    np.testing.assert_allclose(group_advantages([[0, 2, 2, 4]]), np.array([[-2, 0, 0, 2]]) / (math.sqrt(8 / 3) + 1e-4))


def test_equal_rewards_and_a_single_answer_teach_nothing():
    assert not group_advantages([[1.5, 1.5, 1.5]]).any()
    assert not group_advantages([[1.5, 1.5, 1.5]], epsilon=0).any()
    assert not group_advantages([[3.0]]).any()


def test_an_answer_that_was_not_scored_is_left_out_and_changes_no_other():
    with_gap = group_advantages([[0, np.nan, 4], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(with_gap[0, [0, 2]], group_advantages([[0, 4]])[0])
    assert with_gap[0, 1] == 0
    assert not with_gap[1].any()


@given(rewards)
def test_groups_do_not_see_each_other_and_advantages_add_to_nothing(values):
    together = group_advantages(values)
    np.testing.assert_allclose(together, np.concatenate([group_advantages(row[None]) for row in values]))
    np.testing.assert_allclose(together.sum(axis=1), 0, atol=1e-9)


@given(rewards, st.floats(0.01, 100), st.floats(-5, 5))
def test_a_factor_on_all_rewards_of_a_group_is_cancelled(values, factor, offset):
    """Therefore a weight of a group must act on its advantages."""
    deviates = values.std(axis=1) > 1e-3  # of equal rewards, rounding alone would be standardised
    plain = group_advantages(values[deviates], epsilon=0)
    np.testing.assert_allclose(group_advantages(factor * values[deviates] + offset, epsilon=0), plain, atol=1e-6)


def test_the_weight_on_advantages_is_not_cancelled():
    advantages = group_advantages([[0, 1], [0, 1]])
    groups = [[LEFT, LEFT], [LEFT, RIGHT]]
    weighted = consistent_advantages(advantages, groups, [SIZE, SIZE])
    np.testing.assert_allclose(weighted[0], advantages[0])
    np.testing.assert_allclose(weighted[1], advantages[1] * (0.5 + 0.5 * math.exp(-1)))


def test_agreement_by_scatter_by_hand():
    assert agreement([LEFT, LEFT, LEFT], SIZE) == 1
    assert agreement([LEFT, RIGHT], SIZE) == pytest.approx(math.exp(-1))
    assert agreement([LEFT, RIGHT], (100, 200)) == pytest.approx(math.exp(-0.5))  # half as far in a wider image
    assert agreement([LEFT, RIGHT], (200, 100)) == pytest.approx(math.exp(-1))  # its height does not matter
    assert agreement([LEFT, RIGHT], SIZE, ConsistencySettings(scale=0.5)) == pytest.approx(math.exp(-0.5))
    # Two of three at (5, 5), one 30 px to the right: distances 10, 10, 20 from the mean, root mean square sqrt(200).
    assert agreement([LEFT, LEFT, [30, 0, 40, 10]], SIZE) == pytest.approx(math.exp(-math.sqrt(200) / 25))


def test_the_centre_of_several_boxes_is_the_mean_of_theirs():
    middle = [25, 0, 35, 10]
    assert agreement([[LEFT, RIGHT], middle], SIZE) == 1


def test_agreement_by_overlap_by_hand():
    by_iou = ConsistencySettings(agreement="iou")
    half = [5, 0, 15, 10]  # IoU 50 / 150 with LEFT
    assert agreement([LEFT, half], SIZE, by_iou) == pytest.approx(1 / 3)
    assert agreement([LEFT, LEFT, half], SIZE, by_iou) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert agreement([LEFT, RIGHT], SIZE, by_iou) == 0
    assert agreement([[LEFT, RIGHT], LEFT], SIZE, by_iou) == 0.5


@pytest.mark.parametrize("mode", ["centres", "iou"])
def test_answers_that_point_at_nothing_are_left_out(mode):
    settings = ConsistencySettings(agreement=mode)
    alone = agreement([LEFT, [2, 0, 12, 10]], SIZE, settings)
    assert agreement([LEFT, None, [], [math.nan] * 4, [2, 0, 12, 10]], SIZE, settings) == alone < 1
    assert agreement([LEFT, None, []], SIZE, settings) == agreement([None, None], SIZE, settings) == 1


def test_the_weight_by_hand():
    assert consistency_weight(1) == 1
    assert consistency_weight(0) == 0.5
    assert consistency_weight(0.5, ConsistencySettings(lowest_weight=0.2)) == pytest.approx(0.6)
    assert consistency_weight(0, ConsistencySettings(lowest_weight=1)) == 1


@given(boxes, st.sampled_from(["centres", "iou"]), st.randoms(), st.floats(0.1, 10))
def test_agreement_is_a_share_whatever_the_order_and_the_scale_of_the_image(answers, mode, random, factor):
    settings = ConsistencySettings(agreement=mode)
    value = agreement(answers, SIZE, settings)
    shuffled = list(answers)
    random.shuffle(shuffled)
    scaled = [[factor * x for x in box] for box in answers]
    assert 0 <= value <= 1
    assert agreement(shuffled, SIZE, settings) == pytest.approx(value)
    if all(min(abs(b[2] - b[0]), abs(b[3] - b[1])) > 0.01 for b in answers):
        assert agreement(scaled, (100 * factor, 100 * factor), settings) == pytest.approx(value)


@pytest.mark.parametrize(
    ("advantages", "groups", "sizes"),
    [
        ([[1, 2]], [[LEFT]], [SIZE]),
        ([[1, 2]], [[LEFT, LEFT], [LEFT, LEFT]], [SIZE]),
        ([[1, 2]], [[LEFT, LEFT]], []),
        ([1, 2], [[LEFT], [LEFT]], [SIZE, SIZE]),
    ],
)
def test_numbers_that_do_not_fit_are_an_error(advantages, groups, sizes):
    with pytest.raises(RewardError, match="boxes for each answer"):
        consistent_advantages(advantages, groups, sizes)


def test_rewards_without_groups_are_an_error():
    with pytest.raises(RewardError, match=r"\(groups, answers\)"):
        group_advantages([1, 2, 3])


def test_settings_are_checked():
    with pytest.raises(UnknownNameError, match="centres"):
        ConsistencySettings(agreement="center")
    with pytest.raises(ConfigError, match=r"lowest_weight is 1\.5"):
        ConsistencySettings(lowest_weight=1.5)
    with pytest.raises(ConfigError, match="scale is 0"):
        ConsistencySettings(scale=0)
