"""Where a cell lies: the fixed sine embedding for attention, and learned coordinates for feature maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from segearth.layers.blocks import MLP


def sine_position(height: int, width: int, dim: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the normalised two-dimensional sine embedding of DETR (arXiv 2005.12872).

    Rows fill the first half of the channels, columns the second; each half alternates sine and cosine over
    wavelengths from 2π to 10000 · 2π, with coordinates scaled so that the last cell is at 2π.

    Args:
        height: Cells down.
        width: Cells across.
        dim: Channels, divisible by 4.
        device: Where to make it.

    Returns:
        ``(height * width, dim)`` float32, row-major.
    """
    half = dim // 2
    exponent = 2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half
    wavelength = 10000**exponent

    def axis(length: int) -> Tensor:
        steps = torch.arange(1, length + 1, device=device, dtype=torch.float32) / (length + 1e-6) * (2 * math.pi)
        phase = steps[:, None] / wavelength
        return torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], -1).flatten(1)  # (length, half)

    rows = axis(height)[:, None].expand(-1, width, -1)
    columns = axis(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).reshape(height * width, dim)


class CoordinateEmbedding(nn.Module):
    """Adds to each cell of a feature map what a small network makes of the cell's place in the image.

    Without it only attention knows where a cell lies, and a mask, which is a product with the features alone, cannot
    be cut at the middle of the image however plainly the question says so.
    """

    FREQUENCIES = 4  # the finest wave is an eighth of the image long: quarters and corners can be told apart

    def __init__(self, dim: int, hidden: int = 64) -> None:
        """Takes the channels of the map, and the width of the network."""
        super().__init__()
        self.mlp = MLP([2 + 4 * self.FREQUENCIES, hidden, dim])

    def forward(self, features: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same shape."""
        height, width = features.shape[2:]
        y = (torch.arange(height, device=features.device) + 0.5) / height * 2 - 1
        x = (torch.arange(width, device=features.device) + 0.5) / width * 2 - 1
        places = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1)  # (h, w, 2) in [-1, 1]
        waves = [places * (math.pi / 2 * 2**k) for k in range(self.FREQUENCIES)]
        known = torch.cat([places, *(wave.sin() for wave in waves), *(wave.cos() for wave in waves)], -1)
        return features + self.mlp(known.to(features.dtype)).movedim(-1, 0)


class Coordinates(nn.ModuleDict):
    """Tells mask features, decoder memory and what the projector looks at where each of their cells lies."""

    def __init__(self, res5_channels: int, dim: int) -> None:
        """Takes the channels of the encoder's last map and of the pixel decoder."""
        widths = {"mask_features": dim, "memory": dim, "media": res5_channels}
        super().__init__({name: CoordinateEmbedding(width) for name, width in widths.items()})

    def forward(
        self, mask_features: Tensor, memory: list[Tensor], media: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Maps all three, each ``(B, C, h, w)``, to the same shapes."""
        levels = [self["memory"](level) for level in memory]
        return self["mask_features"](mask_features), levels, self["media"](media)
