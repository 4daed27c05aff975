from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="training by rewards needs trl")

from segearth.config import ExperimentConfig, LoraConfig
from segearth.data.registry import build_dataset
from segearth.errors import ConfigError, UnknownNameError
from segearth.prompting.frames import Frame
from segearth.prompting.templates import answer_template
from segearth.prompting.tiny import TinyShape, tiny_vision_language_model
from segearth.rl.rows import QuestionRows
from segearth.rl.sft import sft_trainer, train_sft
from segearth.rl.stages import checked_fields, freeze_vision, shared_arguments

BRIEF = replace(answer_template("brief@1"), frame=Frame.resized(32, 32))


def rows(thought: str | None = "cells") -> QuestionRows:
    return QuestionRows([build_dataset("roofs", None, "train", length=16)], BRIEF, thought=thought)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_only_the_answer_is_learned(tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path) -> None:
    trainer = sft_trainer(tiny_experiment(tmp_path), policy_start, None, rows(), tmp_path / "sft")
    batch = next(iter(trainer.get_train_dataloader()))
    tokenizer = trainer.processing_class.tokenizer
    for labels in batch["labels"]:
        learned = tokenizer.decode(labels[labels >= 0])
        assert learned.startswith("<think>") and learned.rstrip().endswith("</answer><|im_end|>")
        assert "roof" not in learned and "image_pad" not in learned
    assert batch["pixel_values"].shape[0] == 4 * 64  # four images of eight times eight patches


def test_a_run_goes_on_from_its_checkpoint(
    tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path
) -> None:
    experiment = tiny_experiment(tmp_path, "sft.learning_rate=0.01", "sft.warmup_ratio=0")
    train_sft(experiment, policy_start, None, rows(), tmp_path / "sft")
    experiment.sft.max_steps = 4
    again = train_sft(experiment, policy_start, None, rows(), tmp_path / "sft")
    assert again.state.global_step == 4
    lines = read(tmp_path / "sft/sft.csv")
    assert [line["step"] for line in lines] == ["1", "2", "3", "4"]  # each once, though the run began twice
    seconds = [float(line["seconds"]) for line in lines]
    assert seconds == sorted(seconds) and float(lines[-1]["cpu_seconds"]) > 0
    assert float(lines[-1]["loss"]) < float(lines[0]["loss"])


def test_adapters_alone_learn(tiny_experiment: Callable[..., Any], policy_start: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path)
    experiment.train.lora = LoraConfig(enabled=True, rank=2, target_modules=["q_proj", "v_proj"])
    trainer = sft_trainer(experiment, policy_start, None, rows(), tmp_path / "sft")
    learning = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert learning and all("lora_" in name for name in learning)


def test_the_vision_encoder_can_stay() -> None:
    shape = TinyShape(kind="qwen3_vl", side=32, patch=4, hidden=32, heads=2, vision_hidden=32)
    model, _ = tiny_vision_language_model(shape)
    freeze_vision(model)
    frozen = {name.split(".")[1] for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"visual"} and any(weight.requires_grad for weight in model.parameters())
    with pytest.raises(ConfigError, match="no vision encoder"):
        freeze_vision(torch.nn.Linear(2, 2))


def test_what_does_not_divide_or_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="sied"):
        checked_fields("policy.tiny", TinyShape, {"sied": 32})
    experiment = ExperimentConfig()
    experiment.train.deepspeed = "nowhere.json"
    with pytest.raises(ConfigError, match=r"nowhere.json cannot be read"):
        shared_arguments(experiment, tmp_path)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_files_leave_to_transformers_what_it_knows(stage: int, tmp_path: Path) -> None:
    experiment = ExperimentConfig()
    experiment.train.deepspeed = f"zero{stage}"
    settings = shared_arguments(experiment, tmp_path)["deepspeed"]
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["zero_optimization"].get("stage3_gather_16bit_weights_on_model_save", False) == (stage == 3)
    assert settings["train_micro_batch_size_per_gpu"] == settings["bf16"]["enabled"] == "auto"


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        (["train.precision=bf16"], "float32"),  # steps of 1e-6 would be lost in bf16
        (["train.precision=bf16", "train.lora.enabled=true"], "bfloat16"),
        (["train.precision=bf16", "train.lora.enabled=true", "train.deepspeed=zero3"], "float32"),
        (["train.precision=fp32", "train.lora.enabled=true"], "float32"),
    ],
)
def test_weights_that_learn_are_kept_in_float32(
    overrides: list[str], dtype: str, tiny_experiment: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = shared_arguments(tiny_experiment(tmp_path, *overrides), tmp_path)
    assert arguments["model_init_kwargs"] == {"dtype": dtype}
    assert arguments["bf16"] == ("train.precision=bf16" in overrides)
