"""The check that finds most mistakes: a few questions are learned by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segearth.config import ExperimentConfig, from_dict
from segearth.data.registry import build_dataset
from segearth.evaluation.evaluator import evaluate
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from segearth.training.trainer import Trainer

# A few images and four questions of each; the smaller task takes ten seconds and still nothing learns it by chance.
SMALL = {"images": 2, "size": 64, "steps": 150, "giou": 0.7}
SIXTEEN = {"images": 4, "size": 128, "steps": 400, "giou": 0.9}


@pytest.mark.parametrize("task", [SMALL, pytest.param(SIXTEEN, marks=pytest.mark.slow)], ids=["small", "sixteen"])
def test_a_few_samples_are_learned_by_heart(tmp_path: Path, task: dict[str, Any]) -> None:
    drawn = {"length": task["images"], "size": task["size"], "max_questions": 4}
    values = {
        "model": {"name": "segearth_debug", "image_transform": {"size": task["size"]}},
        "data": {
            "train": [{"name": "synthetic", "options": drawn}],
            "val": [],
            "questions_per_image": 4,
            "augment": {"enabled": False},
            "num_workers": 0,
        },
        "loss": {"num_points": 512, "text": 0.0},
        "train": {
            "output_dir": str(tmp_path), "max_steps": task["steps"], "global_batch_size": task["images"],
            "micro_batch_size": task["images"], "learning_rate": 3e-3, "warmup_ratio": 0.05, "save_every": 1000,
            "log_every": 50, "deepspeed": "zero0",
        },
    }  # fmt: skip
    Trainer(from_dict(ExperimentConfig, values)).run()
    dataset = build_dataset("synthetic", None, "train", **drawn)
    result = evaluate(Predictor(SegEarth.from_pretrained(tmp_path)), dataset, controls=False, progress=False)
    assert result.metrics.samples == 4 * task["images"]
    assert result.metrics.giou > task["giou"]
