"""Activation checkpointing: fewer bytes kept, the same outputs, gradients and statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from segearth.layers.checkpointing import innermost_blocks, set_recomputed


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.GELU())
        self.dropout = nn.Dropout(0.3)
        self.back = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return x + scale * self.back(self.dropout(self.inside(x)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(Block(8), Block(8)), Block(8))


def step(model: nn.Module, saved_bytes: Callable[..., Any]) -> tuple[int, list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(1)  # of the dropout
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    output, kept = saved_bytes(lambda: model(images))
    output.square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return kept, gradients, [b.clone() for b in model.buffers()]


@pytest.mark.parametrize("training", [True, False])
def test_less_is_kept_and_nothing_else_changes(training: bool, saved_bytes: Callable[..., Any]) -> None:
    """BatchNorm's running statistics too: a second run that counted would have moved them twice."""
    plain, other = network().train(training), network().train(training)
    assert set_recomputed(innermost_blocks(other), True) == 3
    (much, expected, counted), (little, found, counted_once) = step(plain, saved_bytes), step(other, saved_bytes)
    assert 3 * little < much
    assert len(expected) == len(found) == len(list(plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(counted, counted_once, strict=True))


def test_blocks_are_the_innermost_composed_modules_of_a_row() -> None:
    model = network()
    assert set(innermost_blocks(model)) == {model[1][0], model[1][1], model[2]}
    assert innermost_blocks(nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))) == []
    stage = Block(8)
    stage.inside = nn.Sequential(Block(4), Block(4))  # now a stage: each block once, and not the stage around them
    assert set(innermost_blocks(nn.Sequential(stage))) == set(stage.inside)


def test_it_can_be_switched_off_and_copied(saved_bytes: Callable[..., Any]) -> None:
    model = network().train()
    set_recomputed(innermost_blocks(model), True)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert not twin(torch.ones(1, 3, 4, 4)).any()  # the copy runs its own weights, not those it was copied from
    set_recomputed(innermost_blocks(model), False)
    assert step(model, saved_bytes)[0] == step(network().train(), saved_bytes)[0]


def test_keywords_reach_the_module() -> None:
    block = Block(8).eval()
    images = torch.randn(1, 8, 4, 4, requires_grad=True)
    expected = block(images, scale=3.0)
    set_recomputed([block], True)
    assert torch.equal(block(images, scale=3.0), expected)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_not_in_the_way(
    without_gradients: Callable[[], Any], saved_bytes: Callable[..., Any]
) -> None:
    block, images = Block(8).eval(), torch.randn(1, 8, 4, 4)
    convolved: list[int] = []
    block.back.register_forward_hook(lambda *_: convolved.append(1))
    with without_gradients():
        expected = block(images)
        set_recomputed([block], True)
        found, kept = saved_bytes(lambda: block(images))
    assert torch.equal(found, expected)
    assert (len(convolved), kept) == (2, 0)
