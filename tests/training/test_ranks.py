"""Ranks that see different data do the same things in the same order: one that does more waits for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from ranks import run_on_ranks, train


def values(folder: Path, dataset: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
        "data": {"train": [dataset], "questions_per_image": 2, "num_workers": 0},
        "loss": {"num_points": 64},
        "train": {
            "output_dir": str(folder), "max_steps": 3, "global_batch_size": 2, "micro_batch_size": 1,
            "learning_rate": 1e-3, "save_every": 100, "log_every": 1, **changes,
        },
    }  # fmt: skip


def every_second_has_an_answer(folder: Path) -> dict[str, Any]:
    """Six images with a question each; of those at even places the answer in words is known."""
    folder.mkdir()
    lines = []
    for i in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
        line = {"image": f"{i}.png", "question": f"the field {i}", "mask": [[8, 8, 40, 8, 40, 40, 8, 40]]}
        lines.append(line | ({"answer": "a green field"} if i % 2 == 0 else {}))
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"name": "jsonl", "root": str(folder)}


def cut_everything(folder: Path) -> str:
    """ZeRO-3 that cuts every parameter: the models of the tests are too small to be cut by the default."""
    path = folder / "cut.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}))
    return str(path)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", [2, 3])
def test_a_rank_without_answers_keeps_step_with_one_that_has_some(tmp_path: Path, stage: int) -> None:
    deepspeed = cut_everything(tmp_path) if stage == 3 else "zero2"
    data = every_second_has_an_answer(tmp_path / "data")
    run_on_ranks(train, values(tmp_path / "run", data, deepspeed=deepspeed))
    assert len(metrics(tmp_path / "run")) == 3
    assert all(line["text"] > 0 for line in metrics(tmp_path / "run"))


def train_with_empty_batches(values: dict[str, Any]) -> str:
    """Trains where image 1 and image 4 show nothing that one could ask about."""
    from segearth.data.loading import TrainingView

    original = TrainingView.__getitem__

    def sometimes_empty(view: TrainingView, key: tuple[int, int]) -> Any:
        example = original(view, key)
        return replace(example, questions=[]) if key[1] in (1, 4) else example

    TrainingView.__getitem__ = sometimes_empty  # type: ignore[method-assign]
    return train(values)


def test_a_rank_without_questions_keeps_step_with_one_that_has_some(tmp_path: Path) -> None:
    data = every_second_has_an_answer(tmp_path / "data")
    changed = values(tmp_path / "run", data, deepspeed=cut_everything(tmp_path))
    run_on_ranks(train_with_empty_batches, changed)
    assert len(metrics(tmp_path / "run")) == 3
    assert all(0 < line["total"] < 100 for line in metrics(tmp_path / "run"))
