"""Runs that validate: the best model beside the last, early stopping, and interruption."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from segearth.config import DatasetConfig, ExperimentConfig, from_dict
from segearth.inference.predictor import Predictor
from segearth.models.pretrained import local_folder, training_facts
from segearth.models.segearth import SegEarth

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from experiments import cut_everything, train, weights
from ranks import run_on_ranks

from segearth.training import validation as room
from segearth.training.checkpoint import checkpoint_facts, latest_checkpoint
from segearth.training.trainer import Trainer
from segearth.utils.processes import Process

SMALL = {"length": 4, "size": 64, "max_questions": 2}


def values(folder: Path, **train: Any) -> dict[str, Any]:
    return {
        "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
        "data": {"train": [{"name": "synthetic", "options": SMALL}], "questions_per_image": 2, "num_workers": 0},
        "loss": {"num_points": 64},
        "train": {
            "output_dir": str(folder), "max_steps": 6, "global_batch_size": 1, "micro_batch_size": 1,
            "learning_rate": 1e-3, "ema_decay": 0.9, "save_every": 3, "log_every": 1, "val_every": 2, "val_images": 3,
            **train,
        },
    }  # fmt: skip


def trainer(folder: Path, **train: Any) -> Trainer:
    return Trainer(from_dict(ExperimentConfig, values(folder, **train)))


def equal(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def scores(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if name != "val_seconds"} for line in lines if "val_giou" in line]


def stop_at(run: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = run._step

    def step_or_stop(number: int, *args: object) -> None:
        if number == step:
            raise KeyboardInterrupt
        original(number, *args)

    monkeypatch.setattr(run, "_step", step_or_stop)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """gIoU by steps done, in place of what the model would score."""
    script: dict[int, float] = {}
    original, run = room.evaluate, room.Validation.run

    def noting(self: room.Validation, model: SegEarth, done: int, average: Any) -> Any:
        def scored(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            object.__setattr__(result.metrics, "giou", script[done])
            return result

        monkeypatch.setattr(room, "evaluate", scored)
        return run(self, model, done, average)

    monkeypatch.setattr(room.Validation, "run", noting)
    return script


def test_the_best_model_is_kept_beside_the_last(tmp_path: Path, scripted: dict[int, float]) -> None:
    scripted |= {2: 0.1, 4: 0.3, 6: 0.2}
    run = trainer(tmp_path / "run").run()
    other = trainer(tmp_path / "short", max_steps=6, save_every=4, val_every=0)
    assert run == tmp_path / "run" and local_folder(str(run)) == run / "model_best"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(other, 4, patch)
        other.run()
    assert equal(run, tmp_path / "short" / "model")  # the averaged weights after step 4
    assert not equal(run, run / "model")
    lines = scores(run)
    assert [(line["step"], line["val_giou"], line["val_is_best"], line["best_step"]) for line in lines] == [
        (1, 0.1, True, 1), (3, 0.3, True, 3), (5, 0.2, False, 3)
    ]  # fmt: skip
    assert json.loads((run / "model_best" / "training.json").read_text())["step"] == 4
    assert json.loads((run / "model_best" / "training.json").read_text())["val_giou"] == 0.3
    assert Image.open(run / "curves.png").size == (960, 760)
    newest = latest_checkpoint(run)
    assert newest is not None and checkpoint_facts(newest)["validation"]["best"]["step"] == 4


@pytest.mark.parametrize("stop", [4, 5])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: dict[int, float], stop: int
) -> None:
    """Also where the best model on disk is of a step after the checkpoint, or of one long before it."""
    scripted |= {2: 0.2, 4: 0.3, 6: 0.1} if stop == 5 else {2: 0.3, 4: 0.1, 6: 0.2}
    whole = trainer(tmp_path / "whole").run()
    cut = trainer(tmp_path / "cut")
    stop_at(cut, stop, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = trainer(tmp_path / "cut").run()
    assert equal(whole / "model", resumed / "model")
    assert equal(whole / "model_best", resumed / "model_best")
    assert scores(whole) == scores(resumed) and len(scores(whole)) == 3


def test_validation_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    with_it, without = trainer(tmp_path / "with").run(), trainer(tmp_path / "without", val_every=0).run()
    assert equal(with_it / "model", without / "model")
    assert not (without / "model_best").exists() and local_folder(str(without)) == without / "model"


def test_early_stopping_ends_saves_and_is_not_undone_by_running_again(
    tmp_path: Path, scripted: dict[int, float], caplog: pytest.LogCaptureFixture
) -> None:
    scripted |= {2: 0.3, 4: 0.2, 5: 0.2, 6: 0.2, 8: 0.4}
    caplog.set_level(logging.INFO, "segearth")
    options: dict[str, Any] = {"max_steps": 8, "save_every": 100}
    run = trainer(tmp_path, early_stop_patience=2, **options).run()
    newest = latest_checkpoint(run)
    assert newest is not None and newest.name == "step-000006"
    assert json.loads((run / "model" / "training.json").read_text())["step"] == 6
    assert any("stopping early: 2 validations without a better one than that of step 2" in m for m in caplog.messages)
    trainer(tmp_path, early_stop_patience=2, **options).run()
    assert latest_checkpoint(run) == newest and caplog.messages[-1].endswith("for a new run")
    trainer(tmp_path, early_stop_patience=0, **options).run()  # patience may change: it goes on
    assert json.loads((run / "model_best" / "training.json").read_text())["step"] == 8


def test_a_best_model_of_an_earlier_run_is_not_taken_for_this_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    trainer(tmp_path, max_steps=2).run()
    assert (tmp_path / "model_best").is_dir()
    trainer(tmp_path, max_steps=2, val_every=0).run()
    assert any("nothing is validated now" in message for message in caplog.messages)
    shutil.rmtree(tmp_path / "checkpoints")
    trainer(tmp_path, max_steps=2, val_every=0).run()
    assert not (tmp_path / "model_best").exists()


def score_on_a_rank(plain: dict[str, Any]) -> list[int]:
    """Trains with validation; returns how many images each validation scored on this rank itself."""
    from segearth.evaluation import evaluator

    counts: list[int] = []
    original = evaluator.gather_objects

    def counting(part: Any, world_size: int) -> list[Any]:
        counts.append(len({record.image_id for scored in part.scored.values() for record in scored.records}))
        return original(part, world_size)

    evaluator.gather_objects = counting
    train(plain)
    return counts


@pytest.mark.parametrize("stage", [2, 3])
def test_ranks_share_the_work_and_agree(tmp_path: Path, stage: int) -> None:
    """Under ZeRO-3 all go through the same images instead, since a layer's weights are brought together by all."""
    options: dict[str, Any] = {"max_steps": 2, "val_every": 1, "global_batch_size": 2}
    if stage == 3:
        options |= {"deepspeed": cut_everything(tmp_path), "ema_decay": 0.0}
    counts = run_on_ranks(score_on_a_rank, values(tmp_path / "two", **options))
    assert counts == ([[2, 2], [1, 1]] if stage == 2 else [[3, 3], [3, 3]])
    two = scores(tmp_path / "two")
    assert [line["val_images"] for line in two] == [3, 3]
    config = from_dict(ExperimentConfig, values(tmp_path / "two"))
    again = room.Validation(config, Process(0, 1, torch.device("cpu")))
    kept = SegEarth.from_pretrained(tmp_path / "two")
    best = next(line for line in two if line["step"] == two[-1]["best_step"])
    assert again.run(Predictor(kept), 2)[0].giou == pytest.approx(best["val_giou"], abs=1e-6)


