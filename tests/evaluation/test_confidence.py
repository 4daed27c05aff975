from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_fakes import counted
from hypothesis import given
from hypothesis import strategies as st

from segearth.cli import app
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.errors import DatasetError
from segearth.evaluation import confidence as module
from segearth.evaluation.calibration import calibration_error
from segearth.evaluation.confidence import (
    MaskCurve,
    best_mask_curve,
    best_presence_threshold,
    calibrate,
    fit_curve,
    giou_at,
)
from segearth.inference.deciding import logit, score_of
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth
from segearth.segmenter import DecidingSettings, SegmenterFacts
from segearth.structures import Question, Text


def answered(presence, intersection, target):
    """An answer of 10 pixels, given whatever presence said."""
    union = 10 + target - intersection
    return counted(f"{presence}", intersection, union, target, 10, presence=presence)


RECORDS = [answered(0.9, 10, 10), answered(0.6, 5, 10), answered(0.4, 0, 0), answered(0.2, 10, 10)]


def test_below_the_threshold_an_answer_counts_as_empty():
    assert giou_at(RECORDS, 0.0) == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)
    assert giou_at(RECORDS, 0.5) == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)  # the absent one is right, the last one lost
    assert giou_at(RECORDS, 0.6) == giou_at(RECORDS, 0.5)  # at the threshold itself it is answered


def test_an_answer_without_presence_is_never_sure():
    records = [answered(0.9, 10, 10), answered(None, 10, 10)]
    assert giou_at(records, 0.0) == 1
    assert giou_at(records, 0.01) == 0.5


def said_and_true(reached, sharpened=1.0, number=4000):
    """Answers of one IoU in ten-thousandths to questions whose presence is right as often as it says, or overdone."""
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.02, 0.98, number)
    records = []
    for chance in chances:
        there = rng.random() < chance
        presence = score_of(float(chance), sharpened, 0.0)
        records.append(scored(presence, 0.5, reached) if there else replace(scored(presence, 0.5, 0), target_area=0))
    return records


@pytest.mark.parametrize("reached", [20, 50, 90])
def test_an_answer_is_given_where_it_is_worth_more_than_silence(reached):
    """Right with probability P it is worth P times its IoU, silence 1 - P: they are equal at 1 / (1 + IoU)."""
    wanted = 1 / (1 + reached / 100)
    assert best_presence_threshold(said_and_true(reached)) == pytest.approx(wanted, abs=0.03)
    overdone = score_of(wanted, 3.0, 0.0)  # the same certainty, by a presence that exaggerates
    assert best_presence_threshold(said_and_true(reached, sharpened=3.0)) == pytest.approx(overdone, abs=0.03)


def test_few_questions_near_the_threshold_do_not_decide_it():
    """One absent thing of which the model was nearly sure: by counting, 0.96 would be best, and would silence ten."""
    records = [*said_and_true(50, number=400), replace(scored(0.95, 0.5, 0), target_area=0)]
    assert best_presence_threshold(records) == pytest.approx(1 / 1.5, abs=0.06)


def test_where_all_or_nothing_is_there_presence_is_not_asked():
    assert best_presence_threshold([answered(0.001, 10, 10), answered(0.6, 10, 10)]) <= 0.01
    assert best_presence_threshold([answered(0.9, 0, 0), answered(0.6, 0, 0)]) == 0.99
    upside_down = [scored(0.1 + 0.008 * k, 0.5, 50) if k < 60 else answered(0.1 + 0.008 * k, 0, 0) for k in range(100)]
    assert best_presence_threshold(upside_down) == 0.99  # of 100 there are 60: too few for masks that reach a half
    assert best_presence_threshold(upside_down[:70]) == 0


def test_the_curve_that_made_the_scores_is_found_again():
    raw = np.linspace(0.05, 0.99, 200)
    slope, offset = fit_curve(raw, [score_of(p, 0.7, -0.8) for p in raw])
    assert (slope, offset) == (pytest.approx(0.7, abs=0.02), pytest.approx(-0.8, abs=0.02))


