"""Images of several shapes, seen in their own aspects: a run that is cut and goes on equals one that is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from test_trainer import experiment, interrupt_at, weights

from segearth.config import DatasetConfig
from segearth.training.trainer import Trainer


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, lines = np.random.default_rng(0), []
    for number, (height, width) in enumerate([(64, 64), (40, 80), (80, 40), (64, 60), (44, 80)]):
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        outline = [[0, 0, width // 2, 0, width // 2, height // 2, 0, height // 2]]
        lines += [{"image": f"{number}.png", "question": text, "mask": outline} for text in ("ships", "roofs")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def trainer(name: str) -> Trainer:
        config = experiment(tmp_path / name, max_steps=4, save_every=2)
        config.data.train = [DatasetConfig("jsonl", str(tmp_path))]
        return Trainer(config)

    frames: list[torch.Size] = []
    whole = trainer("whole")
    assert sorted(set(whole.view.frames)) == [(32, 64), (64, 32), (64, 64)]
    hook = whole.model.vision_encoder.register_forward_pre_hook(lambda m, given: frames.append(given[0].shape[2:]))
    whole.run()
    hook.remove()
    assert len(frames) == 8 and len(set(frames)) == 3  # two micro-batches a step
    cut = trainer("cut")
    interrupt_at(cut, 3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    ours, theirs = weights(trainer("cut").run()), weights(tmp_path / "whole")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