def test_the_report_names_the_weights(tmp_path: Path, scripted: dict[int, float]) -> None:
    from segearth.evaluation.run import evaluate_experiment

    scripted |= {2: 0.25, 4: 0.2}
    config = from_dict(ExperimentConfig, values(tmp_path, max_steps=4))
    Trainer(config).run()
    config.eval.controls = False
    for source, expected in (
        (tmp_path, f"weights: {tmp_path}/model_best, after 2 steps, best in validation: gIoU 25.00 on 3 images"),
        (tmp_path / "model", f"weights: {tmp_path}/model, after 4 steps"),
    ):
        evaluate_experiment(config, Predictor(SegEarth.from_pretrained(source)), str(source), "test", tmp_path / "eval")
        assert f"- {expected}\n" in (tmp_path / "eval" / "report.md").read_text()


def test_the_scores_are_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(tmp_path, max_steps=4, tensorboard=True).run()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/giou")] == [1, 3]
    assert [round(event.value, 4) for event in events.Scalars("validation/giou")] == [
        round(line["val_giou"], 4) for line in scores(run)
    ]
    assert len(events.Scalars("train/total")) == 4


def test_a_model_keeps_which_splits_it_has_seen(tmp_path: Path) -> None:
    """Also those that the weights it started from had seen; and a report on any of them says so."""
    from segearth.evaluation.run import evaluate_experiment

    first = from_dict(ExperimentConfig, values(tmp_path / "first", max_steps=1, val_every=0))
    Trainer(first).run()
    assert training_facts(tmp_path / "first")["trained_on"] == ["synthetic train"]
    second = from_dict(ExperimentConfig, values(tmp_path / "second", max_steps=1, val_every=0))
    second.model = {"pretrained": str(tmp_path / "first")}
    second.data.train = [DatasetConfig("synthetic", None, "val", {"length": 4, "size": 64})]
    Trainer(second).run()
    assert training_facts(tmp_path / "second")["trained_on"] == ["synthetic train", "synthetic val"]
    model = SegEarth.from_pretrained(tmp_path / "second")
    second.eval.controls = False
    warned = {}
    for split in ("train", "val", "test"):
        second.data.test = [DatasetConfig("synthetic", None, split, {"length": 2, "size": 64})]
        evaluate_experiment(second, Predictor(model), str(tmp_path / "second"), "test", tmp_path / split)
        report = json.loads((tmp_path / split / "report.json").read_text())
        warned[split] = "trained on" in report["notes"].get("warning", "")
    assert warned == {"train": True, "val": True, "test": False}
    (tmp_path / "first" / "model" / "training.json").unlink()  # weights of an earlier version
    assert Trainer(second).splits_seen == ["unknown", "synthetic val"]
    for path in (tmp_path / "second").glob("*/training.json"):
        path.write_text(json.dumps({"step": 1, "trained_on": ["unknown", "synthetic val"]}))
    evaluate_experiment(second, Predictor(model), str(tmp_path / "second"), "test", tmp_path / "again")
    assert "it is not known" in json.loads((tmp_path / "again" / "report.json").read_text())["notes"]["warning"]
