"""What the predictor makes of a model's logits: the mask, whether a thing is there, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segearth.config import ImageTransformConfig
from segearth.errors import ConfigError
from segearth.inference import predictor as module
from segearth.inference.deciding import decide, deciding_of, logit, score_of, threshold_of, threshold_of_tiles
from segearth.inference.predictor import Predictor
from segearth.model_types import MaskOutput
from segearth.models.segearth import SegEarth
from segearth.preprocessing.transform import ImageTransform
from segearth.segmenter import DecidingSettings

Saying = Callable[..., Predictor]


@pytest.fixture
def saying(debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch) -> Iterator[Saying]:
    """A predictor of 64 px frames whose mask decoder says what the test wants, in rows of ``(N, h, w)`` logits."""
    threshold = debug_model.config.presence_threshold
    debug_model.config.presence_threshold = 0.5

    def make(logits: list[list[list[float]]], presence: list[float], fit: str = "resize") -> Predictor:
        output = MaskOutput(torch.tensor(logits), torch.tensor(presence))
        monkeypatch.setattr(debug_model, "decode_masks", lambda *_: output)
        predictor = Predictor(debug_model)
        predictor.transform = ImageTransform(ImageTransformConfig(size=64, fit=fit))
        predictor.set_image(np.zeros((64, 64, 3), np.uint8))
        return predictor

    yield make
    debug_model.config.presence_threshold = threshold


def halves(upper: float, lower: float) -> list[list[float]]:
    """Logits of 64 x 64 pixels: 32 rows of each."""
    return [[upper] * 64] * 32 + [[lower] * 64] * 32


def probability(logit: float) -> float:
    return 1 / (1 + float(np.exp(-logit)))


def test_a_pixel_is_mask_where_its_logit_is_above_zero(saying: Saying) -> None:
    logits = halves(0.0, 3.0)
    logits[63] = [-1.0] * 64
    found = saying([logits], [2.0]).predict("roads")
    expected = np.zeros((64, 64), bool)
    expected[32:63] = True
    assert np.array_equal(found.mask, expected)
    assert found.presence == pytest.approx(probability(2.0), abs=1e-6)
    assert found.present


def test_the_score_is_the_mean_probability_inside_the_mask_alone(saying: Saying) -> None:
    """Over all pixels it would say how much of the image the thing fills: a small thing could never be sure."""
    logits = halves(-9.0, -9.0)
    logits[5] = [4.0] * 16 + [1.0] * 48
    found = saying([logits], [2.0]).predict("roads")
    assert found.mask.sum() == 64
    assert found.score == pytest.approx((16 * probability(4.0) + 48 * probability(1.0)) / 64, abs=1e-6)


@pytest.mark.parametrize(("presence", "present"), [(0.0, True), (-0.01, False), (9.0, True), (-9.0, False)])
def test_what_is_judged_absent_has_no_mask(saying: Saying, presence: float, present: bool) -> None:
    found = saying([halves(3.0, -3.0)], [presence]).predict("roads")
    assert (found.present, bool(found.mask.any()), found.score > 0) == (present, present, present)
    assert found.mask.shape == (64, 64) and found.mask.dtype == bool
    assert found.presence == pytest.approx(probability(presence), abs=1e-6)


def test_what_has_no_pixel_is_not_there_however_sure_presence_is(saying: Saying) -> None:
    found = saying([halves(-3.0, -1.0)], [9.0]).predict("roads")
    assert (found.present, found.score, bool(found.mask.any())) == (False, 0.0, False)
    assert found.presence > 0.99


def test_each_question_gets_its_own_mask_presence_and_score(saying: Saying) -> None:
    logits = [halves(3.0, -3.0), halves(-3.0, 1.0), halves(2.0, 2.0)]
    found = saying(logits, [1.0, 2.0, -3.0]).predict(["roads", "roofs", "ships"])
    assert [f.question for f in found] == ["roads", "roofs", "ships"]
    assert [f.mask.mean(1).tolist() for f in found] == [[1] * 32 + [0] * 32, [0] * 32 + [1] * 32, [0] * 64]
    assert [f.presence for f in found] == pytest.approx([probability(p) for p in (1.0, 2.0, -3.0)], abs=1e-6)
    assert [f.score for f in found] == pytest.approx([probability(3.0), probability(1.0), 0], abs=1e-6)


@pytest.mark.parametrize(("presence", "share"), [(1.0, 0.5), (-1.0, 0.0)])
def test_a_letterboxed_absence_is_empty_in_its_frame_as_well(saying: Saying, presence: float, share: float) -> None:
    """Published protocols compare in the frame: a mask left there would be counted against a right answer."""
    predictor: Any = saying([halves(3.0, -3.0)], [presence], "letterbox")
    predictor.set_image(np.zeros((8, 16, 3), np.uint8))  # in the frame between rows 16 and 48
    found = predictor.predict("roads")
    assert found.frame_mask.shape == (64, 64)
    assert found.frame_mask.mean() == share  # padding included
    assert found.mask.shape == (8, 16)
    assert found.mask.mean() == pytest.approx(share)


def test_a_frames_pixel_is_mask_above_zero_too(saying: Saying) -> None:
    assert saying([halves(0.0, 3.0)], [1.0], "letterbox").predict("roads").frame_mask.mean() == 0.5


def test_without_a_letterbox_there_is_no_frame_mask(saying: Saying) -> None:
    assert saying([halves(3.0, -3.0)], [1.0]).predict("roads").frame_mask is None


QUESTIONS = ["the road", "all buildings with a tin roof in the upper left corner", "ships", "a pond", "trees"]


@pytest.mark.parametrize(("questions", "pixels"), [(1, 1 << 26), (2, 1 << 26), (32, 1), (32, 3 * 128 * 128), (2, 1)])
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_answers_do_not_depend_on_how_many_are_worked_on_at_once(
    debug_model: SegEarth, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, questions: int, pixels: int, fit: str
) -> None:
    """Questions are read in portions and their masks enlarged in chunks: each answer must stay with its question."""
    monkeypatch.setattr(debug_model.config, "presence_threshold", 0.0)
    words = lambda features, asked, *_: [f"about {q.text}" for q in asked]  # noqa: E731
    monkeypatch.setattr(debug_model, "generate_answers", words)
    predictor = Predictor(debug_model)
    predictor.transform = ImageTransform(replace(debug_model.config.image_transform, fit=fit))
    predictor.set_image(picture)
    alone = [predictor.predict(question) for question in QUESTIONS]
    presences = [a.presence for a in alone]
    assert min(abs(a - b) for i, a in enumerate(presences) for b in presences[:i]) > 1e-5  # else this shows nothing
    monkeypatch.setattr(module, "QUESTIONS_AT_ONCE", questions)
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", pixels)
    together = predictor.predict(QUESTIONS, answer=True)
    assert [t.question for t in together] == QUESTIONS
    assert [t.answer for t in together] == [f"about {q}" for q in QUESTIONS]
    assert [t.presence for t in together] == pytest.approx(presences, abs=1e-6)
    assert [t.score for t in together] == pytest.approx([a.score for a in alone], abs=1e-5)
    for one, same in zip(alone, together, strict=True):
        assert (one.mask != same.mask).mean() < 1e-3
        if fit == "letterbox":
            assert (one.frame_mask != same.frame_mask).mean() < 1e-3


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((64, 64), 3 * 64 * 64, [3, 2]),
        ((64, 64), 3 * 64 * 64 - 1, [2, 2, 1]),
        ((64, 192), 6 * 64 * 64, [2, 2, 1]),  # an image larger than its frame
        ((8, 16), 3 * 64 * 64, [3, 2]),  # and a smaller one: it is enlarged from the frame's logits
        ((64, 64), 1, [1] * 5),
    ],
)
def test_no_more_logits_are_enlarged_at_once_than_memory_is_kept_for(
    saying: Saying, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], pixels: int, expected: list[int]
) -> None:
    predictor = saying([halves(3.0, -3.0)] * 5, [1.0] * 5)
    predictor.set_image(np.zeros((*size, 3), np.uint8))
    enlarge, held = predictor.transform.invert, []

    def invert(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
        held.append(len(logits))
        return enlarge(logits, height, width)

    monkeypatch.setattr(predictor.transform, "invert", invert)
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", pixels)
    assert [found.mask.shape for found in predictor.predict(list("abcde"))] == [size] * 5
    assert held == expected


def test_where_presence_decides_a_present_thing_is_what_stands_out(
    saying: Saying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No logit is above 0: the mask is what can expect most, unless presence says that nothing is there."""
    logits = halves(-3.0, -1.0)  # as probabilities 0.05 and 0.27
    outstanding = halves(3.0, -0.5)  # 0.95 and 0.38: the rest would cost more than it is likely to add
    predictor = saying([logits, logits, outstanding], [2.0, -2.0, 2.0])
    assert not predictor.predict(["a", "b", "c"])[0].present  # as published: the mask overrules presence
    monkeypatch.setattr(predictor.model.config, "presence_decides", True)
    low, absent, high = predictor.predict(["a", "b", "c"])
    expected = np.zeros((64, 64), bool)
    expected[32:] = True
    assert low.present and np.array_equal(low.mask, expected)
    assert low.score == pytest.approx(probability(-1.0), abs=1e-6)
    assert not absent.present and not absent.mask.any()
    assert high.mask[:32].all() and not high.mask[32:].any()
    monkeypatch.setattr(predictor.model.config, "mask_curve", [0.5, 0.0])  # 0.82 and 0.44: less sure than it looks
    assert predictor.predict(["a", "b", "c"])[2].mask.all()