def test_scores_that_promise_too_much_are_made_honest():
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.6, 0.99, 300)
    reached = np.clip(raw - 0.45 + rng.normal(0, 0.1, 300), 0, 1)
    curve = fit_curve(raw, reached)
    assert calibration_error(raw, reached) > 0.4
    assert calibration_error([score_of(p, *curve) for p in raw], reached) < 0.05


def test_a_score_that_says_the_opposite_becomes_the_mean():
    raw = np.linspace(0.1, 0.9, 50)
    slope, offset = fit_curve(raw, 1 - raw)
    assert slope == 0 and score_of(0.3, slope, offset) == pytest.approx(0.5)


def test_scores_that_are_all_alike_get_the_mean_by_an_offset_alone():
    """Nothing tells how steep the curve should be: it keeps the slope that leaves scores as they are."""
    slope, offset = fit_curve([0.5] * 10, [0.6, 0.8] * 5)
    assert slope == pytest.approx(1, abs=1e-9)
    assert offset == pytest.approx(logit(0.7), abs=1e-3)


def test_no_other_curve_is_better():
    """By the cross-entropy, to which a thousandth of the squared distance from the plain curve is added."""
    rng = np.random.default_rng(3)
    raw, reached = rng.uniform(0.02, 0.98, 12), rng.random(12)
    reached = np.clip(0.5 * raw + 0.5 * reached, 0, 1)

    def loss(slope, offset):
        said = np.array([score_of(p, slope, offset) for p in raw])
        entropy = -(reached * np.log(said) + (1 - reached) * np.log(1 - said)).sum()
        return entropy + 0.0005 * ((slope - 1) ** 2 + offset**2)

    slope, offset = fit_curve(raw, reached)
    steps = [(a, b) for a in (-1e-4, 0, 1e-4) for b in (-1e-4, 0, 1e-4) if a or b]
    assert all(loss(slope + a, offset + b) > loss(slope, offset) for a, b in steps)


def test_perfect_and_hopeless_answers_give_a_curve_all_the_same():
    slope, offset = fit_curve([0.1, 0.9] * 10, [0, 1] * 10)  # the steeper the better: something must hold it
    assert 1 < slope < 10 and offset == pytest.approx(0, abs=1e-6)
    assert fit_curve([0.9] * 30, [0.0] * 30) == (0, pytest.approx(logit(1e-4)))  # sure, and always wrong
    assert fit_curve([0.1] * 30, [1.0] * 30) == (0, pytest.approx(logit(1 - 1e-4)))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_any_answers_give_a_curve_that_never_falls(pairs):
    slope, offset = fit_curve([raw for raw, _ in pairs], [iou for _, iou in pairs])
    scores = [score_of(raw, slope, offset) for raw in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert scores == sorted(scores) and 0 <= scores[0] <= scores[-1] <= 1


@pytest.fixture
def model(debug_model, monkeypatch):
    """A model that answers every question with a mask; left as it was found.

    Its weights are random, so that the best it could do is not to answer: the threshold is given.
    """
    monkeypatch.setattr(module, "best_presence_threshold", lambda records: 0.01)
    before = replace(debug_model.config)
    debug_model.config.presence_decides = True
    yield debug_model
    debug_model.config = before


def test_a_model_is_set_and_answers_accordingly(model):
    data = SyntheticDataset(split="val", length=12, size=64)
    found = calibrate(model, data, progress=False)
    assert model.config.presence_threshold == found.presence_threshold
    assert model.config.score_curve == list(found.score_curve)
    assert found.presence_threshold == 0.01 and found.score_error[1] < found.score_error[0]
    predictor = Predictor(model)
    predictor.set_image(data.image(0))
    model.config.presence_threshold = 0.0
    curved = predictor.predict("the buildings").score
    model.config.score_curve = [1.0, 0.0]
    assert curved == pytest.approx(score_of(predictor.predict("the buildings").score, *found.score_curve))


def scored(presence, score, iou_percent, *, empty=False):
    """An answer of 100 pixels, or none, to a question about 100."""
    predicted = 0 if empty else 100
    intersection = 0 if empty else round(200 * iou_percent / (100 + iou_percent))
    return counted(f"{presence} {score} {iou_percent}", intersection, 200 - intersection - (100 - predicted), 100,
                   predicted, presence=presence, score=score)  # fmt: skip


def calibrate_on(records, monkeypatch, **settings):
    """Calibrates a model that gives these answers; returns what was found, the configuration, and what was asked."""
    config = SimpleNamespace(
        presence_threshold=0.45, score_curve=[0.5, 0.1], presence_decides=False, mask_curve=[1.0, 0.0]
    )
    asked = []

    def evaluate(predictor, dataset, **options):
        asked.append((predictor, dataset, options, config.presence_threshold, config.score_curve))
        return SimpleNamespace(by_scorer={"segmentation": SimpleNamespace(records=records)})

    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "Predictor", lambda model: ("predictor of", model))
    model = SimpleNamespace(config=config)
    try:
        found = calibrate(model, "the split", **settings)
    finally:
        ((predictor, dataset, options, threshold, curve),) = asked
        assert (predictor, dataset) == (("predictor of", model), "the split")
        assert (options["controls"], threshold, curve) == (False, 0.0, [1.0, 0.0])  # raw answers to every question
    return found, config, options


