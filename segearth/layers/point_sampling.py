"""Sampling maps at points, and choosing points where a mask is uncertain (PointRend, arXiv 1912.08193)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Reads maps bilinearly at points.

    Args:
        maps: ``(N, h, w)``.
        points: ``(N, P, 2)`` as (x, y) in [0, 1] of the map. Outside of that range zeros are read.

    Returns:
        ``(N, P)`` float32.
    """
    grid = (2 * points.float() - 1).unsqueeze(1)
    return F.grid_sample(maps.float().unsqueeze(1), grid, mode="bilinear", align_corners=False)[:, 0, 0]


@torch.no_grad()
def uncertain_points(logits: Tensor, count: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    """Draws random points, mostly where the logits are nearest zero.

    Args:
        logits: ``(N, h, w)``.
        count: Points wanted for each map.
        oversample_ratio: Candidates drawn for each point wanted, at least 1.
        importance_ratio: Share of the points, in [0, 1], taken as the most uncertain candidates; the rest is uniform.

    Returns:
        ``(N, count, 2)`` as (x, y) in [0, 1].
    """
    n = logits.shape[0]
    candidates = torch.rand(n, int(count * oversample_ratio), 2, device=logits.device)
    certainty = sample_points(logits, candidates).abs()
    num_uncertain = int(count * importance_ratio)
    nearest = certainty.topk(num_uncertain, dim=1, largest=False).indices
    chosen = candidates.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(n, count - num_uncertain, 2, device=logits.device)], dim=1)
