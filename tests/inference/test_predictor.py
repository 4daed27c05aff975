from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segearth.errors import ImageError, QuestionError, SegEarthError
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.text.known_words import KnownWords


@pytest.fixture(scope="module")
def predictor(debug_model: SegEarth) -> Iterator[Predictor]:
    usual, debug_model.config.presence_threshold = debug_model.config.presence_threshold, 0.0
    yield Predictor(debug_model)  # random weights: never call a thing absent
    debug_model.config.presence_threshold = usual


def test_several_questions_equal_one_by_one(predictor: Predictor, picture: np.ndarray) -> None:
    predictor.set_image(picture)
    questions = ["the road", "all buildings with a tin roof in the upper left corner", "ships"]
    together = predictor.predict(questions)
    for question, found in zip(questions, together, strict=True):
        alone = predictor.predict(question)
        assert found.question == alone.question == question
        assert np.array_equal(found.mask, alone.mask)
        assert found.presence == pytest.approx(alone.presence, abs=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (65, 131), (999, 77), (64, 4000), (1201, 1999)])
def test_a_mask_has_exactly_the_images_size(predictor: Predictor, size: tuple[int, int]) -> None:
    predictor.set_image(np.full((*size, 3), 90, np.uint8))
    assert predictor.predict("roads").mask.shape == size


@pytest.mark.slow
def test_a_large_image(predictor: Predictor) -> None:
    predictor.set_image(np.full((4000, 4000, 3), 90, np.uint8))
    assert [r.mask.shape for r in predictor.predict(["a"] * 8)] == [(4000, 4000)] * 8


