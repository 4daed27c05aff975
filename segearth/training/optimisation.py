"""Which parameters learn, how fast, and under which DeepSpeed settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segearth.config import LoraConfig, TrainConfig
from segearth.errors import ConfigError, MissingExtraError, nearest_names
from segearth.training.muon import MuonWithAdamW, weight_matrices
from segearth.utils.files import configs_dir
from segearth.utils.step_batches import split_batch

MUON = "muon"
OPTIMIZERS = ("adamw", MUON)


def add_lora(causal_lm: nn.Module, config: LoraConfig) -> None:
    """Puts low-rank adapters (arXiv 2106.09685) into a language model in place and freezes its other weights.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: No layer has one of the target names.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError("peft", "train", error) from error
    peft_config = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.target_modules
    )
    try:
        inject_adapter_in_model(peft_config, causal_lm)
    except ValueError as error:
        leaves = sorted({name.split(".")[-1] for name, m in causal_lm.named_modules() if isinstance(m, nn.Linear)})
        message = f"train.lora.target_modules {config.target_modules} match no layer (there are: {leaves})"
        raise ConfigError(message) from error
    for name, parameter in causal_lm.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merged_state_dict(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Adds each adapter to the weight that it adapts, and gives that weight the name that it has without adapters.

    Args:
        model: Tells which layers have adapters.
        state: Its state dict, on the host. It may hold fp32 weights of a model in bf16.
    """
    merged = {}
    for name, value in state.items():
        if "lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            value = value + _adapter_delta(model, name.removesuffix(".base_layer.weight"), state).to(value.dtype)
        merged[name.replace(".base_layer.", ".")] = value
    return merged


def _adapter_delta(model: nn.Module, layer_name: str, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns what an adapter adds to the weight of its layer, computed by peft from the tensors of ``state``."""
    layer: Any = model.get_submodule(layer_name)
    own = {f"{layer_name}.{name}": p for name, p in layer.named_parameters() if "lora_" in name}
    kept = {name: p.data for name, p in own.items()}
    try:
        for name, parameter in own.items():
            parameter.data = state[name]
        return layer.get_delta_weight("default").detach()
    finally:
        for name, parameter in own.items():
            parameter.data = kept[name]


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Returns AdamW, or Muon with AdamW, over the parameters that learn.

    Weight decay leaves out norms, biases and other single vectors.

    Raises:
        ConfigError: There is no such optimizer.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(f"train.optimizer {config.optimizer!r}: use {' or '.join(OPTIMIZERS)}")
    matrices = weight_matrices(model) if config.optimizer == MUON else []
    taken, betas = {id(p) for p in matrices}, (config.betas[0], config.betas[1])
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    parts = [  # the first group's learning rate is the one that is logged
        ([p for p in others if p.ndim > 1], config.learning_rate, config.weight_decay),
        ([p for p in others if p.ndim <= 1], config.learning_rate, 0.0),
        (matrices, config.matrix_learning_rate, config.weight_decay),
    ]
    groups = [
        {"params": params, "lr": rate, "weight_decay": decay, "matrices": params is matrices}
        for params, rate, decay in parts
        if params  # an empty group is an error in DeepSpeed
    ]
    return MuonWithAdamW(groups, betas) if config.optimizer == MUON else torch.optim.AdamW(groups, betas=betas)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to ``min_learning_rate_ratio``; 1 is the peak.

    Args:
        step: Optimiser steps done, from 0 to ``max_steps``.
        config: Warm-up share, number of steps and floor.
    """
    warmup = max(1, round(config.warmup_ratio * config.max_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    floor = config.min_learning_rate_ratio
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def passes_of(config: TrainConfig, world_size: int) -> tuple[int, int]:
    """Returns the images of a process's forward pass, and its passes in an optimiser step, their gradients added up.

    Raises:
        ConfigError: ``global_batch_size`` cannot be divided so, see :func:`segearth.utils.step_batches.split_batch`.
    """
    names = "train.global_batch_size", "train.micro_batch_size"
    return split_batch(config.global_batch_size, config.micro_batch_size, world_size, names)


def deepspeed_settings(config: TrainConfig, world_size: int, bf16: bool) -> dict[str, Any]:
    """Reads the DeepSpeed JSON and fills in what the experiment decides.

    Args:
        config: ``deepspeed`` names a file of ``configs/deepspeed`` or a path.
        world_size: Processes.
        bf16: Whether to train in bf16.

    Raises:
        ConfigError: No such file, or not JSON.
    """
    folder = configs_dir() / "deepspeed"
    path = folder / f"{config.deepspeed}.json"
    if not path.is_file():
        path = Path(config.deepspeed)
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.json"))
        raise ConfigError(f"train.deepspeed: no settings {config.deepspeed!r}{nearest_names(config.deepspeed, known)}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    images, passes = passes_of(config, world_size)
    settings |= {
        "train_micro_batch_size_per_gpu": images,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": config.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": bf16},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    return settings


def zero_stage(settings: Mapping[str, Any]) -> int:
    """Returns the stage of ZeRO in DeepSpeed settings, 0 to 3: the higher, the more is shared out among processes."""
    return int(settings.get("zero_optimization", {}).get("stage", 0))
