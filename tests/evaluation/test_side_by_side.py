from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segearth.config import ExperimentConfig, load_experiment
from segearth.errors import ConfigError, UnknownNameError
from segearth.evaluation.side_by_side import Candidate, evaluate_side_by_side
from segearth.segmenter import numbers_of_images
from segearth.structures import Segmentation


class Everywhere:
    """Answers every question with all or with nothing of the image."""

    def __init__(self, full: bool) -> None:
        self.full = full

    def set_image(self, image: Any) -> None:
        self.set_images([image])

    def set_images(self, images: Sequence[Any]) -> None:
        self.shapes = [np.asarray(image).shape[:2] for image in images]

    def predict(self, questions: Sequence[str], *, about: Any = None, **options: Any) -> list[Segmentation]:
        numbers = numbers_of_images(about, len(questions), len(self.shapes))
        masks = [np.full(self.shapes[number], self.full) for number in numbers]
        return [Segmentation(text, mask, 0.5, self.full, 0.5) for text, mask in zip(questions, masks, strict=True)]


def experiment() -> ExperimentConfig:
    options = ["eval.limit=6", "eval.controls=false", "eval.sheet_rows=0"]
    return load_experiment("configs/experiment/aerial_mini.yaml", options)


def test_each_model_by_each_protocol(tmp_path: Path) -> None:
    candidates = [
        Candidate("everything", lambda: Everywhere(True), {}),
        Candidate("runs/none", lambda: Everywhere(False), {}),
    ]
    page = evaluate_side_by_side(experiment(), candidates, "test", tmp_path / "out")
    text = page.read_text()
    assert text.startswith("# everything and runs/none") and text.count("## Protocol") == 2
    assert text.count("\n| everything |") == 2 and "| runs/none |" in text and "95 % interval" in text
    assert (tmp_path / "out/native/runs--none/report.md").exists()
    assert (tmp_path / "out/segearth_r1/everything").is_dir()


@pytest.mark.parametrize(
    ("names", "protocols", "error"),
    [
        (["one"], ["native"], ConfigError),
        (["a/b", "a--b"], ["native"], ConfigError),
        (["a", "b"], ["nativ"], UnknownNameError),
    ],
)
def test_bad_input(tmp_path: Path, names: list[str], protocols: list[str], error: type[Exception]) -> None:
    candidates = [Candidate(name, lambda: Everywhere(True), {}) for name in names]
    with pytest.raises(error):
        evaluate_side_by_side(experiment(), candidates, "test", tmp_path, protocols)