def test_every_form_of_an_image(predictor: Predictor, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    masks = []
    for form in (picture, Image.fromarray(picture), tmp_path / "a.png", str(tmp_path / "a.png")):
        predictor.set_image(form)
        masks.append(predictor.predict("roads").mask)
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    predictor.set_image(picture[..., 0])  # grey
    assert predictor.predict("roads").mask.shape == picture.shape[:2]
    predictor.set_image(np.dstack([picture, picture[..., :1]]))  # alpha
    assert np.array_equal(predictor.predict("roads").mask, masks[0])


def test_an_answer_in_words(predictor: Predictor, picture: np.ndarray) -> None:
    """Written by the model for this question and task about this image, and only where words are asked for."""
    predictor.set_image(picture)
    features = predictor.model.encode_image(predictor.transform.apply(picture)[None])
    asked = [Question("the roads"), Question("Where can a ship land?", task="reasoning")]
    expected = [predictor.model.generate_answers(features, [one], torch.zeros(1, dtype=torch.long))[0] for one in asked]
    assert expected[0] != expected[1] and all(expected)
    found = predictor.predict([one.text for one in asked], task=[one.task for one in asked], answer=True)
    assert [one.answer for one in found] == expected
    assert predictor.predict(asked[0].text, answer=True).answer == expected[0]
    swapped = predictor.predict(asked[0].text, task="reasoning", answer=True).answer
    assert swapped != expected[0]  # the prompt of the other task
    assert predictor.predict(asked[0].text, task=["reasoning"], answer=True).answer == swapped
    assert predictor.predict("the roads").answer is None


def test_what_is_absent_has_an_empty_mask(debug_model: SegEarth, picture: np.ndarray) -> None:
    debug_model.config.presence_threshold = 1.1
    predictor = Predictor(debug_model)
    predictor.set_image(picture)
    found = predictor.predict("roads")
    debug_model.config.presence_threshold = 0.0
    assert (found.present, found.score, bool(found.mask.any())) == (False, 0.0, False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.jpg", "no image file"),
        (np.zeros((64, 64, 3)), "float64; scale it to 0-255"),
        (np.zeros((64, 64, 2), np.uint8), r"shape \(64, 64, 2\)"),
        (np.zeros((4, 64, 3), np.uint8), "64x4 px"),
        (7, "cannot read an image from int"),
    ],
)
def test_images_that_cannot_be_used(predictor: Predictor, image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        predictor.set_image(image)  # type: ignore[arg-type]


def test_the_model_is_put_where_it_shall_run_and_no_longer_trains(
    debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[object] = []
    monkeypatch.setattr(debug_model, "to", moved.append)
    assert Predictor(debug_model.train()).model is debug_model
    assert not debug_model.training
    assert moved == []
    Predictor(debug_model, "cpu")
    assert moved == ["cpu"]


def test_a_damaged_image(predictor: Predictor, picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    with pytest.raises(ImageError, match=r"a\.jpg: damaged"):
        predictor.set_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("roof " * 20_000, "100000 characters"),
        ("roof, " * 300, "this model takes 256"),
        ("the \udcff roof", "half a character"),
    ],
)
def test_questions_that_cannot_be_asked(predictor: Predictor, picture: np.ndarray, question: str, message: str) -> None:
    predictor.set_image(picture)
    with pytest.raises(QuestionError, match=message):
        predictor.predict(question)


@pytest.mark.parametrize("fault", ["image", "encoder"])
def test_a_failed_set_image_leaves_no_image(
    debug_model: SegEarth, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    predictor = Predictor(debug_model)
    predictor.set_image(picture)

    def out_of_memory(images: object) -> None:
        raise RuntimeError("out of memory")

    if fault == "encoder":
        monkeypatch.setattr(debug_model, "encode_image", out_of_memory)
    with pytest.raises((ImageError, RuntimeError), match=r"no image file|out of memory"):
        predictor.set_image("nowhere.png" if fault == "image" else picture[:50, :40])
    with pytest.raises(SegEarthError, match=r"no image is set .*call set_image first"):
        predictor.predict("roads")
    monkeypatch.undo()
    predictor.set_image(picture[:50, :40])
    assert predictor.predict("roads").mask.shape == (50, 40)


def test_pil_images_are_turned_as_files_are(predictor: Predictor, picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: shown a quarter turn clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    predictor.set_image(tmp_path / "a.png")
    expected = predictor.predict("roads").mask
    assert expected.shape == picture.shape[1::-1]
    with Image.open(tmp_path / "a.png") as image:
        predictor.set_image(image)
    assert np.array_equal(predictor.predict("roads").mask, expected)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pil_images_of_more_than_8_bits_are_refused(predictor: Predictor, mode: str) -> None:
    with pytest.raises(ImageError, match=f"PIL image: mode {mode} is not 8-bit; stretch it to 8 bits first"):
        predictor.set_image(Image.new(mode, (64, 64)))


def test_words_that_look_like_special_tokens_are_words(predictor: Predictor, picture: np.ndarray) -> None:
    predictor.set_image(picture)
    for text in ("[SEG]", "the <|endoftext|> [PAD]"):
        assert predictor.predict(text).mask.shape == picture.shape[:2]


def test_misuse(debug_model: SegEarth, picture: np.ndarray) -> None:
    fresh = Predictor(debug_model)
    with pytest.raises(SegEarthError, match="call set_image first"):
        fresh.predict("roads")
    fresh.set_image(picture)
    with pytest.raises(SegEarthError, match="unknown task"):
        fresh.predict("roads", task="guessing")
    with pytest.raises(SegEarthError, match="2 questions but 1 tasks"):
        fresh.predict(["a", "b"], task=["reasoning"])


def test_words_that_the_model_never_met_are_passed_over_and_told(
    debug_model: SegEarth, picture: np.ndarray, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(debug_model)
    predictor.set_image(picture)
    plain, other = predictor.predict(["the road", "Which pixels belong to the road"], return_logits=True)
    assert (plain.unknown_words, other.unknown_words) == ((), ())  # without a list every word is taken
    assert not np.array_equal(plain.logits, other.logits)
    monkeypatch.setattr(debug_model, "known_words", KnownWords(["the", "road", "roads"]))
    known, unknown, again = predictor.predict(
        ["the road", "Which pixels belong to the road", "Which roads"], return_logits=True
    )
    assert known.unknown_words == ()
    np.testing.assert_allclose(known.logits, plain.logits, atol=1e-5)
    assert unknown.unknown_words == ("which", "pixels", "belong", "to")
    assert unknown.question == "Which pixels belong to the road"
    np.testing.assert_allclose(unknown.logits, plain.logits, atol=1e-5)
    assert again.unknown_words == ("which",)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the model never met 'which', 'pixels', 'belong', 'to' in training and goes by the other words"
    ]  # each word once
