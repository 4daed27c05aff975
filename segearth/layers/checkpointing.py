"""Activation checkpointing of modules that are already built.

A checkpointed module keeps only its inputs. When the backward pass needs its activations, it is run a second time.

transformers and timm have switches of their own for this. They are not used here, because the switch of transformers
does nothing in eval mode (where frozen layers are), the one of timm leaves out whole stages, and with both a BatchNorm
counts every batch twice. The functions here work with any module, in any mode.
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
    """Switches activation checkpointing of some modules on or off.

    Outputs and gradients stay equal, since the second run draws the same random numbers as the first. Where no
    gradients are computed, nothing is run twice.

    Args:
        modules: The modules; none of them may lie inside another.
        enabled: ``True`` to switch checkpointing on, ``False`` to switch it off.

    Returns:
        The number of modules.
    """
    count = 0
    for module in modules:
        if enabled:
            # Set on the instance, since a change of the class would reach other models too. It is a partial and not a
            # closure, so that copy.deepcopy of the model binds the copy's own module.
            module.forward = partial(_run, module)  # type: ignore[method-assign]
        else:
            module.__dict__.pop("forward", None)
        count += 1
    return count


def innermost_blocks(root: nn.Module) -> list[nn.Module]:
    """Returns the modules that are elements of a container, have submodules, and hold no such module themselves.

    A container is an ``nn.Sequential``, ``nn.ModuleList`` or ``nn.ModuleDict``. In nearly every backbone these modules
    are the residual blocks; where the blocks are not in a container, they are the stages.
    """
    elements = [child for parent in root.modules() if isinstance(parent, CONTAINERS) for child in parent.children()]
    blocks = [m for m in elements if not isinstance(m, CONTAINERS) and any(True for _ in m.children())]
    chosen = set(blocks)
    return [block for block in blocks if not any(inner in chosen for inner in block.modules() if inner is not block)]


def _run(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward, contexts = partial(type(module).forward, module), partial(_contexts, module)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    """Returns the context managers of the first run and of the second, as ``torch.utils.checkpoint`` wants them."""
    return contextlib.nullcontext(), _without_counting(module)


@contextlib.contextmanager
def _without_counting(module: nn.Module) -> Iterator[None]:
    """Gives every BatchNorm copies of its moving statistics to update, and puts the originals back afterwards.

    The first run has counted this batch already; without this the second run would count it again.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    originals = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: None if b is None else b.clone() for name, b in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            norm._buffers.update(buffers)
