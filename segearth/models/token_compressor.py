"""From the deepest vision map to a handful of language-model tokens.

Shapes: ``B`` images, ``C5`` channels of res5, ``D`` width of the language model, ``S`` image tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segearth.errors import ConfigError, ImageError
from segearth.layers.blocks import ChannelNorm
from segearth.layers.position import sine_position


class ConvCompressor(nn.Module):
    """Strided convolutions with per-cell norms: any size, any aspect.

    A sine embedding tells the language model where each token sits, since the number of tokens varies.
    """

    def __init__(self, in_channels: int, dim: int, stride: int = 4) -> None:
        """Builds the convolutions.

        Args:
            in_channels: ``C5``.
            dim: ``D``, divisible by 4.
            stride: 1, 2 or 4 cells of res5 a side become one token.

        Raises:
            ConfigError: ``stride`` is none of these.
        """
        super().__init__()
        if stride not in (1, 2, 4):
            raise ConfigError(f"token_compressor: stride must be 1, 2 or 4, not {stride}")
        self.stride, self.dim = stride, dim
        layers: list[nn.Module] = []
        channels = in_channels
        for step in {1: [1], 2: [2], 4: [2, 2]}[stride]:
            layers += [nn.Conv2d(channels, dim, 3, stride=step, padding=1), ChannelNorm(dim), nn.GELU()]
            channels = dim
        self.layers = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))

    def num_tokens(self, height: int, width: int) -> int:
        """Tokens made of a res5 map of the given cells."""
        return -(-height // self.stride) * -(-width // self.stride)

    def forward(self, res5: Tensor) -> Tensor:
        """Maps ``(B, C5, h, w)`` to ``(B, S, D)``, row by row."""
        tokens = self.layers(res5)
        position = sine_position(tokens.shape[2], tokens.shape[3], self.dim, tokens.device)
        return tokens.flatten(2).transpose(1, 2) + position.to(tokens.dtype)


class SparseConvCompressor(nn.Module):
    """The published compressor: 16 times fewer tokens, LayerNorms over whole maps, hence one input size."""

    stride = 4

    def __init__(self, in_channels: int, dim: int, input_size: int) -> None:
        """Builds the published layers.

        Args:
            in_channels: ``C5``.
            dim: ``D``.
            input_size: Cells a side of the square res5 map (32 at 1024 px).
        """
        super().__init__()
        self.input_size = input_size
        half, quarter = input_size // 2, input_size // 4
        self.proj1 = nn.Conv2d(in_channels, dim, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm([dim, half, half])
        self.proj2 = nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm([dim, quarter, quarter])
        self.fc = nn.Conv2d(dim, dim, 1)

    def num_tokens(self, height: int, width: int) -> int:
        """Tokens made of a res5 map of the given cells."""
        return (self.input_size // 4) ** 2

    def forward(self, res5: Tensor) -> Tensor:
        """Maps ``(B, C5, n, n)`` to ``(B, n²/16, D)``.

        Raises:
            ImageError: The map is not of the one size this compressor was built for.
        """
        if tuple(res5.shape[2:]) != (self.input_size, self.input_size):
            side = self.input_size * 32
            raise ImageError(f"the sparse_conv compressor takes {side}x{side} px only; use kind: conv for other sizes")
        x = self.norm2(self.proj2(self.norm1(self.proj1(res5))))
        return torch.flatten(self.fc(x), 2).transpose(1, 2)