def test_a_calibration_by_hand(monkeypatch):
    """Twenty answers count: not the one that is empty, nor those that the threshold keeps back."""
    shown = [scored(0.51 + 0.01 * k, 0.55 + 0.02 * k if k else 0.0, 10 + 3 * k) for k in range(20)]
    kept_back = [
        replace(scored(presence, 0.99, 0), target_area=0, intersection=0, union=100) for presence in (0.5, None)
    ]
    records = [*shown, *kept_back, scored(0.9, 0.97, 0, empty=True)]
    monkeypatch.setattr(module, "best_presence_threshold", lambda given: 0.51 if given is records else 0.0)
    found, config, options = calibrate_on(records, monkeypatch)
    assert (options["batch_size"], options["progress"]) == (1, True)
    raw, reached = [r.score for r in shown], [r.iou for r in shown]
    assert found.presence_threshold == config.presence_threshold == pytest.approx(0.51)
    assert found.masks is None and config.mask_curve == [1.0, 0.0]  # presence does not decide
    assert found.score_curve == tuple(config.score_curve) == fit_curve(raw, reached)
    assert isinstance(config.score_curve, list)  # as a configuration file holds it
    assert found.giou == pytest.approx(((sum(reached) + 1) / 23, (sum(reached) + 2) / 23))
    said = ([score_of(p, *curve) for p in raw] for curve in ((0.5, 0.1), found.score_curve))
    errors = [calibration_error(scores, reached) for scores in said]
    assert found.score_error == pytest.approx(tuple(errors)) and errors[1] < errors[0]
    _, _, options = calibrate_on(records, monkeypatch, batch_size=3, progress=False)
    assert (options["batch_size"], options["progress"]) == (3, False)
    monkeypatch.setattr(module, "best_presence_threshold", lambda given: 0.51)
    with pytest.raises(DatasetError, match=r"^only 19 answers to fit a curve to; take more images, 20 are needed$"):
        calibrate_on(records[1:], monkeypatch)


class Cautious:
    """Answers each question with 40 pixels that it is sure of and 100 that it thinks unlikely."""

    def __init__(self, **settings):
        self.facts = SegmenterFacts(deciding=DecidingSettings(presence_decides=True, **settings))
        self.asked = []

    def set_image(self, image):
        pass

    def predict(self, texts, task, return_logits):
        self.asked += zip(texts, task, strict=True)
        logits = np.full((20, 20), -9.0, np.float32)
        logits[:2], logits[2:7] = 9.0, -1.0
        return [SimpleNamespace(logits=logits) for _ in texts]


