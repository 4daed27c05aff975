"""Activation checkpointing of finished modules: what they keep for the backward pass is computed again instead.

Libraries have switches of their own for this, but those do nothing in eval mode (transformers), leave out whole stages
(timm), and let a BatchNorm count every batch twice. Here any module can be chosen, in any mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def set_recomputed(modules: Iterable[nn.Module], enabled: bool) -> int:
    """Makes modules keep their inputs alone for the backward pass, which runs them again; or makes them ordinary again.

    Outputs and gradients stay equal; the random state is that of the first run. Where no gradient is recorded nothing
    is kept, and nothing is computed twice.

    Args:
        modules: None inside another.
        enabled: Whether to.

    Returns:
        How many modules there were.
    """
    count = 0
    for module in modules:
        if enabled:
            # In the instance, not the class: other models keep theirs. A partial is copied together with its module.
            module.forward = partial(_run, module)  # type: ignore[method-assign]
        else:
            module.__dict__.pop("forward", None)
        count += 1
    return count


def innermost_blocks(root: nn.Module) -> list[nn.Module]:
    """Returns the composed modules that stand in a row (in a container of torch) and hold no such row themselves.

    Those are the residual blocks of nearly every backbone, or its stages where the blocks are not in a container.
    """
    rows = [child for parent in root.modules() if isinstance(parent, CONTAINERS) for child in parent.children()]
    blocks = [m for m in rows if not isinstance(m, CONTAINERS) and any(True for _ in m.children())]
    chosen = set(blocks)
    return [block for block in blocks if not any(inner in chosen for inner in block.modules() if inner is not block)]


def _run(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward, contexts = partial(type(module).forward, module), partial(_contexts, module)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """What the first run and the second are inside of."""
    return contextlib.nullcontext(), _without_counting(module)


@contextlib.contextmanager
def _without_counting(module: nn.Module) -> Iterator[None]:
    """Lets every BatchNorm count into copies that are thrown away: the first run counted this batch already."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if b is None else b.clone() for name, b in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
