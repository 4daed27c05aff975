"""SAM 3 behind the contract of whatever answers questions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segearth.errors import CheckpointError, ImageError, QuestionError, SegEarthError, UnknownNameError
from segearth.inference.deciding import decide
from segearth.prompting.concepts import NOTHING, ConceptSegmenter
from segearth.segmenter import Segmenter, facts_of, frame_size_of

QUESTIONS = ["the roofs", "ships in the left half of the picture", "a road"]


@pytest.fixture
def segmenter(sam3: tuple[Any, Any], picture: np.ndarray) -> ConceptSegmenter:
    """One whose random weights see some of eight instances."""
    segmenter = ConceptSegmenter(*sam3)
    segmenter.set_image(picture)
    output = listened(segmenter, lambda: segmenter.predict(QUESTIONS))
    scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
    segmenter.threshold = float(scores.median())
    return segmenter


def listened(segmenter: ConceptSegmenter, act: Any) -> Any:
    """What the model says while something is done."""
    outputs: list[Any] = []
    handle = segmenter.model.register_forward_hook(lambda _, __, output: outputs.append(output))
    act()
    handle.remove()
    return outputs[-1]


def test_instances_that_count_make_the_answer(segmenter: ConceptSegmenter, picture: np.ndarray) -> None:
    assert isinstance(segmenter, Segmenter)
    answers: list[Any] = []
    output = listened(segmenter, lambda: answers.extend(segmenter.predict(QUESTIONS, return_logits=True)))
    seen = 0
    for row, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
        presence = output.presence_logits[row, 0].sigmoid()
        scores = output.pred_logits[row].sigmoid() * presence
        logits = torch.nn.functional.interpolate(output.pred_masks[row][None], picture.shape[:2], mode="bilinear")[0]
        counting = [i for i in scores.argsort(descending=True).tolist() if scores[i] >= segmenter.threshold]
        shown = [i for i in counting if (logits[i] > 0).any()]
        assert answer.question == question and answer.presence == pytest.approx(float(presence))
        assert [region.score for region in answer.regions] == pytest.approx([float(scores[i]) for i in shown])
        union = np.zeros(picture.shape[:2], bool)
        for i in counting:
            union |= (logits[i] > 0).numpy()
        assert np.array_equal(answer.mask, union) and answer.present == union.any()
        assert answer.score == pytest.approx(np.mean([float(scores[i]) for i in shown]) if shown else 0.0)
        again = decide(torch.from_numpy(answer.logits), answer.presence, facts_of(segmenter).deciding)
        assert np.array_equal(again.mask.numpy(), answer.mask)  # whoever joins tiles decides the same
        seen += len(shown)
    assert seen > 0


def test_where_nothing_reaches_the_threshold(segmenter: ConceptSegmenter) -> None:
    segmenter.threshold = 1.0
    answer = segmenter.predict("the roofs", return_logits=True)
    assert not answer.mask.any() and not answer.present and answer.score == 0 and answer.regions == ()
    assert 0 < answer.presence < 1 and (answer.logits == NOTHING).all()
    assert segmenter.predict(["the roofs"])[0].logits is None


def test_an_answer_does_not_depend_on_the_others(segmenter: ConceptSegmenter, picture: np.ndarray) -> None:
    other = np.ascontiguousarray(picture[::-1, :90])
    passes: list[int] = []
    handle = segmenter.model.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
    segmenter.set_images([picture, other])
    together = segmenter.predict([*QUESTIONS, *QUESTIONS] * 2, about=[0, 1, 0, 1, 0, 1] * 2)
    handle.remove()
    assert len(passes) == 2  # twelve questions, two images
    for place, answer in enumerate(together):
        segmenter.set_image((picture, other)[place % 2])
        alone = segmenter.predict((QUESTIONS * 4)[place])
        assert answer.mask.shape == (picture, other)[place % 2].shape[:2]
        assert np.array_equal(alone.mask, answer.mask) and alone.presence == pytest.approx(answer.presence, abs=1e-5)
    assert frame_size_of(segmenter)(96, 120) == frame_size_of(segmenter)(96, 90)


def test_a_phrase_is_asked_in_place_of_the_question(segmenter: ConceptSegmenter) -> None:
    expected = segmenter.predict("a road")
    segmenter.phrase_of = {"where can I drive?": "a road"}.__getitem__
    answer = segmenter.predict("where can I drive?")
    assert answer.question == "where can I drive?" and np.array_equal(answer.mask, expected.mask)


def test_long_questions_are_cut_and_that_is_said_once(
    segmenter: ConceptSegmenter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="segearth"):
        segmenter.predict("the roofs")
        assert caplog.text == ""
        for _ in range(2):
            segmenter.predict("the roofs of the houses " * 20)
    assert caplog.text.count("a question has more than 32 tokens") == 1


def test_what_it_sees_is_stretched_to_its_square(segmenter: ConceptSegmenter) -> None:
    seen: list[torch.Tensor] = []
    handle = segmenter.model.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    white = np.full((20, 40, 3), 255, np.uint8)
    white[..., 0] = 0
    segmenter.set_image(white)
    handle.remove()
    assert seen[0].shape == (1, 3, 64, 64)
    assert torch.equal(seen[0].amin((0, 2, 3)), torch.tensor([-1.0, 1.0, 1.0]))


def test_what_cannot_be_answered(segmenter: ConceptSegmenter) -> None:
    with pytest.raises(QuestionError, match="is empty; say what to look for"):
        segmenter.predict(["the roofs", " "])
    with pytest.raises(UnknownNameError, match="unknown task of a concept segmenter 'caption'"):
        segmenter.predict("the roofs", task="caption")
    with pytest.raises(SegEarthError, match="2 questions but 1 tasks"):
        segmenter.predict(["a", "b"], task=["referring"])
    with pytest.raises(ImageError):
        segmenter.set_image("nowhere.png")
    with pytest.raises(SegEarthError, match="no image is set"):
        segmenter.predict("the roofs")


def test_sam3_is_saved_and_opened(
    segmenter: ConceptSegmenter, sam3: tuple[Any, Any], picture: np.ndarray, tmp_path: Path, sam2: Any
) -> None:
    for part in sam3:
        part.save_pretrained(tmp_path / "sam3")
    opened = ConceptSegmenter.from_pretrained(tmp_path / "sam3", threshold=segmenter.threshold)
    opened.set_image(picture)
    for before, after in zip(segmenter.predict(QUESTIONS), opened.predict(QUESTIONS), strict=True):
        assert np.array_equal(before.mask, after.mask)
    sam2.save_pretrained(tmp_path / "sam2")
    with pytest.raises(CheckpointError, match="is a 'sam2'; give a SAM 3"):
        ConceptSegmenter.from_pretrained(tmp_path / "sam2")
