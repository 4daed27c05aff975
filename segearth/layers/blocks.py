"""Small blocks used in several places."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with an activation between them."""

    def __init__(self, dims: list[int], activation: type[nn.Module] = nn.ReLU) -> None:
        """Builds ``len(dims) - 1`` layers.

        Args:
            dims: Widths from input to output.
            activation: Module class put between the layers.
        """
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(dims)):
            layers += [nn.Linear(a, b)] if i == 0 else [activation(), nn.Linear(a, b)]
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
    """LayerNorm over the channels of ``(B, C, H, W)``: independent of the map's size."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each cell over its channels."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or the most that divide both 32 and ``channels``."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def set_frozen(module: nn.Module) -> None:
    """Stops gradients of every parameter and puts the module in eval mode."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
