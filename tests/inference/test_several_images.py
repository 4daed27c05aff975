"""Several images set at a time are answered as each alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ImageError, SegEarthError, UnknownNameError
from segearth.inference import predictor as module
from segearth.inference.predictor import Predictor, RawScores, _portions
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.preprocessing.transform import ImageTransform
from segearth.zoo.lookup import model_config

SIZES = [(96, 120), (48, 60), (200, 251), (90, 119)]  # all are seen at 96 x 128
ASKED = [["the road", "ships"], [], ["all buildings with a tin roof", "a pond", "trees", "roads"], ["the road"]]
TASKS = [["referring", "reasoning"], [], ["referring"] * 4, ["reasoning"]]


@pytest.fixture
def predictor(debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    monkeypatch.setattr(debug_model.config, "presence_threshold", 0.0)  # random weights: never call a thing absent
    return Predictor(debug_model)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Blocks of colours, different in each image: on pure noise a random model says the same everywhere."""
    rng = np.random.default_rng(1)
    made = []
    for height, width in SIZES:
        blocks = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        made.append(np.kron(blocks, np.ones((1 + height // 5, 1 + width // 6, 1), np.uint8))[:height, :width])
    return made


def logits_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``predict`` return the question, the logits at the image's size, those in the frame, and the presence."""

    def kept(self: Any, question: str, raw: RawScores, with_logits: bool, unknown: tuple[str, ...]) -> Any:
        return question, raw.logits.clone(), None if raw.frame is None else raw.frame.clone(), raw.presence, raw.words

    monkeypatch.setattr(Predictor, "_decide", kept)


def ask(predictor: Predictor, questions: list[list[str]], tasks: list[list[str]] | None = None, **options: Any) -> Any:
    """Asks the questions of each image in one call; those of the images take turns, and are sorted out again."""
    turns = [(i, n) for i in range(max(map(len, questions))) for n, own in enumerate(questions) if i < len(own)]
    texts = [questions[n][i] for i, n in turns]
    task = "referring" if tasks is None else [tasks[n][i] for i, n in turns]
    found = predictor.predict(texts, task=task, about=[n for _, n in turns], **options)
    by_place = dict(zip(turns, found, strict=True))
    return [[by_place[i, n] for i in range(len(own))] for n, own in enumerate(questions)]


@pytest.fixture(scope="module", params=["plain", "segearth_r1"])
def model(request: pytest.FixtureRequest) -> SegEarth:
    """The published prompt opens the questions of a task with words that are read once an image and kept beside it."""
    torch.manual_seed(0)
    return build_model(model_config({"name": "segearth_debug", "text": {"template": request.param}})).eval()


@pytest.mark.parametrize("at_once", [1, 2, 3, 32])
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_each_image_is_answered_as_if_it_were_alone(
    model: SegEarth, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, at_once: int, fit: str
) -> None:
    predictor = Predictor(model)
    logits_of(monkeypatch)
    predictor.transform = ImageTransform(replace(model.config.image_transform, fit=fit))
    alone = []
    for picture, questions, tasks in zip(pictures, ASKED, TASKS, strict=True):
        predictor.set_image(picture)
        alone.append(predictor.predict(questions, task=tasks))
    assert (alone[0][0][1][::2, ::2][:48, :60] - alone[2][3][1][:48, :60]).abs().max() > 1e-3  # images do differ
    monkeypatch.setattr(module, "QUESTIONS_AT_ONCE", at_once)
    predictor.set_images(pictures)
    ask(predictor, [own[:1] for own in ASKED])  # what was asked before leaves no trace
    together = ask(predictor, ASKED, TASKS)
    assert [[answer[0] for answer in own] for own in together] == ASKED
    for size, one, same in zip(SIZES, alone, together, strict=True):
        for (_, logits, frame, presence, _), (_, logits2, frame2, presence2, _) in zip(one, same, strict=True):
            assert logits2.shape == logits.shape == size
            assert (logits - logits2).abs().max() < 1e-5
            assert presence2 == pytest.approx(presence, abs=1e-6)
            assert fit == "resize" or (frame - frame2).abs().max() < 1e-5


def test_words_belong_to_their_image_and_question(predictor: Predictor, pictures: list[np.ndarray]) -> None:
    """The language model's own answers: of one image alone they must be what they are in a batch."""
    alone = []
    for picture, questions in zip(pictures, ASKED, strict=True):
        predictor.set_image(picture)
        alone.append([answer.answer for answer in predictor.predict(questions, answer=True)])
    predictor.set_images(pictures)
    together = [[answer.answer for answer in own] for own in ask(predictor, ASKED, answer=True)]
    assert together == alone
    assert len({words for own in alone for words in own}) > 1


def test_one_image_is_the_special_case_of_several(predictor: Predictor, picture: np.ndarray) -> None:
    predictor.set_images([picture])
    one, several = predictor.predict("roads"), predictor.predict(["roads", "ships"], about=[0, 0])
    assert [answer.question for answer in several] == ["roads", "ships"]
    assert np.array_equal(one.mask, several[0].mask)
    assert np.array_equal(one.mask, predictor.predict(["roads"])[0].mask)
    predictor.set_image(picture)
    assert np.array_equal(one.mask, predictor.predict(["roads"], about=0)[0].mask)
    assert predictor.predict([]) == predictor.predict([], about=[]) == []


def test_frames_tell_which_images_can_be_set_together(predictor: Predictor, pictures: list[np.ndarray]) -> None:
    assert {predictor.frame_size(*size) for size in SIZES} == {(96, 128)}
    assert predictor.frame_size(120, 96) == (128, 96)
    predictor.set_images(pictures)
    with pytest.raises(ImageError, match=r"here: 96x128, 128x96; group them by Predictor\.frame_size"):
        predictor.set_images([pictures[0], pictures[0].transpose(1, 0, 2)])
    with pytest.raises(SegEarthError, match="no image is set"):  # not the images of before
        predictor.predict("roads", about=0)
    with pytest.raises(ImageError, match="here: no image"):
        predictor.set_images([])


def test_one_bad_image_leaves_none_set(predictor: Predictor, picture: np.ndarray) -> None:
    predictor.set_image(picture)
    with pytest.raises(ImageError, match="nowhere"):
        predictor.set_images([picture, "nowhere.jpg"])
    with pytest.raises(SegEarthError, match="no image is set"):
        predictor.predict("roads")


def test_questions_that_do_not_fit_the_images(predictor: Predictor, pictures: list[np.ndarray]) -> None:
    predictor.set_images(pictures)
    for questions in ("roads", ["roads"], ["roads"] * 4):
        with pytest.raises(SegEarthError, match=r"4 images are set; say which .* about: about=\[…\], from 0 to 3"):
            predictor.predict(questions)
    for about in (4, -1, [0, 4]):
        with pytest.raises(SegEarthError, match=r"about names image -?\d, but 4 are set, counted from 0"):
            predictor.predict(["roads", "ships"], about=about)
    with pytest.raises(SegEarthError, match=r"2 questions but 1 numbers of images; give one for all, or one each"):
        predictor.predict(["roads", "ships"], about=[0])
    with pytest.raises(SegEarthError, match=r"2 questions but 3 tasks; give one for all, or one each"):
        predictor.predict(["roads", "ships"], task=["referring"] * 3, about=0)
    with pytest.raises(UnknownNameError, match=r"unknown task 'resoning'; did you mean 'reasoning'"):
        predictor.predict(["roads", "ships"], task=["referring", "resoning"], about=1)


def test_a_question_is_answered_about_the_image_it_names(predictor: Predictor, pictures: list[np.ndarray]) -> None:
    """In any order, twice if so asked, and with images between of which nothing is asked."""
    predictor.set_images(pictures)
    texts, about = ["roads", "ships", "roads", "roads"], [3, 0, 0, 3]
    found = predictor.predict(texts, about=about)
    assert [answer.question for answer in found] == texts
    assert [answer.mask.shape for answer in found] == [SIZES[number] for number in about]
    assert np.array_equal(found[0].mask, found[3].mask)
    assert [a.mask.shape for a in predictor.predict(["roads", "ships"], about=2)] == [SIZES[2]] * 2
    assert predictor.predict("roads", about=1).mask.shape == SIZES[1]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_portions_hold_every_question_once_and_no_more_places_than_allowed(counts: list[int], most: int) -> None:
    asked = [[100 * image + i for i in range(count)] for image, count in enumerate(counts)]
    portions = list(_portions(asked, most))
    kept = [(image, place) for portion in portions for image, some in portion for place in some]
    assert kept == [(image, place) for image, places in enumerate(asked) for place in places]
    for portion in portions:
        assert portion
        assert all(some for _, some in portion)
        assert len({image for image, _ in portion}) == len(portion)
        assert len(portion) * max(len(some) for _, some in portion) <= most


def test_a_portion_is_filled_before_the_next_begins() -> None:
    asked = [[0] * count for count in (2, 2, 3, 1, 9)]
    sizes = [[(image, len(some)) for image, some in portion] for portion in _portions(asked, 6)]
    assert sizes == [[(0, 2), (1, 2)], [(2, 3), (3, 1)], [(4, 6)], [(4, 3)]]


def test_some_images_features_are_views(debug_model: SegEarth) -> None:
    with torch.inference_mode():
        features = debug_model.encode_image(torch.rand(3, 3, 64, 96))
    some = features.of_images(1, 3)
    assert some.image_tokens.data_ptr() == features.image_tokens[1].data_ptr()
    assert torch.equal(some.decoder.keys_values[2][1], features.decoder.keys_values[2][1][1:])
    assert torch.equal(some.prefix.embeds, features.prefix.embeds[1:])
    assert features.of_images(0, 3) is features
