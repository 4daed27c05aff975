"""A model is whole or the old one is there; and a run that lacks its model is not called trained."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from experiments import experiment, weights

from segearth.errors import CheckpointError
from segearth.models.pretrained import FORMAT, LAST, save_folder
from segearth.models.segearth import SegEarth
from segearth.training.checkpoint import exported_step, latest_checkpoint
from segearth.training.trainer import Trainer
from segearth.zoo.lookup import build_from_spec


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("earlier", [True, False])
def test_where_the_last_export_fails_the_same_command_finishes_it(
    tmp_path: Path, earlier: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An older model, of step 1, is there or not; neither may pass for the trained one."""
    trainer = Trainer(experiment(tmp_path, max_steps=2, save_every=1 if earlier else 9, ema_decay=0.5))
    save, calls = save_folder, []

    def last_fails(model: SegEarth, folder: Path, *rest: Any) -> None:
        calls.append(folder)
        save(model, folder, *rest)
        if len(calls) == 1 + earlier:
            full_disk()

    monkeypatch.setattr("segearth.training.checkpoint.save_folder", last_fails)
    with pytest.raises(CheckpointError, match="run the same command again: it goes on from the checkpoint of step 2"):
        trainer.run()
    assert exported_step(tmp_path / "model") == (1 if earlier else None)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000002"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []  # its space is free again
    assert trainer.average is not None
    expected = trainer.average.state_dict()
    Trainer(experiment(tmp_path, max_steps=2, save_every=1 if earlier else 9, ema_decay=0.5)).run()
    assert exported_step(tmp_path / "model") == 2
    saved = weights(tmp_path)
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    caplog.set_level(logging.INFO, "segearth")
    Trainer(experiment(tmp_path, max_steps=2, save_every=1 if earlier else 9, ema_decay=0.5)).run()
    assert "trained already" in caplog.messages[-1]
    assert len(calls) == 2 + earlier


def test_the_old_model_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(experiment(tmp_path, max_steps=1)).run()
    old = weights(tmp_path)
    seen = []
    save = save_folder

    def watch(model: SegEarth, folder: Path, *rest: Any) -> None:
        save(model, folder, *rest)
        seen.append(weights(tmp_path))  # opens, in the middle of writing the next

    trainer = Trainer(experiment(tmp_path, max_steps=1))
    trainer._resume()
    monkeypatch.setattr("segearth.training.checkpoint.save_folder", watch)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    trainer._export(LAST, 2)
    assert len(seen) == 1 and all(torch.equal(seen[0][name], value) for name, value in old.items())

    rename = Path.rename

    def fails_at_the_last(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            full_disk()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_at_the_last)
    with pytest.raises(CheckpointError, match="could not write"):
        trainer._export(LAST, 3)
    assert exported_step(tmp_path / "model") == 2
    assert len(weights(tmp_path)) == len(old)


def test_a_checkpoint_without_its_marker_is_not_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Trainer(experiment(tmp_path, max_steps=3, save_every=1, keep_checkpoints=3)).run()
    root = tmp_path / "checkpoints"
    assert sorted(p.name for p in root.glob("step-*")) == ["step-000001", "step-000002", "step-000003"]
    for step in (3, 2):
        (root / f"step-{step:06d}" / "complete.json").unlink()
    assert latest_checkpoint(tmp_path) == root / "step-000001"
    caplog.set_level(logging.INFO, "segearth")
    Trainer(experiment(tmp_path, max_steps=3, save_every=1, keep_checkpoints=3)).run()
    assert f"resuming from {root / 'step-000001'}" in caplog.messages


def test_a_damaged_checkpoint_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    Trainer(experiment(tmp_path, max_steps=1, ema_decay=0.5)).run()
    path = tmp_path / "checkpoints" / "step-000001"
    (path / "average.pt").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"step-000001 is damaged .*delete it to go on from the one before"):
        Trainer(experiment(tmp_path, max_steps=1, ema_decay=0.5)).run()
    (path / "average.pt").unlink()
    with pytest.raises(CheckpointError, match="step-000001 is damaged"):
        Trainer(experiment(tmp_path, max_steps=1, ema_decay=0.5)).run()


@pytest.mark.parametrize("written", [None, FORMAT - 1, FORMAT + 1])
def test_a_checkpoint_of_another_version_is_whole_and_its_weights_open(tmp_path: Path, written: int | None) -> None:
    """It holds parts under other names. Nobody may be told to delete it."""
    Trainer(experiment(tmp_path, max_steps=1)).run()
    marker = tmp_path / "checkpoints" / "step-000001" / "complete.json"
    facts = json.loads(marker.read_text())
    assert facts.pop("format") == FORMAT
    marker.write_text(json.dumps(facts if written is None else {**facts, "format": written}))
    when = "a later" if written == FORMAT + 1 else "an earlier"
    with pytest.raises(CheckpointError, match=f"written by {when} version; start from its weights") as told:
        Trainer(experiment(tmp_path, max_steps=1)).run()
    (way_out,) = re.findall(r"model\.pretrained=(\S+) train\.output_dir=", str(told.value))
    begun_anew = build_from_spec({"pretrained": way_out}).state_dict()
    assert all(torch.equal(begun_anew[name], value) for name, value in weights(tmp_path).items())


def test_a_model_tells_its_step(tmp_path: Path) -> None:
    assert exported_step(tmp_path) is None
    for text in ("", "[]", '{"steps": 3}'):
        (tmp_path / "training.json").write_text(text)
        assert exported_step(tmp_path) is None
    (tmp_path / "training.json").write_text(json.dumps({"step": 3}))
    assert exported_step(tmp_path) == 3