def expected_iou(logits: np.ndarray, cut: float) -> float:
    """Overlap over union to expect of what lies above a cut; probabilities under 0.05 are not counted as missed."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    chosen = logits > cut
    overlap = probabilities[chosen].sum()
    return float(overlap / (max(probabilities[probabilities >= 0.05].sum(), overlap) + chosen.sum() - overlap))


DECIDES = DecidingSettings(presence_decides=True)
SOME_LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-12, 12, width=32))


@given(SOME_LOGITS)
def test_no_other_cut_can_expect_more(logits: np.ndarray) -> None:
    logits += max(0, -1 - logits.max())  # of fainter maps see below
    cut = float(threshold_of(torch.from_numpy(logits), DECIDES))
    others = [expected_iou(logits, float(other)) for other in np.nextafter(np.unique(logits), -np.inf)]
    assert expected_iou(logits, cut) >= max(others) * (1 - 2e-3)  # the least step below the highest may take in more
    assert cut <= 0 or cut == pytest.approx(0, abs=1e-5)


@given(SOME_LOGITS, st.floats(-200, 100), st.sampled_from([(1.0, 0.0), (0.5, -0.75), (3.0, 2.0)]))
def test_where_presence_decides_no_mask_is_empty(logits: np.ndarray, shift: float, curve: tuple[float, float]) -> None:
    shifted = torch.from_numpy(logits) + shift
    found = decide(shifted, 1.0, DecidingSettings(presence_decides=True, mask_curve=curve))
    assert found.present and found.mask[shifted.argmax()] and torch.isfinite(found.threshold)


@pytest.mark.parametrize("highest", [0.5, -1.0, -2.8, -4.0, -9.0, -90.0])
def test_a_faint_thing_keeps_its_size(highest: float) -> None:
    """Presence says that it is there, so its best pixels are likelier than they look by themselves."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blob = highest - ((rows - 30) ** 2 + (columns - 30) ** 2) / 50
    found = int(decide(blob, 1.0, DECIDES).mask.sum())
    assert 100 < found < 1200
    if highest <= -1:  # however faint it is, all that counts is how its pixels compare
        assert found == int(decide(blob - highest - 1, 1.0, DECIDES).mask.sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_no_mask_empty(dtype: torch.dtype) -> None:
    found = decide(torch.tensor([-70.0, -75.0], dtype=dtype), 1.0, DECIDES)
    assert found.mask.tolist() == [True, False] and found.threshold.dtype == torch.float32


@pytest.mark.parametrize("curve", [[0.0, 0.0], [-1.0, 0.0], [1.0], [1.0, float("nan")], [1.0, 0.0, 0.0]])
def test_a_mask_curve_that_is_none_is_refused(debug_model: SegEarth, curve: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"model.mask_curve"):
        deciding_of(replace(debug_model.config, mask_curve=curve))
    with pytest.raises(ConfigError, match=r"model.score_curve is \[2.0\]; give a slope and an offset"):
        deciding_of(replace(debug_model.config, score_curve=[2.0]))


def test_the_search_goes_on_until_nothing_is_better() -> None:
    """One sure pixel first; then all there are; then those that are worth it."""
    probabilities = torch.tensor([0.9] + [0.4] * 1000 + [0.2] * 500)
    assert decide(probabilities.logit(), 1.0, DECIDES).mask.sum() == 1001


def test_three_candidates_are_better_than_none() -> None:
    third = float(np.log(1 / 2))  # the logit of a third
    logits = torch.tensor([third] * 3 + [-9.0] * 20)
    assert decide(logits, 1.0, DECIDES).mask.tolist() == [True] * 3 + [False] * 20
    assert float(threshold_of(logits, DECIDES)) == pytest.approx(np.log(1 / 3))  # the logarithm of the IoU to expect
    surer = torch.tensor([2.0, third, third] + [-9.0] * 20)  # one of them far likelier: it alone
    assert decide(surer, 1.0, DECIDES).mask.sum() == 1


def test_a_curve_is_undone_in_the_threshold() -> None:
    logits = torch.tensor([0.4, -1.3, 2.2, -0.2, -4.0])
    curved = DecidingSettings(presence_decides=True, mask_curve=(0.5, -0.75))
    assert float(threshold_of(logits, curved)) * 0.5 - 0.75 == pytest.approx(
        float(threshold_of(logits * 0.5 - 0.75, DECIDES))
    )


def test_logits_come_when_asked_for_and_before_anything_is_decided(saying: Saying) -> None:
    predictor = saying([halves(-3.0, 1.5)], [-4.0])
    assert predictor.predict("a").logits is None
    found = predictor.predict("a", return_logits=True)
    (listed,) = predictor.predict(["a"], return_logits=True)
    assert np.array_equal(listed.logits, found.logits)
    assert not found.present and found.logits.dtype == np.float32
    assert np.array_equal(found.logits, np.array(halves(-3.0, 1.5), np.float32))


def test_the_score_is_read_off_the_models_curve(saying: Saying, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = saying([halves(2.0, -3.0), halves(2.0, -3.0)], [2.0, -2.0])
    monkeypatch.setattr(predictor.model.config, "score_curve", [0.5, -1.0])
    there, absent = predictor.predict(["a", "b"])
    assert there.score == pytest.approx(0.5, abs=1e-6)  # half of a logit of 2, less 1
    assert absent.score == 0.0  # no curve makes something of nothing


def test_score_by_hand() -> None:
    assert score_of(0.8, 1.0, 0.0) == 0.8
    assert score_of(0.0, 1.0, 0.0) == 0.0  # exactly: no curve is drawn
    assert score_of(0.8, 2.0, -1.0) == pytest.approx(probability(2 * np.log(4) - 1))
    assert score_of(0.8, 1.0, 0.5) == pytest.approx(probability(np.log(4) + 0.5))
    assert score_of(0.8, 2.0, 0.0) == pytest.approx(16 / 17)
    assert score_of(0.2, 0.0, 0.0) == 0.5
    steep = [score_of(raw, 1000.0, 0.0) for raw in (0.0, 1.0)]  # e to the power of 13,800 is no number
    assert steep == [pytest.approx(probability(-60), rel=1e-9, abs=0), pytest.approx(1, abs=1e-15)]


def test_logit_by_hand() -> None:
    assert logit(0.5) == 0
    assert logit(0.8) == pytest.approx(np.log(4))
    assert logit(0.0) == logit(1e-6) == pytest.approx(-np.log(999_999))  # infinite ends are moved in
    assert logit(1.0) == logit(1 - 1e-6) == pytest.approx(np.log(999_999))
    assert logit(2e-6) == pytest.approx(-np.log(499_999))


RAW = torch.tensor([[-3.0, -0.5, 0.2], [1.0, 2.0, -4.0]])


def test_deciding_is_a_step_of_its_own() -> None:
    """From raw scores alone, without a model: as a scene does with the scores of all its tiles."""
    found = decide(RAW, 0.5, DecidingSettings())
    assert found.mask.tolist() == [[False, False, True], [True, True, False]]
    assert found.present and found.judged
    assert found.score == pytest.approx(np.mean([probability(value) for value in (0.2, 1.0, 2.0)]), abs=1e-6)
    absent = decide(RAW, 0.49, DecidingSettings())
    assert (absent.present, absent.judged, absent.score, bool(absent.mask.any())) == (False, False, 0.0, False)
    assert absent.mask.shape == RAW.shape
    assert decide(RAW, 0.49, DecidingSettings(presence_threshold=0.4)).present
    curved = decide(RAW, 0.5, DecidingSettings(score_curve=(0.0, 1.0)))
    assert curved.score == pytest.approx(probability(1.0))


def test_other_logits_of_a_question_are_decided_as_its_own() -> None:
    frame = torch.tensor([[-0.5, 0.5, -2.5]])
    assert decide(RAW, 0.9, DecidingSettings()).of_frame(frame).tolist() == [[False, True, False]]
    assert not decide(RAW, 0.1, DecidingSettings()).of_frame(frame).any()
    low = decide(RAW - 4, 0.9, DECIDES, of_tiles=True)  # the highest is -2: cut at -3
    assert low.of_frame(frame).tolist() == [[True, True, True]] and low.mask.sum() == 1


@pytest.mark.parametrize("decides", [False, True])
@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_tiles_are_decided_once_for_all(decides: bool, shift: float) -> None:
    """Tile by tile with the threshold of the whole is what the whole in one piece is: each by itself is not."""
    settings, whole = DecidingSettings(presence_decides=decides), RAW + shift
    highest = torch.stack([tile.amax() for tile in whole]).amax()
    cut = threshold_of_tiles(highest, settings)
    assert float(cut) == (-3.0 if decides and shift else 0.0)
    of_whole = decide(whole, 1.0, settings, of_tiles=True).mask
    assert torch.equal(torch.stack([tile > cut for tile in whole]), of_whole)
    if decides and shift:
        by_itself = torch.stack([decide(tile[None], 1.0, settings, of_tiles=True).mask[0] for tile in whole])
        assert not torch.equal(by_itself, of_whole)


def test_faint_pixels_of_many_tiles_do_not_lower_the_cut() -> None:
    logits = torch.full((1000,), -0.5)
    logits[:10] = 6.0
    assert decide(logits, 1.0, DECIDES).mask.all()  # in one picture all of it is the best guess
    assert decide(logits, 1.0, DECIDES, of_tiles=True).mask.sum() == 10


def test_raw_scores_and_deciding_give_what_predict_gives(debug_model: SegEarth, picture: np.ndarray) -> None:
    predictor = Predictor(debug_model)
    predictor.set_image(picture)
    for answer in predictor.predict(QUESTIONS, return_logits=True):
        assert answer.logits is not None
        decided = decide(torch.from_numpy(answer.logits), answer.presence, predictor.facts.deciding)
        assert np.array_equal(decided.mask.numpy(), answer.mask)
        assert (decided.present, decided.score) == (answer.present, pytest.approx(answer.score, abs=1e-6))
