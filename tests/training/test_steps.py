"""What a step does and tells: skipped ones, random numbers, clipping, means of losses."""

from __future__ import annotations

import logging
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from experiments import cut_everything, experiment, metrics

from segearth.errors import ConfigError, TrainingError
from segearth.training.trainer import Trainer
from segearth.training.window import SUMMED


def losses_of(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, change: Any = None) -> list[dict[str, float]]:
    """Records the losses of every micro-batch, in order; ``change`` may alter them first."""
    original, seen = trainer.criterion.__class__.__call__, []

    def record(self: object, *args: object) -> Any:
        losses = original(self, *args)
        if change is not None:
            change(len(seen), losses)
        seen.append({name: float(getattr(losses, name).detach()) for name in SUMMED})
        return losses

    monkeypatch.setattr(trainer.criterion.__class__, "__call__", record)
    return seen


class _InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * float("inf")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_that_was_skipped_is_told(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(experiment(tmp_path, max_steps=3, log_every=2, precision=precision, global_batch_size=1))
    before = []

    def at_the_second(count: int, losses: Any) -> None:
        before.append(trainer.masters.learned())
        if count == 1:
            losses.total = _InfiniteGradient.apply(losses.total)

    losses_of(trainer, monkeypatch, at_the_second)
    caplog.set_level(logging.WARNING, "segearth")
    trainer.run()
    assert [line["skipped_steps"] for line in metrics(tmp_path)] == [1, 0]
    assert any("1 of the steps up to 2 changed nothing" in message for message in caplog.messages)
    kept = [all(torch.equal(a[name], b[name]) for name in a) for a, b in pairwise(before)]
    assert kept == [False, True]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain AdamW skips nothing: the loss before the step was still finite."""
    trainer = Trainer(experiment(tmp_path, max_steps=2, save_every=1, deepspeed="zero0", global_batch_size=1))

    def at_the_second(count: int, losses: Any) -> None:
        if count == 1:
            losses.total = _InfiniteGradient.apply(losses.total)

    losses_of(trainer, monkeypatch, at_the_second)
    with pytest.raises(TrainingError, match=r"weights are infinite or undefined after step 2; .*step-000001 is kept"):
        trainer.run()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_loss_without_a_value_stops_training(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(experiment(tmp_path, max_steps=2))

    def spoil(count: int, losses: Any) -> None:
        losses.total = losses.total * 0.0 + float(value)

    losses_of(trainer, monkeypatch, spoil)
    with pytest.raises(TrainingError, match=f"the loss is {value} within the steps up to 0 .*no checkpoint yet"):
        trainer.run()
    assert not (tmp_path / "checkpoints").exists()


def test_what_is_logged_is_the_mean_over_micro_batches_and_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(experiment(tmp_path, max_steps=4, global_batch_size=3, log_every=2, save_every=9))
    assert trainer.accumulation == 3
    seen = losses_of(trainer, monkeypatch)
    trainer.run()
    assert len(seen) == 12
    for line, part in zip(metrics(tmp_path), (seen[:6], seen[6:]), strict=True):
        for name in SUMMED:
            assert line[name] == pytest.approx(sum(losses[name] for losses in part) / 6, abs=1e-5)


def test_every_micro_batch_draws_other_random_numbers_and_again_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeds(folder: str, seed: int) -> list[int]:
        drawn: list[int] = []
        trainer = Trainer(experiment(tmp_path / folder, max_steps=3, seed=seed))
        losses_of(trainer, monkeypatch, lambda count, losses: drawn.append(torch.initial_seed()))
        trainer.run()
        monkeypatch.undo()
        return drawn

    first = seeds("a", 5)
    assert len(set(first)) == 6
    assert seeds("b", 5) == first
    assert not set(seeds("c", 6)) & set(first)


@pytest.mark.parametrize("deepspeed", ["zero0", "zero2"])
def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path: Path, deepspeed: str) -> None:
    """AdamW's first moment after one step is a tenth of the gradient that reached it."""
    trainer = Trainer(experiment(tmp_path, max_steps=1, max_grad_norm=0.01, deepspeed=deepspeed))
    trainer.run()
    optimizer = trainer.engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    moments = [state["exp_avg"].flatten() for state in inner.state.values()]
    assert float(torch.cat(moments).norm()) / 0.1 == pytest.approx(0.01, rel=1e-3)
    told = metrics(tmp_path)[0].get("grad_norm")  # what it was before
    assert told is None if deepspeed == "zero0" else told > 0.1  # without ZeRO it is not known, and not called zero


def test_emulated_bf16_is_not_taken_for_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card without bf16 units computes it more slowly than fp32; torch says so only when asked."""
    trainer = Trainer(experiment(tmp_path, precision="auto"))
    assert trainer._wants_bf16() is torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for units in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, units=units: including_emulation or units
        )
        assert trainer._wants_bf16() is units


def test_an_average_is_refused_by_the_stage_and_not_by_a_name(tmp_path: Path) -> None:
    path = cut_everything(tmp_path)
    assert not os.path.basename(path).startswith("zero3")  # noqa: PTH119
    with pytest.raises(ConfigError, match=r"cut\.json is ZeRO stage 3"):
        Trainer(experiment(tmp_path / "run", ema_decay=0.9, deepspeed=path))
    other = tmp_path / "zero3_of_mine.json"
    other.write_text('{"zero_optimization": {"stage": 2}}')
    assert Trainer(experiment(tmp_path / "run", ema_decay=0.9, deepspeed=str(other))).average is not None
