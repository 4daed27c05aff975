from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from segearth.cli import app
from segearth.errors import ConfigError, SegEarthError
from segearth.inference.predictor import Predictor
from segearth.inference.tiled import TiledSegmenter, for_picture
from segearth.inference.tiles import CERTAIN, cut_at_presence, evidence_of
from segearth.models.segearth import SegEarth
from segearth.segmenter import DecidingSettings, Segmenter, SegmenterFacts, numbers_of_images
from segearth.structures import Segmentation, Task


class Bright:
    """Finds bright pixels; ``facts`` as a small model has them."""

    facts = SegmenterFacts(side=32, deciding=DecidingSettings(presence_threshold=0.5))

    def set_image(self, image: Any) -> None:
        self.set_images([image])

    def set_images(self, images: Sequence[Any]) -> None:
        self.images = list(images)

    def predict(self, questions: Sequence[str], *, about: Any = None, **options: Any) -> list[Segmentation]:
        answers = []
        for text, number in zip(questions, numbers_of_images(about, len(questions), len(self.images)), strict=True):
            logits = self.images[number].mean(2).astype(np.float32) / 16 - 8
            answers.append(Segmentation(text, logits > 0, 0.5, True, 0.9, logits=logits))
        return answers


@given(st.integers(8, 90), st.integers(8, 90), st.integers(0, 16))
def test_what_depends_on_pixels_alone_is_as_without_tiles(height: int, width: int, overlap: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tiled: Segmenter = TiledSegmenter(Bright(), 32, overlap)
    tiled.set_image(image)
    (answer,) = tiled.predict(["the bright things"], return_logits=True)
    expected = np.minimum(image.mean(2) / 16 - 8, np.log(9))  # cut at the logit of presence
    np.testing.assert_allclose(answer.logits, expected, atol=1e-4)
    assert answer.presence == 0.9 and answer.mask.shape == (height, width)


def test_a_tile_has_no_pair_and_a_region_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bright, "facts", SegmenterFacts(side=32, sees_pairs=True, takes_boxes=True))
    facts = TiledSegmenter(Bright()).facts
    assert not facts.sees_pairs and not facts.takes_boxes


def test_several_pictures_of_different_sizes(debug_model: SegEarth) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((40, 200), (150, 90))]
    tiled = TiledSegmenter(Predictor(debug_model), 128, 32)
    assert tiled.facts.side is None
    tiled.set_images(images)
    asked = [("the road", 1), ("the roofs", 0), ("the roofs", 1)]
    answers = tiled.predict([text for text, _ in asked], about=[number for _, number in asked])
    assert [answer.mask.shape for answer in answers] == [(150, 90), (40, 200), (150, 90)]
    tiled.set_image(images[1])
    alone = tiled.predict(["the road"])[0]
    np.testing.assert_array_equal(alone.mask, answers[0].mask)


def test_evidence_is_cut_at_presence() -> None:
    logits = np.array([[-3.0, 0.5, 8.0]], np.float32)
    np.testing.assert_allclose(cut_at_presence(logits, 0.9, 0.5), [[-3, 0.5, np.log(9)]], atol=1e-5)
    np.testing.assert_allclose(cut_at_presence(logits, 0.9, 0.95), [[-3, -0.747214, -0.747214]], atol=1e-5)


def test_evidence_is_finite_also_in_half_precision() -> None:
    logits = np.array([[-np.inf, -1e5, -3.0]], np.float32)
    assert cut_at_presence(logits, 0.9, 0.5).astype(np.float16).tolist() == [[-100, -100, -3]]


class MasksAlone(Bright):
    def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
        return [replace(answer, logits=None) for answer in super().predict(questions, **options)]


@pytest.mark.parametrize(("kind", "high"), [(Bright, np.log(9)), (MasksAlone, CERTAIN)])
def test_a_mask_alone_is_certain_whatever_presence_says(kind: type[Bright], high: float) -> None:
    segmenter = kind()
    segmenter.set_image(np.array([[[0] * 3, [255] * 3]], np.uint8))
    (answer,) = evidence_of(segmenter, ["x"], ["referring"], [0])
    assert answer.presence == 0.9
    np.testing.assert_allclose(answer.logits, [[-8 if kind is Bright else -CERTAIN, high]], atol=1e-5)


def test_undecided_answers_are_those_that_are_decided(debug_model: SegEarth) -> None:
    predictor = Predictor(debug_model)
    rng = np.random.default_rng(0)
    predictor.set_images([rng.integers(0, 256, (size, 90, 3), dtype=np.uint8) for size in (90, 88)])
    asked, about = ["the road", "the roofs", "the road"], [1, 0, 0]
    tasks: list[Task] = ["referring", "reasoning", "referring"]
    decided = predictor.predict(asked, about=about, task=tasks, return_logits=True)
    raw = predictor.predict_raw(asked, about=about, task=tasks)
    evidence = evidence_of(predictor, asked, tasks, about)
    threshold = predictor.facts.deciding.presence_threshold
    for one, cut, other in zip(raw, evidence, decided, strict=True):
        assert other.logits is not None
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(cut.logits, cut_at_presence(other.logits, other.presence, threshold))
        assert one[1:] == cut[1:] == (other.presence, other.unknown_words)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="half a tile"):
        TiledSegmenter(Bright(), 32, 20)
    tiled = TiledSegmenter(Bright())
    with pytest.raises(SegEarthError, match="set_image"):
        tiled.predict(["x"])
    tiled.set_image(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(SegEarthError, match="in words"):
        tiled.predict(["x"], answer=True)


@pytest.mark.parametrize(
    ("side", "question", "tiled", "wraps", "note"),
    [
        (40, "the roofs", True, False, None),
        (80, "the roofs", True, True, None),
        (80, "the roofs", False, False, "--tiles auto"),
        (80, "the largest roof", True, False, "segearth scene"),
    ],
)
def test_how_a_picture_is_looked_at(side: int, question: str, tiled: bool, wraps: bool, note: str | None) -> None:
    stub = Bright()
    chosen, said = for_picture(stub, np.zeros((20, side, 3), np.uint8), question, tiled)
    assert isinstance(chosen, TiledSegmenter) is wraps and (chosen is stub) is not wraps
    assert said is None if note is None else note in str(said)


def test_the_command(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 300, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    command = ["predict", str(tmp_path / "in.png"), "the roofs", "--model", "segearth_debug"]
    plain = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "plain.png")])
    tiled = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "tiled.png"), "--tiles", "auto"])
    assert plain.exit_code == tiled.exit_code == 0 and "--tiles auto" in plain.output
    assert "note" not in tiled.output and Image.open(tmp_path / "tiled.png").size == (300, 60)
    wrong = CliRunner().invoke(app, [*command, "--tiles", "big"])
    assert wrong.exit_code == 1 and "auto" in wrong.output
