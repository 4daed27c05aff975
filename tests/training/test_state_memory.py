"""Memory in training, against the ZeRO paper, against arithmetic by hand, and against what DeepSpeed really holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from segearth.config import LoraConfig, TrainConfig
from segearth.errors import ConfigError
from segearth.training.muon import weight_matrices
from segearth.training.state_memory import memory_table, shape_in_training, state_memory
from segearth.zoo.lookup import shape_config


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_the_example_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    """Its figure 1: 7.5 billion weights on 64 GPUs."""
    assert state_memory(0, 7_500_000_000, stage, gpus=64).total / 1e9 == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("stage", "bf16", "expected"),
    [
        (0, True, (2 * 110, 2 * 80, 12 * 80, 4 * 80)),
        (1, True, (2 * 110, 2 * 80, 12 * 20, 4 * 20)),
        (2, True, (2 * 110, 2 * 20, 12 * 20, 4 * 20)),
        (0, False, (4 * 110, 4 * 80, 8 * 80, 4 * 80)),
        (2, False, (4 * 110, 4 * 20, 12 * 20, 4 * 20)),
    ],
)
def test_frozen_and_averaged_weights_on_four_gpus(stage: int, bf16: bool, expected: tuple[int, ...]) -> None:
    memory = state_memory(frozen=30, learning=80, stage=stage, gpus=4, bf16=bf16, averaged=True)
    assert astuple(memory) == expected
    assert memory.total == sum(expected)


def test_stage_three_shares_out_frozen_weights_too() -> None:
    assert astuple(state_memory(frozen=40, learning=80, stage=3, gpus=4)) == (2 * 30, 2 * 20, 12 * 20, 0)


def test_what_does_not_exist_is_refused() -> None:
    for stage, gpus in ((4, 1), (-1, 1), (2, 0)):
        with pytest.raises(ConfigError, match="stages are 0 to 3, GPUs 1 or more"):
            state_memory(1, 1, stage, gpus)
    with pytest.raises(ConfigError, match=r"train\.ema_decay"):
        state_memory(1, 1, 3, 1, averaged=True)


def test_adapters_and_frozen_parts_are_counted_as_trained() -> None:
    """One layer of width 32 with two adapted projections of rank 4: 2 x (32 x 4 + 4 x 32) weights learn."""
    train = TrainConfig(freeze=["vision_encoder"], lora=LoraConfig(enabled=True, rank=4), ema_decay=0.9)
    model = shape_in_training(shape_config("segearth_debug"), train)
    assert all(p.is_meta for p in model.parameters())
    learning = {n: sum(p.numel() for p in part.parameters() if p.requires_grad) for n, part in model.named_children()}
    assert learning["language_model"] == 512 and learning["vision_encoder"] == 0
    assert learning["pixel_decoder"] == sum(p.numel() for p in model.pixel_decoder.parameters())


def test_the_table_tells_of_what_it_is() -> None:
    model = shape_in_training(shape_config("segearth_tiny"), TrainConfig(freeze=["language_model"]))
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.language_model.parameters())
    lines = memory_table(model, TrainConfig(), [1, 8]).splitlines()
    assert f": {learning / 1e6:.1f} M weights learn, {frozen / 1e6:.1f} M are frozen, bf16, AdamW" in lines[0]
    assert [line.split(" | ")[:2] for line in lines[4:]] == [[f"| {s}", f"{n}"] for s in (0, 1, 2, 3) for n in (1, 8)]
    weights, together = 2 * (frozen + learning) / 2**30, (2 * frozen + 16 * learning) / 2**30
    assert f" | {weights:.2f} | " in lines[4] and lines[4].endswith(f" | {together:.2f} |")
    averaged = memory_table(model, TrainConfig(ema_decay=0.9, precision="fp32"), [2]).splitlines()
    assert len(averaged) == 4 + 3 and "fp32" in averaged[0]  # stage 3 keeps no average


def test_muon_keeps_one_moment_of_its_matrices() -> None:
    model = shape_in_training(shape_config("segearth_tiny"), TrainConfig())
    learning = sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for p in weight_matrices(model))
    assert 0.8 < matrices / learning < 0.95
    lines = memory_table(model, TrainConfig(optimizer="muon"), [1, 8]).splitlines()
    assert "Muon with AdamW" in lines[0]
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| 0", "| 0"]  # which takes whole matrices
    together = (16 * learning - 4 * matrices) / 2**30
    assert all(line.endswith(f" | {together:.2f} |") for line in lines[4:])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_one_process_of_deepspeed_holds_what_is_computed(tmp_path: Path, stage: int, precision: str) -> None:
    """All but gradients, which are given back after a step."""
    pytest.importorskip("deepspeed", reason="training needs deepspeed")
    from experiments import experiment

    from segearth.training.trainer import Trainer

    def size(tensors: Iterable[torch.Tensor]) -> int:
        return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())

    averaged = stage < 3
    trainer = Trainer(
        experiment(
            tmp_path, max_steps=1, precision=precision, deepspeed=f"zero{stage}", ema_decay=0.9 if averaged else 0.0,
            lora={"enabled": True},
        )
    )  # fmt: skip
    trainer.run()
    weights = [getattr(p, "ds_tensor", p).data for p in trainer.model.parameters()]
    counts = {True: 0, False: 0}
    for p in trainer.model.parameters():
        counts[p.requires_grad] += getattr(p, "ds_numel", p.numel())
    own = {w.data_ptr() for w in weights}
    copies = [part for part in trainer.masters.parts() if part.data_ptr() not in own]
    moments = [s[name] for s in trainer.engine.basic_optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    computed = state_memory(counts[False], counts[True], stage, 1, precision == "bf16", averaged)
    assert counts[False] and size(weights) == computed.weights
    # ZeRO fills its parts up to even sizes, by a few numbers.
    assert size([*copies, *moments]) == pytest.approx(computed.optimizer, rel=1e-4)
    assert size(trainer.average.values if trainer.average else []) == pytest.approx(computed.average, rel=1e-4)


def test_the_page_shows_what_is_computed() -> None:
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    config, train = shape_config("segearth_swinb_phi1_5"), TrainConfig()
    assert memory_table(shape_in_training(config, train), train, [4, 8]) in page
    adapted = shape_in_training(config, TrainConfig(lora=LoraConfig(enabled=True)))
    together = memory_table(adapted, train, [1]).splitlines()[-1].split(" | ")[-1].strip(" |")
    assert f"With adapters on the language model it is {together} GiB" in page
