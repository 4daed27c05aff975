"""Position of the cells of a feature map: the fixed sine embedding for attention, and a learned one that is added."""

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
        device: The device of the result.

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
    """Adds to each cell of a feature map a vector that a small network computes from the cell's position.

    Mask logits are the product of a query with the mask features. Without this module the features say nothing of
    position, so no query could draw a mask that ends at the middle of the image, as "the left half" asks for.
    """

    FREQUENCIES = 4  # the finest wave has a period of a quarter of the image: quarters and corners can be told apart

    def __init__(self, dim: int, hidden: int = 64) -> None:
        """Builds the network.

        Args:
            dim: Channels of the feature map.
            hidden: Width of the network's hidden layer.
        """
        super().__init__()
        self.mlp = MLP([2 + 4 * self.FREQUENCIES, hidden, dim])

    def forward(self, features: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same shape."""
        height, width = features.shape[2:]
        y = (torch.arange(height, device=features.device) + 0.5) / height * 2 - 1
        x = (torch.arange(width, device=features.device) + 0.5) / width * 2 - 1
        positions = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1)  # (h, w, 2), -1 to 1
        phases = [positions * (math.pi / 2 * 2**k) for k in range(self.FREQUENCIES)]
        inputs = torch.cat([positions, *(phase.sin() for phase in phases), *(phase.cos() for phase in phases)], -1)
        return features + self.mlp(inputs.to(features.dtype)).movedim(-1, 0)


class Coordinates(nn.ModuleDict):
    """Adds a position embedding to the three kinds of feature maps that a query is compared with.

    These are the mask features, the pixel decoder's multi-scale features, which the mask decoder attends to, and the
    encoder's last map, res5, which the description projector attends to. In saved weights the embeddings of the last
    two are called ``memory`` and ``media``.
    """

    def __init__(self, res5_channels: int, dim: int) -> None:
        """Builds one embedding for each kind of map.

        Args:
            res5_channels: Channels of the encoder's last map.
            dim: Channels of the pixel decoder's maps.
        """
        widths = {"mask_features": dim, "memory": dim, "media": res5_channels}
        super().__init__({name: CoordinateEmbedding(width) for name, width in widths.items()})

    def forward(
        self, mask_features: Tensor, multi_scale_features: list[Tensor], res5: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Returns all three with positions added, each ``(B, C, h, w)`` as before."""
        levels = [self["memory"](level) for level in multi_scale_features]
        return self["mask_features"](mask_features), levels, self["media"](res5)
