from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.losses.dense import dense_losses, shrink_masks, small_target_weight

ALL = torch.tensor([True])


def test_masks_are_averaged_over_cells():
    mask = torch.zeros(1, 8, 8)
    mask[0, :4, :2] = 1  # half of the first cell of 4 x 4
    mask[0, 7, 7] = 1
    assert torch.equal(shrink_masks(mask, (2, 2)), torch.tensor([[[0.5, 0.0], [0.0, 1 / 16]]]))


def test_worked_values():
    """One question, one prediction, four cells with logits 0: probability one half everywhere."""
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    bce, dice = dense_losses(logits, target, None, ALL)
    assert bce.item() == pytest.approx(math.log(2))  # the cross-entropy of one half, whatever the target
    # Σpt = 0.75, Σp = 2, Σt = 1.5: 1 - (2 * 0.75 + 1) / (2 + 1.5 + 1)
    assert dice.item() == pytest.approx(1 - 2.5 / 4.5)


def test_predictions_are_summed_and_counted_questions_averaged():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 2, 4, 4), torch.rand(3, 4, 4)
    counted = torch.tensor([True, False, True])
    whole = dense_losses(logits, targets, None, counted)
    parts = [dense_losses(logits[i : i + 1, j : j + 1], targets[i : i + 1], None, ALL) for i in (0, 2) for j in (0, 1)]
    for k in (0, 1):
        assert whole[k].item() == pytest.approx(sum(part[k].item() for part in parts) / 2, rel=1e-5)


def test_what_is_not_known_has_no_say():
    torch.manual_seed(0)
    logits, targets = torch.randn(1, 1, 4, 4), torch.rand(1, 4, 4)
    known = torch.ones(1, 4, 4)
    known[:, :, 2:] = 0
    inside = dense_losses(logits[..., :2], targets[..., :2], None, ALL, 0.3)
    elsewhere = logits.clone()
    elsewhere[..., 2:] = 50.0
    for given_logits in (logits, elsewhere):
        found = dense_losses(given_logits, targets, known, ALL, 0.3)
        assert [v.item() for v in found] == pytest.approx([v.item() for v in inside], rel=1e-5)


def test_a_batch_in_which_nothing_counts_costs_nothing_and_keeps_its_graph():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    bce, dice = dense_losses(logits, torch.zeros(2, 4, 4), None, torch.tensor([False, False]))
    assert bce.item() == dice.item() == 0
    (bce + dice).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_small_target_weighs_as_much_as_asked_for():
    targets = torch.zeros(2, 10, 10)
    targets[0, 0, 0] = 1  # 1 %
    targets[1, :5] = 1  # half
    weight = small_target_weight(targets, torch.ones_like(targets), 0.05)
    assert weight[0, 0, 0] == 5 and weight[0].sum() == 104  # about 5 of 104
    assert (weight[1] == 1).all()  # large enough
    assert small_target_weight(targets, torch.ones_like(targets), 0.9)[0, 0, 0] == 20  # the most
    assert torch.equal(small_target_weight(targets, targets, 0.0), targets)


def test_an_empty_target_is_no_division_by_zero():
    bce, dice = dense_losses(torch.full((1, 1, 4, 4), -30.0), torch.zeros(1, 4, 4), None, ALL, 0.1)
    assert bce.item() < 1e-6 and dice.item() < 1e-6
    blind = dense_losses(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), ALL, 0.1)
    assert [v.item() for v in blind] == [0, 0]


@given(seed=st.integers(0, 1000), small=st.sampled_from([0.0, 0.1]))
@settings(max_examples=25, deadline=None)
def test_the_target_itself_is_the_best_answer(seed, small):
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(1, 6, 6, generator=generator) > 0.6).float()
    right = (target * 2 - 1)[:, None] * 8
    wrong = right.clone()
    wrong.view(-1)[int(torch.randint(36, (1,), generator=generator))] *= -1
    good, bad = (dense_losses(logits, target, None, ALL, small) for logits in (right, wrong))
    assert good[0] < bad[0] and good[1] < bad[1]


def test_bf16_logits_are_compared_in_float32():
    logits = torch.randn(1, 1, 8, 8).bfloat16()
    target = torch.rand(1, 8, 8)
    assert all(loss.dtype == torch.float32 for loss in dense_losses(logits, target, None, ALL))
