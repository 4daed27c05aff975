"""Edges of targets, and how far boxes are from them."""

from __future__ import annotations

import pytest
import torch

from segearth.losses.boxes import MARGIN, box_loss, boxes_around


def test_boxes_around_targets_by_hand() -> None:
    masks = torch.zeros(4, 4, 8)
    masks[0, 1:3, 2:4] = 1.0
    masks[0, 0, 7] = 0.5  # half of a cell at an edge is not mostly target
    masks[1, 3, 7] = 0.2  # unless there is nothing else
    masks[2] = 1.0
    masks[3, 0, 0] = masks[3, 2, 5] = 1.0  # two parts
    found = boxes_around(masks) - torch.tensor([-MARGIN, -MARGIN, MARGIN, MARGIN])
    expected = [[-0.5, -0.5, 0, 0.5], [0.75, 0.5, 1, 1], [-1, -1, 1, 1], [-1, -1, 0.5, 0.5]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_boxes_by_hand() -> None:
    """One target is the left half, the other absent; two predictions, of which the second is right but for one edge."""
    masks = torch.zeros(2, 4, 4)
    masks[0, :, :2] = 1.0
    right = [-1 - MARGIN, -1 - MARGIN, 0 + MARGIN, 1 + MARGIN, 8.0, 8.0]
    boxes = torch.tensor([[right, right], [right, right]])
    boxes[0, 0, 2] += 1.0
    boxes[0, 1, 0] -= 0.5
    boxes[1] += 9.0
    found = box_loss(boxes, masks, torch.tensor([True, False]))
    assert found.item() == pytest.approx((1.0 + 0.5) / 4)
    assert box_loss(boxes, masks, torch.tensor([False, False])) == 0
