from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from segearth.model_types import Batch, EncodedText


def batch(valid: Tensor | None = None) -> Batch:
    ids = torch.arange(6).view(2, 3)
    text = EncodedText(ids, [3, 2], ids > 1, ids - 100, torch.zeros(0, 2, dtype=torch.long), [("find", 2)])
    present = torch.tensor([True, False])
    return Batch(torch.rand(1, 3, 4, 4), text, torch.tensor([0, 0]), torch.rand(2, 4, 4), present, valid, ["a", "b"])


def tensors(whole: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a data class, by name, found by looking and not by a list."""
    for name, value in vars(whole).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif hasattr(value, "__dataclass_fields__"):
            yield from tensors(value, f"{prefix}{name}.")


@pytest.mark.parametrize("valid", [None, torch.ones(1, 4, 4, dtype=torch.bool)])
def test_a_data_loader_pins_every_tensor_of_a_batch(valid: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loader does with a batch, with a pinning that needs no GPU."""
    pinned: set[int] = set()

    def pin(tensor: Tensor, device: Any = None) -> Tensor:
        copy = tensor.clone()
        pinned.add(id(copy))
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    given = batch(valid)
    ready = pin_memory(given)
    found = dict(tensors(ready))
    assert len(found) == 8 + (valid is not None) and {id(tensor) for tensor in found.values()} == pinned
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(given))
    assert (ready.question_ids, ready.text.lengths, ready.text.openings) == (["a", "b"], [3, 2], [("find", 2)])
    assert ready.valid is None if valid is None else torch.equal(ready.valid, valid)


def test_a_batch_moves_without_waiting_and_its_index_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    move = Tensor.to

    def watch(tensor: Tensor, *args: Any, non_blocking: bool = False, **rest: Any) -> Tensor:
        waited.append(not non_blocking)
        return move(tensor, *args, non_blocking=non_blocking, **rest)

    monkeypatch.setattr(Tensor, "to", watch)
    given = replace(batch(torch.ones(1, 4, 4, dtype=torch.bool)), placeholder=True)
    moved = given.to("meta")
    assert {name for name, tensor in tensors(moved) if tensor.device.type != "meta"} == {"image_index"}
    assert moved.image_index is given.image_index and moved.placeholder and moved.question_ids == ["a", "b"]
    assert len(waited) == 8 and not any(waited)
