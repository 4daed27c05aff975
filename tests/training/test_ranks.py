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
from experiments import cut_everything, metrics, train, values
from ranks import run_on_ranks


def on(dataset: dict[str, Any], folder: Path, **train: Any) -> dict[str, Any]:
    """Three steps of one image a rank."""
    plain = values(folder, max_steps=3, save_every=9, **train)
    plain["data"]["train"] = [dataset]
    return plain


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


@pytest.mark.parametrize("stage", [2, 3])
def test_a_rank_without_answers_keeps_step_with_one_that_has_some(tmp_path: Path, stage: int) -> None:
    deepspeed = cut_everything(tmp_path) if stage == 3 else "zero2"
    data = every_second_has_an_answer(tmp_path / "data")
    run_on_ranks(train_plainly, on(data, tmp_path / "run", deepspeed=deepspeed))
    assert len(metrics(tmp_path / "run")) == 3
    assert any(line["text"] > 0 for line in metrics(tmp_path / "run"))  # three of six: not all meet their like


def train_plainly(plain: dict[str, Any]) -> None:
    train(plain)


def train_with_empty_batches(plain: dict[str, Any]) -> None:
    """Trains where image 1 and image 4 show nothing that one could ask about."""
    from segearth.data.feed.loading import TrainingView

    original = TrainingView.__getitem__

    def sometimes_empty(view: TrainingView, key: tuple[int, int]) -> Any:
        example = original(view, key)
        return replace(example, questions=[]) if key[1] in (1, 4) else example

    TrainingView.__getitem__ = sometimes_empty  # type: ignore[method-assign]
    train(plain)


def test_a_rank_without_questions_keeps_step_with_one_that_has_some(tmp_path: Path) -> None:
    data = every_second_has_an_answer(tmp_path / "data")
    changed = on(data, tmp_path / "run", deepspeed=cut_everything(tmp_path))
    changed["model"] |= {"coordinates": True, "mask_decoder": {"box_gate": True}, "region_chooser": True}
    changed["loss"] |= {"boxes": 1.0, "choice": 1.0}
    run_on_ranks(train_with_empty_batches, changed)
    assert len(metrics(tmp_path / "run")) == 3
    assert any(line["boxes"] > 0 for line in metrics(tmp_path / "run"))
    assert all(0 < line["total"] < 100 for line in metrics(tmp_path / "run"))
