"""What is averaged and saved is what the optimiser changes: fp32 weights, not the model's rounded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("deepspeed", reason="training needs deepspeed")
from experiments import cut_everything, experiment, values, weights
from ranks import run_on_ranks

from segearth.config import ExperimentConfig, from_dict
from segearth.training.trainer import Trainer


def stage_settings(stage: int, folder: Path) -> str:
    return cut_everything(folder) if stage == 3 else f"zero{stage}"


def masters_of(trainer: Trainer) -> dict[str, Tensor]:
    """The optimiser's own tensors, read without the code under test, of one process without ZeRO."""
    optimizer: Any = trainer.engine.optimizer
    if hasattr(optimizer, "bf16_groups"):  # DeepSpeed 0.17 lays a group's masters end to end, and fills the end up
        groups, wholes = optimizer.bf16_groups, []
        for group, flat in zip(groups, optimizer.fp32_groups_flat_partition, strict=True):
            sizes = [p.numel() for p in group]
            wholes.append(flat[: sum(sizes)].split(sizes))
    else:
        groups, wholes = optimizer.fp16_groups, optimizer.fp32_groups
    pairs = [
        (parameter, master)
        for rounded, whole in zip(groups, wholes, strict=True)
        for parameter, master in zip(rounded, whole, strict=True)
    ]
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    return {names[id(parameter)]: master.detach().clone().view_as(parameter) for parameter, master in pairs}


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_what_is_saved_in_bf16_is_not_rounded(tmp_path: Path, stage: int) -> None:
    """What is saved rounds to the model's weights, and holds digits that they do not."""
    config = experiment(tmp_path / "run", max_steps=2, precision="bf16", deepspeed=stage_settings(stage, tmp_path))
    trainer = Trainer(config)
    trainer.run()
    saved = weights(tmp_path / "run")
    live = trainer.engine.module.state_dict() if stage < 3 else gathered(trainer)
    learned = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert len(learned) > 100
    for name in learned:
        assert saved[name].dtype == torch.float32
        assert torch.equal(saved[name].bfloat16(), live[name]), name
    rounded = [name for name in learned if torch.equal(saved[name], live[name].float())]
    assert len(rounded) < len(learned) / 10, rounded
    if stage == 0:
        assert all(torch.equal(saved[name], value) for name, value in masters_of(trainer).items())


def gathered(trainer: Trainer) -> dict[str, Tensor]:
    import deepspeed

    parameters = dict(trainer.model.named_parameters())
    with deepspeed.zero.GatheredParameters(list(parameters.values())):
        return {name: p.detach().clone() for name, p in parameters.items()}


def test_the_average_is_of_unrounded_weights_and_warms_up(tmp_path: Path) -> None:
    """Against the formula, worked out here from the masters after each step."""
    trainer = Trainer(experiment(tmp_path, max_steps=5, precision="bf16", deepspeed="zero0", ema_decay=0.2))
    expected = masters_of(trainer)
    take_step = trainer._step

    def step(number: int, *rest: Any) -> None:
        take_step(number, *rest)
        share = min(0.2, (1 + number) / (10 + number))  # 0.1, 0.18, then 0.2
        for name, value in masters_of(trainer).items():
            expected[name] = share * expected[name] + (1 - share) * value

    trainer._step = step  # type: ignore[method-assign]
    trainer.run()
    saved = weights(tmp_path)
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-6, atol=1e-8, msg=name)
    moved = max(float((saved[name] - value).abs().max()) for name, value in masters_of(trainer).items())
    assert moved > 1e-5  # the average is not the last weights


@pytest.mark.parametrize("stage", [0, 2])
def test_an_average_comes_back_from_a_checkpoint(tmp_path: Path, stage: int) -> None:
    options = {"precision": "bf16", "deepspeed": f"zero{stage}", "ema_decay": 0.9}
    first = Trainer(experiment(tmp_path, max_steps=3, **options))
    first.run()
    assert first.average is not None
    before = first.average.state_dict()
    again = Trainer(experiment(tmp_path, max_steps=3, **options))
    assert again.average is not None
    fresh = again.average.state_dict()
    assert any(not torch.equal(fresh[name], value) for name, value in before.items())
    again._resume()
    after = again.average.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    own, resumed = first.masters.learned(), again.masters.learned()
    assert after.keys() == before.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], value) for name, value in own.items())
    assert any(not torch.equal(own[name], value) for name, value in before.items())


@pytest.mark.parametrize("stage", [2, 3])
def test_frozen_weights_are_saved_as_they_came(tmp_path: Path, stage: int) -> None:
    options = {"precision": "bf16", "deepspeed": stage_settings(stage, tmp_path), "freeze": ["vision_encoder.stages"]}
    trainer = Trainer(experiment(tmp_path / "run", max_steps=1, **options))
    names = {name for name, _ in trainer.model.named_parameters() if name.startswith("vision_encoder.stages")}
    given = {name: value.clone() for name, value in trainer.masters.frozen.items()}
    assert given.keys() == names and len(names) > 10
    assert any(not torch.equal(value, value.bfloat16().float()) for value in given.values())
    trainer.run()
    saved = weights(tmp_path / "run")
    assert all(torch.equal(saved[name], value) for name, value in given.items())


def train_and_compare(plain: dict[str, Any]) -> list[str]:
    """Names whose averaged or whole weights are not what both ranks together hold."""
    trainer = Trainer(from_dict(ExperimentConfig, plain))
    trainer.run()
    assert trainer.average is not None
    whole, averaged = trainer.masters.learned(), trainer.average.state_dict()
    live = dict(trainer.model.named_parameters())
    wrong = [name for name, value in whole.items() if not torch.equal(value.bfloat16(), live[name])]
    trainer.average.load_state_dict(averaged)
    again = trainer.average.state_dict()
    wrong += [f"average of {name}" for name, value in averaged.items() if not torch.equal(value, again[name])]
    assert len(whole) == sum(p.requires_grad for p in live.values())
    assert sum(value.numel() for value in trainer.average.values) < 0.6 * sum(p.numel() for p in live.values())
    return wrong


def test_two_processes_hold_half_of_the_masters_each(tmp_path: Path) -> None:
    options = values(tmp_path, max_steps=2, precision="bf16", deepspeed="zero2", ema_decay=0.5)
    assert run_on_ranks(train_and_compare, options) == [[], []]
