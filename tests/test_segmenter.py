"""The contract that evaluation, controls and reports ask through, with the least that fulfils it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segearth.data.registry import build_dataset
from segearth.errors import SegEarthError
from segearth.evaluation.report import run_evaluation
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth
from segearth.segmenter import (
    DecidingSettings,
    Segmenter,
    SegmenterFacts,
    facts_of,
    frame_size_of,
    numbers_of_images,
    one_each,
)
from segearth.structures import Segmentation


class UpperLeft:
    """Answers every question with the upper left quarter of its image."""

    def set_image(self, image: Any) -> None:
        self.set_images([image])

    def set_images(self, images: Any) -> None:
        self.shapes = [np.asarray(image).shape[:2] for image in images]

    def predict(self, questions: Any, *, about: Any = None, **options: Any) -> list[Segmentation]:
        answers = []
        for text, number in zip(questions, numbers_of_images(about, len(questions), len(self.shapes)), strict=True):
            height, width = self.shapes[number]
            mask = np.zeros((height, width), bool)
            mask[: height // 2, : width // 2] = True
            answers.append(Segmentation(text, mask, 0.5, True, 0.5))
        return answers


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stub_goes_through_evaluation_controls_and_report(tmp_path: Path, batch_size: int) -> None:
    split = build_dataset("synthetic", None, "test", length=4, size=64)
    stub: Segmenter = UpperLeft()
    result = run_evaluation(
        stub, split, tmp_path, model_name="quarter", train_dataset=split, batch_size=batch_size, progress=False
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"] == "quarter" and set(report["controls"]) >= {"everything", "nothing", "shuffled_questions"}
    assert {record.predicted_area for record in result.records} == {32 * 32}
    assert len(result.records) == sum(len(sample.questions) for sample in split)
    # It hears no word: asked about other images' things it says the same.
    assert result.control_metrics["shuffled_questions"].giou == pytest.approx(result.metrics.giou)
    assert (tmp_path / "report.md").is_file() and (tmp_path / "samples.jsonl").is_file()


def test_who_fulfils_the_contract(debug_model: SegEarth) -> None:
    assert isinstance(UpperLeft(), Segmenter)
    assert isinstance(Predictor(debug_model), Segmenter)
    assert not isinstance(debug_model, Segmenter)


def test_what_a_segmenter_tells_of_itself_and_what_is_taken_else(
    debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts_of(UpperLeft()) == SegmenterFacts("native", None, "cpu", DecidingSettings(0.5, False, (1.0, 0.0)))
    assert frame_size_of(UpperLeft())(3, 4) == frame_size_of(UpperLeft())(40, 30)  # any go together
    predictor = Predictor(debug_model)
    for name, value in {"protocol": "segearth_r1", "presence_threshold": 0.25, "presence_decides": True}.items():
        monkeypatch.setattr(debug_model.config, name, value)
    monkeypatch.setattr(debug_model.config, "score_curve", [2.0, -1.0])
    side = debug_model.config.image_transform.size
    assert facts_of(predictor) == SegmenterFacts("segearth_r1", side, "cpu", DecidingSettings(0.25, True, (2.0, -1.0)))
    assert frame_size_of(predictor)(120, 96) == predictor.frame_size(120, 96)


def test_one_for_all_or_one_each() -> None:
    assert one_each("referring", 2, "tasks") == ["referring"] * 2
    assert one_each(["a", "b"], 2, "tasks") == ["a", "b"]
    with pytest.raises(SegEarthError, match="2 questions but 1 tasks; give one for all, or one each"):
        one_each(["ab"], 2, "tasks")


def test_which_image_a_question_is_about() -> None:
    assert numbers_of_images(None, 2, 1) == [0, 0]
    assert numbers_of_images(1, 2, 3) == [1, 1]
    assert numbers_of_images([2, 0], 2, 3) == [2, 0]
    with pytest.raises(SegEarthError, match=r"3 images are set; say which one .*about=\[…\], from 0 to 2"):
        numbers_of_images(None, 2, 3)
    for strange in (3, -1):
        with pytest.raises(SegEarthError, match=f"about names image {strange}, but 3 are set"):
            numbers_of_images([0, strange], 2, 3)
