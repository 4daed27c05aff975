"""The check that finds most mistakes: sixteen questions are learned by heart."""

from __future__ import annotations

from pathlib import Path

import pytest

from segearth.config import ExperimentConfig, from_dict
from segearth.data.registry import build_dataset
from segearth.evaluation.evaluator import evaluate
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from segearth.training.trainer import Trainer

SIXTEEN = {"length": 4, "size": 128, "max_questions": 4}


def test_sixteen_samples_are_learned_by_heart(tmp_path: Path) -> None:
    values = {
        "model": {"name": "segearth_debug", "image_transform": {"size": 128}},
        "data": {
            "train": [{"name": "synthetic", "options": SIXTEEN}],
            "val": [],
            "questions_per_image": 4,
            "augment": {"enabled": False},
            "num_workers": 0,
        },
        "loss": {"num_points": 512, "text": 0.0},
        "train": {
            "output_dir": str(tmp_path), "max_steps": 400, "global_batch_size": 4, "micro_batch_size": 4,
            "learning_rate": 3e-3, "warmup_ratio": 0.05, "save_every": 1000, "log_every": 50, "deepspeed": "zero0",
        },
    }  # fmt: skip
    Trainer(from_dict(ExperimentConfig, values)).run()
    dataset = build_dataset("synthetic", None, "train", **SIXTEEN)
    result = evaluate(Predictor(SegEarth.from_pretrained(tmp_path)), dataset, controls=False, progress=False)
    assert result.metrics.samples == 16
    assert result.metrics.giou > 0.9
