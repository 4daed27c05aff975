"""Which copies the host waits for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segearth.utils.devices import to_device


@pytest.mark.parametrize(
    ("device", "waits"),
    [("cuda", False), ("cuda:1", False), ("meta", False), ("mps", True), ("mps:0", True), ("cpu", True)],
)
@pytest.mark.parametrize("kind", [str, torch.device])
def test_only_cuda_is_left_alone_with_ordinary_memory(
    monkeypatch: pytest.MonkeyPatch, device: str, waits: bool, kind: Any
) -> None:
    """Elsewhere the copy may still read memory that the host has freed. No such device need be there to ask for it."""
    asked: list[tuple[Any, bool]] = []

    def to(tensor: Tensor, place: Any, non_blocking: bool) -> Tensor:
        asked.append((place, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "to", to)
    to_device(torch.ones(2), kind(device))
    assert asked == [(kind(device), not waits)]


def test_a_tensor_arrives() -> None:
    assert to_device(torch.ones(2), "meta").device.type == "meta"
    there = torch.ones(2)
    assert to_device(there, torch.device("cpu")) is there