def samples_of(rows):
    """One image with questions whose targets are the upper rows, and one about something else."""
    questions = []
    for number in rows:
        mask = np.zeros((20, 20), bool)
        mask[:number] = True
        questions.append(Question(f"the upper {number} rows", mask, task="reasoning"))
    questions.append(Question("how many", target=Text(("two",)), task="vqa"))
    return [SimpleNamespace(image=None, questions=questions)]


def test_masks_of_a_cautious_model_are_made_wider():
    """Most of what it thinks unlikely is right: with a curve that says so the mask takes it in."""
    predictor = Cautious()
    found = best_mask_curve(predictor, samples_of([0, 5, 6]), progress=False)
    assert predictor.asked == [("the upper 5 rows", "reasoning"), ("the upper 6 rows", "reasoning")]  # what is there
    assert found.iou == pytest.approx(((2 / 5 + 2 / 6) / 2, (5 / 7 + 6 / 7) / 2))
    assert found.curve != (1.0, 0.0)
    assert best_mask_curve(Cautious(mask_curve=found.curve), samples_of([5, 6]), progress=False).iou[0] == found.iou[1]


def test_where_no_mask_curve_is_better_the_models_own_stays():
    for rows in ([2], [0], []):
        found = best_mask_curve(Cautious(mask_curve=(0.9, 0.0)), samples_of(rows), progress=False)
        assert found.curve == (0.9, 0.0) and found.iou[0] == found.iou[1]


def test_a_mask_curve_is_set_where_presence_decides(model, monkeypatch):
    found = MaskCurve((0.5, -0.25), (0.4, 0.5))
    monkeypatch.setattr(module, "best_mask_curve", lambda predictor, dataset, progress: found)
    data = SyntheticDataset(split="val", length=12, size=64)
    assert calibrate(model, data, progress=False).masks is found and model.config.mask_curve == [0.5, -0.25]


def test_too_few_answers_are_refused(model):
    before = model.config.presence_threshold, model.config.score_curve
    with pytest.raises(DatasetError, match="answers to fit a curve to; take more images"):
        calibrate(model, SyntheticDataset(split="val", length=1, size=64), progress=False)
    assert (model.config.presence_threshold, model.config.score_curve) == before  # left as it was


def test_a_split_without_masks_is_refused(model, monkeypatch):
    """Its answers are those of another scorer, whose records have no masks."""
    records = [SimpleNamespace(matched_iou=0.5)] * 30
    found = SimpleNamespace(by_scorer={"boxes": SimpleNamespace(records=records)}, records=records)
    monkeypatch.setattr(module, "evaluate", lambda *_, **options: found)
    data = SyntheticDataset(split="val", length=1, size=64)
    before = model.config.presence_threshold, model.config.score_curve
    with pytest.raises(DatasetError, match=r"no question of synthetic val has a mask .* tasks referring, reasoning"):
        calibrate(model, data, progress=False)
    assert (model.config.presence_threshold, model.config.score_curve) == before


def test_the_command_changes_the_saved_model_and_says_what(model, tmp_path):
    from typer.testing import CliRunner

    model.save_pretrained(tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    data = "data.val=[{name: synthetic, split: val, options: {length: 12, size: 64}}]"
    result = CliRunner().invoke(app, ["calibrate", "aerial_mini", data, "--model", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "model" / "config.json").read_text())["model"]
    assert f"presence threshold {saved['presence_threshold']:.2f}" in result.output
    assert saved["score_curve"] != [1.0, 0.0]
    assert SegEarth.from_pretrained(tmp_path / "model").config.score_curve == saved["score_curve"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
