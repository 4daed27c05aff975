"""Both stages of the decoupled family on two processes, with the weights shared out among them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_on_ranks

from segearth.config import ExperimentConfig

pytest.importorskip("trl", reason="trl is not installed: pip install 'segearth[rl]'")


def train(experiment: ExperimentConfig) -> str:
    """What the command does in one of several processes."""
    from segearth.cli.experiments import _train_policy

    return str(_train_policy(experiment))


def column(path: Path, name: str) -> list[float]:
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def opened(folder: Path) -> dict[str, Any]:
    """Every weight of a saved model, none of them random."""
    from transformers import AutoModelForImageTextToText

    model, told = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    return dict(model.state_dict())


def test_with_zero3_two_processes_learn_what_one_does(tmp_path: Path, tiny_experiment: Callable[..., Any]) -> None:
    settings = ["sft.micro_batch_size=2", "train.micro_batch_size=4", "sft.learning_rate=1e-2"]
    run_on_ranks(train, tiny_experiment(tmp_path / "two", *settings, "train.deepspeed=zero3"))
    train(tiny_experiment(tmp_path / "one", "sft.learning_rate=1e-2"))
    one, two = (column(tmp_path / run / "sft/sft.csv", "loss") for run in ("one", "two"))
    assert len(one) == 2 and two == pytest.approx(one, rel=1e-3)  # each process logs the mean over its own tokens
    start, one, two = (opened(tmp_path / name) for name in ("one/start", "one/sft_model", "two/sft_model"))
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 5e-3  # something was learned
    # A step of Adam has a size of its own where a gradient is nearly nothing, so that a few weights may lie apart.
    far = torch.cat([((two[name] - value).abs() > 2e-3).flatten() for name, value in one.items()])
    assert far.float().mean() < 0.01
    assert len(column(tmp_path / "two/grpo/grpo.csv", "loss")) == 2
    assert (tmp_path / "two/prompted.json").is_file() and opened(tmp_path / "two/vlm").keys() == one.keys()
