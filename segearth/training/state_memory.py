"""How much of a GPU's memory a model's state takes in training: computed, not measured.

ZeRO (arXiv 1910.02054, section 3) shares the state out among GPUs: from stage 1 on what the optimiser holds, from stage
2 on gradients too, at stage 3 weights too. In bf16 a weight that learns takes 2 bytes, its gradient 2, and the
optimiser 12: a copy in fp32, which it changes, and AdamW's two moments; Muon keeps one of the matrices that it steps. A
frozen weight takes 2 bytes and no more.

Activations, what a step needs only for a moment, and DeepSpeed's buffers come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from segearth.config import ModelConfig, TrainConfig
from segearth.errors import ConfigError
from segearth.models.build import build_on_meta
from segearth.models.segearth import SegEarth
from segearth.training.freezing import choose_what_learns
from segearth.training.muon import weight_matrices
from segearth.training.optimisation import MUON

GIB = 2**30
FP32, BF16 = 4, 2  # bytes
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class StateMemory:
    """What one GPU holds from step to step, in bytes.

    Attributes:
        weights: Of the model, those that do not learn included.
        gradients: Of the weights that learn.
        optimizer: Their fp32 copies, where there are some, and the optimizer's moments.
        average: The averaged weights that ``train.ema_decay`` asks for.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.average


def state_memory(
    frozen: int, learning: int, stage: int, gpus: int, bf16: bool = True, averaged: bool = False, by_muon: int = 0
) -> StateMemory:
    """Computes what one of several GPUs holds.

    Args:
        frozen: Number of weights that do not learn.
        learning: Number of those that do.
        stage: Of ZeRO, 0 to 3.
        gpus: How many share the state, at least 1.
        bf16: Whether the model computes in bf16, else in fp32.
        averaged: Whether averaged weights are kept, which is not possible at ZeRO's stage 3.
        by_muon: How many of the weights that learn Muon steps, which keeps one moment where AdamW keeps two.

    Raises:
        ConfigError: No such stage, no GPU, or averaged weights at stage 3.
    """
    if stage not in STAGES or gpus < 1:
        raise ConfigError(f"ZeRO stage {stage} on {gpus} GPUs: stages are 0 to 3, GPUs 1 or more")
    if averaged and stage == 3:
        raise ConfigError("ZeRO stage 3 does not go with train.ema_decay; set it to 0, or take a stage below")
    size = BF16 if bf16 else FP32
    of_states, of_gradients, of_weights = (gpus if stage >= first else 1 for first in (1, 2, 3))
    has_copies = bf16 or stage > 0  # with ZeRO, DeepSpeed keeps fp32 copies of fp32 weights, too
    return StateMemory(
        weights=size * (frozen + learning) / of_weights,
        gradients=size * learning / of_gradients,
        optimizer=FP32 * ((2 + has_copies) * learning - by_muon) / of_states,
        average=FP32 * averaged * learning / of_states,
    )


def shape_in_training(config: ModelConfig, train: TrainConfig) -> SegEarth:
    """Builds a model without memory for its weights, with adapters and frozen parts as training would have them.

    Raises:
        ConfigError: The settings do not fit the model.
    """
    model = build_on_meta(config)
    choose_what_learns(model, train)
    return model


def memory_table(model: SegEarth, train: TrainConfig, gpus: Sequence[int]) -> str:
    """Returns a table of GiB a GPU by stage of ZeRO and number of GPUs, and a line that says of what.

    Args:
        model: From :func:`shape_in_training`.
        train: ``precision`` (``auto`` counts as bf16, which it is on a GPU), ``optimizer`` and ``ema_decay`` are read.
            Muon goes with stage 0 alone.
        gpus: Numbers of GPUs.
    """
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - learning
    bf16, averaged = train.precision != "fp32", train.ema_decay > 0
    with_muon = train.optimizer == MUON
    by_muon = sum(p.numel() for p in weight_matrices(model)) if with_muon else 0
    lines = [
        f"Computed GiB a GPU: {learning / 1e6:.1f} M weights learn, {frozen / 1e6:.1f} M are frozen, "
        f"{'bf16' if bf16 else 'fp32'}, {'Muon with AdamW' if with_muon else 'AdamW'}. Activations come on top.",
        "",
        "| ZeRO stage | GPUs | weights | gradients | optimizer | average | together |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stage in STAGES[:1] if with_muon else STAGES[:3] if averaged else STAGES:
        for count in gpus:
            memory = state_memory(frozen, learning, stage, count, bf16, averaged, by_muon)
            shown = " | ".join(f"{part / GIB:.2f}" for part in (*astuple(memory), memory.total))
            lines.append(f"| {stage} | {count} | {shown} |")
    return "\n".join(lines)
