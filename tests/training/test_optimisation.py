from __future__ import annotations

import pytest

from segearth.config import TrainConfig
from segearth.errors import ConfigError
from segearth.training.optimisation import accumulation_steps, deepspeed_settings, learning_rate_factor


def test_learning_rate_warms_up_then_falls_as_a_cosine() -> None:
    config = TrainConfig(max_steps=110, warmup_ratio=10 / 110, min_learning_rate_ratio=0.1)
    assert learning_rate_factor(0, config) == pytest.approx(0.1)
    assert learning_rate_factor(9, config) == pytest.approx(1.0)
    assert learning_rate_factor(60, config) == pytest.approx(0.55)  # half way: 0.1 + 0.9 / 2
    assert learning_rate_factor(110, config) == pytest.approx(0.1)


def test_accumulation() -> None:
    config = TrainConfig(global_batch_size=16, micro_batch_size=2)
    assert accumulation_steps(config, world_size=1) == 8
    assert accumulation_steps(config, world_size=4) == 2
    with pytest.raises(ConfigError, match="2 x 3 processes"):
        accumulation_steps(config, world_size=3)


@pytest.mark.parametrize(("name", "stage"), [("zero0", 0), ("zero2", 2), ("zero3", 3), ("zero3_offload", 3)])
def test_every_deepspeed_file_is_filled_in(name: str, stage: int) -> None:
    config = TrainConfig(deepspeed=name, global_batch_size=8, micro_batch_size=2)
    settings = deepspeed_settings(config, world_size=2, bf16=True)
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["gradient_accumulation_steps"] == 2
    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert settings["bf16"] == {"enabled": True}
