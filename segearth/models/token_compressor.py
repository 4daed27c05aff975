"""From the deepest vision map to a handful of language-model tokens.

Shapes: ``B`` images, ``C5`` channels of res5, ``D`` width of the language model, ``S`` image tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.layers.blocks import ChannelNorm
from segearth.layers.position import sine_position


class ConvCompressor(nn.Module):
    """Strided convolutions and norms that treat every cell alike, for maps of any size and aspect.

    A sine embedding tells the language model where in the image each token is: from its place in the row alone that
    could not be told, since rows of tokens differ in length from image to image.
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

    def forward(self, res5: Tensor) -> Tensor:
        """Maps ``(B, C5, h, w)`` to ``(B, S, D)``, row by row."""
        tokens = self.layers(res5)
        position = sine_position(tokens.shape[2], tokens.shape[3], self.dim, tokens.device)
        return rearrange(tokens, "b d h w -> b (h w) d") + position.to(tokens.dtype)


class SparseConvCompressor(nn.Module):
    """The published compressor: 16 times fewer tokens, LayerNorms over whole maps.

    Its norms have a scale and a shift for every cell of a map, and so fit only the size that they were trained at. For
    any other size both are interpolated bilinearly.
    """

    stride = 4

    def __init__(self, in_channels: int, dim: int, input_size: int) -> None:
        """Builds the published layers.

        Args:
            in_channels: ``C5``.
            dim: ``D``.
            input_size: Cells a side of the square res5 map that the norms are stored for (32 at 1024 px).
        """
        super().__init__()
        half, quarter = -(-input_size // 2), -(-input_size // 4)
        self.proj1 = nn.Conv2d(in_channels, dim, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm([dim, half, half])
        self.proj2 = nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm([dim, quarter, quarter])
        self.fc = nn.Conv2d(dim, dim, 1)

    def forward(self, res5: Tensor) -> Tensor:
        """Maps ``(B, C5, h, w)`` to ``(B, S, D)``, row by row."""
        x = norm_at_any_size(self.norm1, self.proj1(res5))
        x = norm_at_any_size(self.norm2, self.proj2(x))
        return rearrange(self.fc(x), "b d h w -> b (h w) d")


def norm_at_any_size(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Applies a LayerNorm over whole maps to maps of any size.

    Args:
        norm: Over ``(C, a, b)``.
        x: ``(B, C, h, w)``.

    Returns:
        The same shape; exactly ``norm(x)`` where ``(h, w)`` is ``(a, b)``.
    """
    if x.shape[1:] == norm.weight.shape:
        return norm(x)
    weight, bias = (
        F.interpolate(p[None], size=x.shape[2:], mode="bilinear", align_corners=False)[0]
        for p in (norm.weight, norm.bias)
    )
    return F.layer_norm(x, x.shape[1:], weight, bias, norm.eps)
