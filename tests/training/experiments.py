"""Experiments of a few steps, for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from segearth.config import ExperimentConfig, from_dict
from segearth.models.segearth import SegEarth
from segearth.training.trainer import Trainer


def values(folder: Path, **train: Any) -> dict[str, Any]:
    return {
        "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
        "data": {"train": [{"name": "synthetic"}], "val": [], "questions_per_image": 2, "num_workers": 0},
        "loss": {"num_points": 64},
        "train": {
            "output_dir": str(folder), "max_steps": 6, "global_batch_size": 2, "micro_batch_size": 1,
            "learning_rate": 1e-3, "save_every": 3, "log_every": 1, **train,
        },
    }  # fmt: skip


def experiment(folder: Path, **train: Any) -> ExperimentConfig:
    return from_dict(ExperimentConfig, values(folder, **train))


def cut_everything(folder: Path) -> str:
    """ZeRO-3 that cuts every parameter: the models of the tests are too small to be cut by the default."""
    path = folder / "cut.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}))
    return str(path)


def train(plain: dict[str, Any]) -> Trainer:
    """Trains an experiment given as plain values."""
    trainer = Trainer(from_dict(ExperimentConfig, plain))
    trainer.run()
    return trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return SegEarth.from_pretrained(folder).state_dict()


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def moments(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The optimiser's running mean of each gradient, whole and by name; all ranks call it together."""
    parts = trainer.masters.parts()
    kept = [part.detach().clone() for part in parts]
    for part in parts:  # where the masters are brought together, so is what stands in their place
        part.data.copy_(trainer.engine.basic_optimizer.state[part]["exp_avg"])
    whole = trainer.masters.learned()
    for part, value in zip(parts, kept, strict=True):
        part.data.copy_(value)
    return whole
