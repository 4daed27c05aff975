"""The weights that the optimiser changes, in fp32, however DeepSpeed keeps them.

In bf16 a number has two to three decimal digits, and a step often changes a weight by less than the last of them. So
DeepSpeed keeps fp32 copies, the master weights, changes those, and rounds them into the model after each step. The
average, and models that are saved, are made of the masters: rounded weights often do not change for many steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# The attribute in which DeepSpeed's optimizer keeps what this process updates: under ZeRO-3; under ZeRO-1 and 2; in
# bf16 under ZeRO-1; in bf16 alone.
HOLDERS = (
    "fp32_partitioned_groups_flat",
    "single_partition_of_fp32_groups",
    "fp32_groups_flat_partition",
    "fp32_groups",
)


def frozen_weights(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """Returns the parameters that do not learn, by name, as they are before DeepSpeed rounds them.

    Args:
        model: On the host; what is returned shares its memory.
        keep: Whether this process is the one that saves. Others name the same parameters and keep no weights.
    """
    frozen = [(name, p.detach()) for name, p in model.named_parameters() if not p.requires_grad]
    return {name: weight if keep else weight.new_empty(0) for name, weight in frozen}


class MasterWeights:
    """Whole fp32 weights of a model under DeepSpeed, and the parts of them that this process updates."""

    def __init__(self, engine: Any, frozen: Mapping[str, Tensor] | None = None) -> None:
        """Takes an engine.

        Args:
            engine: From ``deepspeed.initialize``.
            frozen: From :func:`frozen_weights`, taken on every process before the engine was made: DeepSpeed has no
                fp32 copies of these. Left out, they are read as the engine holds them.
        """
        self.engine, self.frozen = engine, frozen or {}
        self.model: nn.Module = engine.module

    def parts(self) -> list[Tensor]:
        """Returns what this process updates: the whole weights, or its share of them laid end to end."""
        optimizer = self.engine.optimizer
        for holder in HOLDERS:
            if hasattr(optimizer, holder):
                return _flat(getattr(optimizer, holder))
        return [p for group in optimizer.param_groups for p in group["params"]]

    def are_finite(self) -> bool:
        """Whether no weight of any process is infinite or undefined; all processes call it together."""
        import torch.distributed as dist

        finite = all(bool(part.isfinite().all()) for part in self._without_padding())
        count = torch.tensor(int(finite), device=self.engine.device)
        if dist.get_world_size() > 1:
            dist.all_reduce(count, dist.ReduceOp.MIN)
        return bool(count)

    def _without_padding(self) -> list[Tensor]:
        """Returns what this process updates, without the padding at the end of ZeRO-3's shares, which is not set."""
        import torch.distributed as dist

        learning: list[Any] = [p for p in self.model.parameters() if p.requires_grad]
        own = [(p.ds_tensor.data.flatten(), p.ds_numel) for p in learning if hasattr(p, "ds_tensor")]
        if not own:
            return self.parts()
        return [part[: max(0, whole - dist.get_rank() * len(part))] for part, whole in own]

    def state_dict(self, keep: bool = True) -> dict[str, Tensor]:
        """Returns the model's state dict with whole fp32 weights; all processes call it together.

        Args:
            keep: Whether this process wants it. Others take part one tensor at a time and return nothing.
        """
        state: dict[str, Tensor] = {}
        done: dict[int, Tensor] = {}  # by parameter, so that one with several names is brought together once
        names = {id(p): name for name, p in self.model.named_parameters()}
        for name, value in self.model.state_dict(keep_vars=True).items():
            if isinstance(value, nn.Parameter):
                if id(value) not in done:
                    whole = self._whole(names[id(value)], value)
                    done[id(value)] = whole.cpu() if keep else whole.new_empty(0)
                value = done[id(value)]
            if keep:
                state[name] = value.detach().cpu()
        return state

    def learned(self, keep: bool = True) -> dict[str, Tensor]:
        """Returns whole fp32 copies of the parameters that learn, by name; otherwise as :meth:`state_dict`."""
        state = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                whole = self._whole(name, parameter)
                if keep:
                    state[name] = whole.clone()
        return state

    def set_learned(self, state: Mapping[str, Tensor]) -> None:
        """Writes whole weights, given by name, into the masters; the model's rounded weights are left as they are.

        Raises:
            KeyError: A parameter that learns is missing.
        """
        from deepspeed.utils import safe_set_full_fp32_param

        pairs = self._unsharded()
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            if _is_sharded(parameter):
                safe_set_full_fp32_param(parameter, state[name].to(self.engine.device))
            else:
                pairs.get(id(parameter), parameter).data.copy_(state[name])

    def _whole(self, name: str, parameter: nn.Parameter) -> Tensor:
        if not parameter.requires_grad:
            return self.frozen[name].float() if name in self.frozen else _gathered(parameter).float()
        if _is_sharded(parameter):
            from deepspeed.utils import safe_get_full_fp32_param

            return safe_get_full_fp32_param(parameter)
        return self._unsharded().get(id(parameter), parameter).detach().float()

    def _unsharded(self) -> dict[int, Tensor]:
        """The master of each parameter, by the parameter's id, where DeepSpeed rounds but does not share them out."""
        optimizer = self.engine.optimizer
        rounded = getattr(optimizer, "fp16_groups", None)  # named so in bf16 too
        if rounded is None or not hasattr(optimizer, "fp32_groups"):
            return {}
        pairs = zip(_flat(rounded), _flat(optimizer.fp32_groups), strict=True)
        return {id(parameter): master for parameter, master in pairs}


class WeightAverage:
    """Exponential moving average of the master weights, of which each process keeps the parts that it updates."""

    def __init__(self, masters: MasterWeights, decay: float) -> None:
        """Starts at the weights as they are.

        Args:
            masters: What is averaged.
            decay: The share of the average that a step leaves, in the long run.
        """
        self.masters, self.decay = masters, decay
        self.values = [part.detach().clone() for part in masters.parts()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step ``step``, which counts from 0."""
        # Early on the average follows the weights closely, or it would keep the random start for a long time.
        decay = min(self.decay, (1 + step) / (10 + step))
        for value, part in zip(self.values, self.masters.parts(), strict=True):
            value.lerp_(part.detach(), 1 - decay)

    @contextmanager
    def as_masters(self) -> Iterator[None]:
        """Puts the average in place of the masters inside the block, for whatever reads them, and then back."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self, keep: bool = True) -> dict[str, Tensor]:
        """Returns the average of the parameters that learn, whole and by name; all processes call it together."""
        with self.as_masters():
            return self.masters.learned(keep)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` returned, with any number of processes."""
        with self.as_masters():
            self.masters.set_learned(state)

    @torch.no_grad()
    def _exchange(self) -> None:
        for value, part in zip(self.values, self.masters.parts(), strict=True):
            kept = part.detach().clone()
            part.data.copy_(value)
            value.copy_(kept)


def _flat(groups: Any) -> list[Tensor]:
    return [t for group in groups for t in (_flat(group) if isinstance(group, (list, tuple)) else [group])]


def _is_sharded(parameter: nn.Parameter) -> bool:
    """Whether processes share a parameter's master weights out, so that DeepSpeed must bring them together."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _gathered(parameter: nn.Parameter) -> Tensor:
    """A parameter that does not learn; under ZeRO-3 a process holds only its part of it."""
    if not hasattr(parameter, "ds_id"):
        return parameter.detach()
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()
