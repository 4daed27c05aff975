from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.evaluation.calibration import calibration_error


def test_worked_values():
    assert calibration_error([0.9, 0.9, 0.9, 0.9, 0.2], [1, 1, 1, 0, 0]) == pytest.approx(0.16)
    assert calibration_error([0.05, 0.15], [0.15, 0.05]) == pytest.approx(0.1)  # two bins: errors do not cancel
    assert calibration_error([0.05, 0.15], [0.15, 0.05], bins=1) == pytest.approx(0)  # in one they do
    assert calibration_error([1.0, 0.95], [0.95, 1]) == pytest.approx(0)  # the last bin holds 1, too
    assert calibration_error([], []) == 0


def test_a_confidence_that_is_a_probability_is_nearly_perfect():
    rng = np.random.default_rng(0)
    said = rng.random(20000)
    assert calibration_error(said, rng.random(20000) < said) < 0.01
    assert calibration_error(said**0.3, rng.random(20000) < said) > 0.2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_it_is_a_share_at_least_the_distance_of_the_means(pairs):
    said, came = zip(*pairs, strict=True)
    error = calibration_error(said, came)
    assert abs(np.mean(said) - np.mean(came)) - 1e-9 <= error <= 1
