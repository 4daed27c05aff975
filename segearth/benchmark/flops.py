"""Multiply-adds of a piece of work, counted by fvcore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from segearth.benchmark.naive import plain_operators
from segearth.models.segearth import SegEarth


@torch.no_grad()
def count_flops(model: SegEarth, work: Callable[[], Any]) -> float:
    """Counts what a piece of work with a model costs.

    fvcore counts a multiply and its add as one; attention and deformable sampling are counted by their definitions.

    Args:
        model: What the work is done with.
        work: Does it; run once, to be traced. Its result may hold tensors at any depth.

    Returns:
        Billions (10⁹).
    """
    from fvcore.nn import FlopCountAnalysis

    with plain_operators(model):
        analysis = FlopCountAnalysis(_Traced(model, work), torch.zeros(1, device=model.device))
        return float(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()) / 1e9


class _Traced(nn.Module):
    """Returns everything that is computed: the tracer would not count operations that lead to no output."""

    def __init__(self, model: SegEarth, work: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self.work = model, work

    def forward(self, _: Tensor) -> tuple[Tensor, ...]:
        dropped: list[Any] = []  # hidden states that the model does not return, since it keeps only keys and values
        body = self.model.language_model.causal_lm.base_model
        hook = body.register_forward_hook(lambda *call: dropped.append(call[-1]))
        try:
            return tuple(_tensors([self.work(), dropped]))
        finally:
            hook.remove()


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)
    elif hasattr(result, "__dict__"):
        yield from _tensors(list(vars(result).values()))
