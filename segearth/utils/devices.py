"""Copies between host and device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# CUDA takes what it copies out of ordinary memory into a buffer of its own before the call returns. Apple's GPU does
# not: the host could free or change the memory first, and other numbers would arrive. The meta device holds no numbers;
# tests take it for a GPU to find what waits.
WITHOUT_WAITING = ("cuda", "meta")


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Returns a tensor on a device; the host does not wait for the copy where that is safe.

    Args:
        tensor: Of any shape, in ordinary or pinned memory of the host, or on a device.
        device: Such as ``"cuda:1"``.
    """
    kind = device.partition(":")[0] if isinstance(device, str) else device.type
    return tensor.to(device, non_blocking=kind in WITHOUT_WAITING)
