from __future__ import annotations

import logging

import numpy as np
import pytest
from evaluation_fakes import Patches, PerfectPredictor
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.errors import DatasetError
from segearth.evaluation.controls import ConstantMask, MeanMask, ShuffledQuestions, build_controls, derange
from segearth.evaluation.metrics import mask_iou
from segearth.evaluation.protocols import PROTOCOLS, scored_questions
from segearth.structures import Question, Sample

NATIVE = PROTOCOLS["native"]


def dataset_of(masks):
    dataset = Patches(0, "train")
    dataset.samples = [
        Sample(f"i{i}", np.zeros((*m.shape, 3), np.uint8), [Question(f"q{i}", m, id=f"q{i}")])
        for i, m in enumerate(masks)
    ]
    return dataset


def half(height, width, share=0.5):
    mask = np.zeros((height, width), bool)
    mask[: int(height * share)] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 3), st.integers(1, 6))
def test_derangement_moves_every_item_to_another_group(sizes, seed, vocabulary):
    groups = [f"image{g}" for g, size in enumerate(sizes) for _ in range(size)]
    texts = [f"text{i % vocabulary}" for i in range(len(groups))]
    dealt = derange(groups, texts, seed)
    assert all(groups[place] != groups[item] for place, item in enumerate(dealt))
    if 2 * max(sizes) <= len(groups):
        assert sorted(dealt) == list(range(len(groups)))
    assert dealt == derange(groups, texts, seed)


def test_derangement_prefers_other_texts():
    groups = [f"image{i // 2}" for i in range(40)]
    texts = [f"text{i % 4}" for i in range(40)]
    dealt = derange(groups, texts, seed=1)
    assert all(texts[place] != texts[item] for place, item in enumerate(dealt))
    assert dealt != derange(groups, texts, seed=2)


def test_one_image_cannot_be_deranged():
    with pytest.raises(DatasetError, match="two images"):
        derange(["a", "a"], ["x", "y"])


def test_shuffled_questions_ask_the_model_but_not_the_true_question():
    dataset, predictor = Patches(6), PerfectPredictor()
    control = ShuffledQuestions.draw(dataset, NATIVE, seed=0)
    for sample in dataset:
        questions = scored_questions(sample, NATIVE)
        predictor.set_image(sample.image)
        masks = control.masks(predictor, sample, questions)
        assert [m.shape for m in masks] == [sample.image.shape[:2]] * 3
        assert all(asked != q.text for asked, q in zip(predictor.asked[-1], questions.values(), strict=True))
    asked = [question.text for question in control.asked.values()]
    assert sorted(asked) == sorted(q.text for sample in dataset for q in sample.questions)


def test_mean_mask_of_equal_targets_is_that_target():
    control = MeanMask.fit(dataset_of([half(64, 64), half(100, 50), half(33, 70, 16 / 33)]), NATIVE, progress=False)
    sample = dataset_of([half(48, 80)])[0]
    (mask,) = control.masks(None, sample, scored_questions(sample, NATIVE))
    assert mask_iou(mask, sample.questions[0].mask) == 1


def test_mean_mask_takes_the_cut_with_the_best_giou():
    # Upper half, upper half, upper quarter: cut at 2/3 or below keeps the half (1 + 1 + 1/2) / 3, above it the quarter
    # (1/2 + 1/2 + 1) / 3.
    targets = [half(128, 128), half(128, 128), half(128, 128, 0.25)]
    control = MeanMask.fit(dataset_of(targets), NATIVE, progress=False)
    assert control.mask.mean() == 0.5
    assert control.threshold <= 2 / 3
    assert f"{control.threshold:.2f}" in control.rule


def test_mean_mask_counts_small_targets_of_large_images():
    dot = np.zeros((1280, 1280), bool)
    dot[640:645, 640:645] = True  # a quarter of one cell of 10 x 10 pixels
    control = MeanMask.fit(dataset_of([dot]), NATIVE, progress=False)
    assert control.mask.sum() == 1


def test_mean_mask_needs_a_mask():
    with pytest.raises(DatasetError, match="no question has a mask"):
        MeanMask.fit(Patches(0, "train"), NATIVE, progress=False)


@pytest.mark.parametrize("value", [True, False])
def test_constant_masks(value):
    sample = Patches(1)[0]
    masks = ConstantMask(value).masks(None, sample, scored_questions(sample, NATIVE))
    assert len(masks) == 3
    assert all(mask.shape == (48, 32) and (mask == value).all() for mask in masks)


def test_controls_that_cannot_be_made_are_left_out_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        controls = build_controls(Patches(1), None, NATIVE, progress=False)
    assert [control.name for control in controls] == ["everything", "nothing"]
    assert "mean_mask left out" in caplog.text
    assert "shuffled_questions left out" in caplog.text
