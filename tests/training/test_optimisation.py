from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from segearth.config import LoraConfig, TrainConfig
from segearth.errors import ConfigError, MissingExtraError
from segearth.training.optimisation import (
    add_lora,
    build_optimizer,
    deepspeed_settings,
    learning_rate_factor,
    merged_state_dict,
    passes_of,
    zero_stage,
)
from segearth.utils.torchvision_mend import mend_torchvision

LORA = LoraConfig(enabled=True, rank=2, alpha=12, dropout=0.25, target_modules=["q_proj"])


class Toy(nn.Module):
    """Two layers in place of a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.norm, self.out = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.q_proj(x)))


@pytest.fixture
def adapted() -> Toy:
    """With an adapter that already changes something: peft lets it begin at zero."""
    mend_torchvision()  # peft imports it
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = Toy()
    add_lora(model, LORA)
    with torch.no_grad():
        model.q_proj.lora_B["default"].weight.normal_()
    return model.eval()


def test_only_the_adapters_of_the_named_layers_learn(adapted: Toy) -> None:
    learning = {name: tuple(p.shape) for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning == {"q_proj.lora_A.default.weight": (2, 4), "q_proj.lora_B.default.weight": (6, 2)}
    assert adapted.q_proj.scaling["default"] == 6  # alpha / rank
    assert adapted.q_proj.lora_dropout["default"].p == 0.25


def test_adapters_that_fit_no_layer_name_those_that_there_are(adapted: Toy) -> None:
    message = r"train\.lora\.target_modules \['k_proj'\] match no layer \(there are: \['out', 'q_proj'\]\)"
    with pytest.raises(ConfigError, match=message):
        add_lora(nn.ModuleList([Toy(), Toy()]), LoraConfig(target_modules=["k_proj"]))


def test_adapters_need_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"peft is not installed.*; run: pip install 'segearth\[train\]'"):
        add_lora(Toy(), LORA)


def test_merged_weights_are_a_plain_model_that_answers_alike(adapted: Toy) -> None:
    plain, x = Toy(), torch.randn(5, 4)
    plain.load_state_dict(merged_state_dict(adapted, adapted.state_dict()))  # strict: all names, and no others
    assert torch.allclose(plain(x), adapted(x), atol=1e-5)
    assert not torch.allclose(plain.q_proj.weight, adapted.q_proj.base_layer.weight, atol=0.1)


def test_what_is_merged_is_the_state_in_its_own_precision_and_the_model_stays_as_it_is(adapted: Toy) -> None:
    """Averaged or fp32 weights of a model in bf16: its own adapters, rounded and of another step, are not theirs."""
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    state = {name: 3 * value.double() for name, value in before.items()}
    merged = merged_state_dict(adapted, state)
    lora_a, lora_b = (state[f"q_proj.lora_{side}.default.weight"] for side in "AB")
    expected = state["q_proj.base_layer.weight"] + 6 * lora_b @ lora_a
    assert torch.allclose(merged["q_proj.weight"], expected, atol=1e-12)
    assert torch.equal(merged["q_proj.bias"], state["q_proj.base_layer.bias"])
    assert {value.dtype for value in merged.values()} == {torch.float64}
    assert not any(value.requires_grad for value in merged.values())
    after = adapted.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    half = merged_state_dict(adapted, {name: v.half() if "lora" not in name else v for name, v in before.items()})
    assert half["q_proj.weight"].dtype == torch.float16


def test_matrices_are_decayed_and_vectors_are_not() -> None:
    model = Toy()
    model.out.requires_grad_(False)
    config = TrainConfig(learning_rate=3e-4, weight_decay=0.2, betas=[0.8, 0.95])
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = [(group["weight_decay"], group["params"]) for group in optimizer.param_groups]
    assert [decay for decay, _ in groups] == [0.2, 0.0]
    assert [[id(p) for p in own] for _, own in groups] == [
        [id(model.q_proj.weight)],
        [id(p) for p in (model.q_proj.bias, model.norm.weight, model.norm.bias)],
    ]
    assert all((group["lr"], group["betas"]) == (3e-4, (0.8, 0.95)) for group in optimizer.param_groups)
    model.q_proj.weight.requires_grad_(False)
    (vectors,) = build_optimizer(model, config).param_groups  # an empty group is an error in DeepSpeed
    assert vectors["weight_decay"] == 0.0


def test_learning_rate_warms_up_then_falls_as_a_cosine() -> None:
    config = TrainConfig(max_steps=110, warmup_ratio=10 / 110, min_learning_rate_ratio=0.1)
    assert learning_rate_factor(0, config) == pytest.approx(0.1)
    assert learning_rate_factor(9, config) == pytest.approx(1.0)
    assert learning_rate_factor(10, config) == pytest.approx(1.0)
    assert learning_rate_factor(35, config) == pytest.approx(0.1 + 0.45 * (1 + 0.5**0.5))  # a quarter of the way down
    assert learning_rate_factor(60, config) == pytest.approx(0.55)  # half way: 0.1 + 0.9 / 2
    assert learning_rate_factor(110, config) == pytest.approx(0.1)
    assert learning_rate_factor(150, config) == pytest.approx(0.1)  # it does not rise again


def test_short_runs_have_a_learning_rate_too() -> None:
    without = TrainConfig(max_steps=4, warmup_ratio=0.0)
    assert [learning_rate_factor(step, without) for step in (0, 1, 4)] == pytest.approx([1.0, 1.0, 0.0])
    warming = TrainConfig(max_steps=4, warmup_ratio=1.0)
    assert [learning_rate_factor(step, warming) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    one_left = TrainConfig(max_steps=4, warmup_ratio=0.75)
    assert learning_rate_factor(4, one_left) == pytest.approx(0.0)


def test_accumulation() -> None:
    config = TrainConfig(global_batch_size=16, micro_batch_size=2)
    assert passes_of(config, world_size=1) == (2, 8)
    assert passes_of(config, world_size=4) == (2, 2)
    assert isinstance(passes_of(config, world_size=1)[1], int)  # DeepSpeed takes no 8.0
    with pytest.raises(ConfigError, match=r"train\.global_batch_size 16 is no multiple of 3 processes; set it to 15"):
        passes_of(config, world_size=3)


def test_deepspeed_is_told_the_images_of_a_pass_that_a_process_really_has() -> None:
    config = TrainConfig(deepspeed="zero2", global_batch_size=8, micro_batch_size=8)
    settings = deepspeed_settings(config, world_size=4, bf16=False)
    assert settings["train_micro_batch_size_per_gpu"] == 2 and settings["gradient_accumulation_steps"] == 1


@pytest.mark.parametrize(("name", "stage"), [("zero0", 0), ("zero2", 2), ("zero3", 3), ("zero3_offload", 3)])
def test_every_deepspeed_file_is_filled_in(name: str, stage: int) -> None:
    config = TrainConfig(deepspeed=name, global_batch_size=8, micro_batch_size=2, max_grad_norm=0.7)
    settings = deepspeed_settings(config, world_size=2, bf16=True)
    assert zero_stage(settings) == settings["zero_optimization"]["stage"] == stage
    assert settings["gradient_accumulation_steps"] == 2
    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert settings["gradient_clipping"] == 0.7
    assert settings["bf16"] == {"enabled": True}
    assert settings["zero_allow_untested_optimizer"] is True  # else DeepSpeed takes no AdamW of torch's
    assert settings["wall_clock_breakdown"] is False  # it would wait for the GPU at every step
    assert settings["steps_per_print"] >= 10**9  # our own log says more
    assert deepspeed_settings(config, world_size=1, bf16=False)["bf16"] == {"enabled": False}


def test_a_users_own_deepspeed_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    config = TrainConfig(deepspeed=str(path), global_batch_size=8, micro_batch_size=2)
    path.write_text(json.dumps({"comment": "für uns", "gradient_clipping": 9}, ensure_ascii=False), encoding="utf-8")
    settings = deepspeed_settings(config, world_size=1, bf16=False)
    assert settings["comment"] == "für uns"
    assert settings["gradient_clipping"] == config.max_grad_norm  # the experiment decides
    path.write_text("{,}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.json is not JSON: .*line 1"):
        deepspeed_settings(config, world_size=1, bf16=False)
    path.unlink()
    with pytest.raises(ConfigError, match=r"train\.deepspeed: no settings '.*mine\.json'"):
        deepspeed_settings(config, world_size=1, bf16=False)
    config.deepspeed = "zero1"
    message = r"no settings 'zero1'; did you mean 'zero3' or .*\(known: zero0, zero2, zero3, zero3_offload\)"
    with pytest.raises(ConfigError, match=message):
        deepspeed_settings(config, world_size=1, bf16=False)


def test_settings_that_say_nothing_of_zero_share_nothing_out() -> None:
    assert zero_stage({}) == zero_stage({"zero_optimization": {}}) == 0
    assert zero_stage({"zero_optimization": {"stage": 1}}) == 1
