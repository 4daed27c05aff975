from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.metrics import bootstrap
from segearth.metrics.bootstrap import bootstrap_interval


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30), st.integers(0, 3))
def test_an_interval_holds_the_mean_and_widens_with_the_level(rows, seed):
    values, images = [value for value, _ in rows], [str(image) for _, image in rows]
    ends = [bootstrap_interval(values, images, level=level, draws=300, seed=seed) for level in (0.5, 0.9, 0.99)]
    assert ends[2][0] - 1e-12 <= np.mean(values) <= ends[2][1] + 1e-12
    assert ends[2][0] <= ends[1][0] <= ends[0][0] <= ends[0][1] <= ends[1][1] <= ends[2][1]
    assert min(values) - 1e-12 <= ends[2][0]
    assert ends[2][1] <= max(values) + 1e-12


def test_bootstrap_is_seeded_and_holds_the_mean():
    values = np.random.default_rng(1).random(60)
    clusters = [str(i // 3) for i in range(60)]
    low, high = bootstrap_interval(values, clusters, seed=3)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, clusters, seed=3)
    assert (low, high) != bootstrap_interval(values, clusters, seed=4)
    assert bootstrap_interval(values, clusters) == bootstrap_interval(values, clusters, level=0.95, draws=2000, seed=0)


def test_an_interval_holds_95_of_100_draws():
    """Half of 400 images at 1, half at 0: a draw's mean has a standard deviation of 0.5 / 20, and 95 % of a normal
    distribution lie within 1.96 of them. 90 % would lie within 1.64, 99 % within 2.58."""
    values, images = [0.0, 1.0] * 200, [str(i) for i in range(400)]
    ends = np.array([bootstrap_interval(values, images, seed=seed) for seed in range(8)])
    assert ends.mean(0) == pytest.approx([0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025], abs=0.002)
    tighter = np.array([bootstrap_interval(values, images, level=0.9, seed=seed) for seed in range(8)])
    assert tighter.mean(0) == pytest.approx([0.5 - 1.645 * 0.025, 0.5 + 1.645 * 0.025], abs=0.002)


def test_a_drawn_image_brings_each_of_its_questions():
    """One question at 0 about image a, three at 1 about image b. A draw of two images is aa, ab, ba or bb: 0, 3/4, 3/4
    or 1. Its middle is 3/4; a mean of the images' means would have its middle at 1/2."""
    values, images = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    assert bootstrap_interval(values, images, level=0.01) == (0.75, 0.75)
    assert bootstrap_interval(values, images) == (0.0, 1.0)


def test_one_image_has_no_interval():
    assert bootstrap_interval([0.0, 0.5], ["a", "a"]) == (0.25, 0.25)


def test_bootstrap_draws_images_not_questions():
    # 40 questions that agree within each of 4 images tell no more than 4 questions.
    values = np.repeat([0.0, 0.3, 0.6, 1.0], 10)
    by_image = bootstrap_interval(values, [str(i // 10) for i in range(40)])
    by_question = bootstrap_interval(values, [str(i) for i in range(40)])
    assert by_image[1] - by_image[0] > 2 * (by_question[1] - by_question[0])


def test_docstrings_hold():
    assert doctest.testmod(bootstrap).failed == 0
