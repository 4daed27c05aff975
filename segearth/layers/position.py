"""Fixed sine position embedding for feature maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
