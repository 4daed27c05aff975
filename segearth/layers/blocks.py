"""Small blocks used in several places."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself from Python 3.11 on


class MLP(nn.Sequential):
    """Linear layers with an activation between them."""

    def __init__(self, dims: list[int], activation: type[nn.Module] = nn.ReLU) -> None:
        """Builds ``len(dims) - 1`` layers.

        Args:
            dims: Widths from input to output.
            activation: Module class put between the layers.
        """
        layers: list[nn.Module] = []
        for i, (width_in, width_out) in enumerate(itertools.pairwise(dims)):
            layers += [nn.Linear(width_in, width_out)] if i == 0 else [activation(), nn.Linear(width_in, width_out)]
        super().__init__(*layers)


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample with probability ``p`` in training (arXiv 1603.09382)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` of shape ``(B, …)`` with some samples zeroed and the rest scaled up to keep the mean."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each cell of ``(B, C, H, W)``; its weights do not depend on ``H`` and ``W``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each cell over its channels."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns a GroupNorm with 32 groups, or with the largest divisor of 32 that also divides ``channels``."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


class Freezable(nn.Module):
    """A module that can be frozen, whole or in part, and whose frozen parts stay in eval mode.

    ``nn.Module.train()`` sets the mode of every submodule, so without this class a frozen part would drop activations
    and update its moving statistics again as soon as training starts.

    Attributes:
        frozen: If set, the parameters get no gradient and the module stays in eval mode when ``train()`` is called.
    """

    frozen: bool = False

    def freeze(self) -> None:
        """Freezes the whole module: no gradients, and eval mode from now on. There is no way to undo this."""
        set_frozen(self)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of every submodule that is not frozen."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "frozen", False):
                nn.Module.train(module, False)
        return self


def set_frozen(module: nn.Module) -> None:
    """Freezes a module: its parameters get no gradient, and a :class:`Freezable` around it keeps it in eval mode."""
    module.frozen = True  # type: ignore[assignment]
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
