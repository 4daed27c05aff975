"""The loss on which regions are kept."""

from __future__ import annotations

import math

import pytest
import torch

from segearth.losses.choice import choice_loss
from segearth.model_types import Batch, Choice, EncodedText

# One row of cells: region 0 has three, region 1 has two, region 2 one; a cell between them belongs to the nearest.
CANDIDATES = torch.tensor([[[1.0, 1, 1, -1, 1, 1, -1, 1]]])
LABELS = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 2]]])


def batch_of(target: list[float], chooses: bool, known: bool = True) -> Batch:
    masks = torch.tensor([[target]])
    everything = (CANDIDATES > 0).float() if chooses else masks
    text = EncodedText(torch.zeros(1, 1).long(), [1], torch.zeros(1, 1).bool(), torch.zeros(1, 1).long(),
                       torch.zeros(0, 2).long())  # fmt: skip
    return Batch(torch.zeros(1, 3, 1, 8), text, torch.zeros(1).long(), masks, masks.flatten(1).any(1), None, ["q"],
                 candidates=everything * known)  # fmt: skip


def loss_of(
    keep: list[float], target: list[float], chooses: bool = True, regions: int = 3, known: bool = True,
    wholly: bool = True,
) -> float:  # fmt: skip
    choice = Choice(torch.tensor([keep]), LABELS, torch.tensor([[number < regions for number in range(3)]]))
    return choice_loss(choice, CANDIDATES, batch_of(target, chooses, known), torch.tensor([wholly])).item()


SECOND = [0.0, 0, 0, 0, 1, 1, 0, 0]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_right_and_wrong_regions_in_balance() -> None:
    expected = softplus(-2.0) + (softplus(1.0) + softplus(-4.0)) / 2
    assert loss_of([1.0, 2.0, -4.0], SECOND) == pytest.approx(expected, abs=1e-6)


def test_a_region_is_right_if_most_of_it_is_target() -> None:
    third = [1.0, 0, 0, 0, 0.6, 0.6, 0, 0]  # a third of region 0, three fifths of region 1
    assert loss_of([1.0, 2.0, -4.0], third) == loss_of([1.0, 2.0, -4.0], SECOND)


def test_regions_that_a_mask_has_not_do_not_count() -> None:
    assert loss_of([1.0, 2.0, 9.0], SECOND, regions=2) == pytest.approx(softplus(-2.0) + softplus(1.0), abs=1e-6)


def test_cells_between_regions_do_not_count() -> None:
    assert loss_of([1.0, 2.0, -4.0], [0.0, 0, 0, 0, 0.5, 0.5, 1, 0]) == 0  # just half of region 1 itself
    assert loss_of([1.0, 2.0, -4.0], [0.0, 0, 0, 1, 1, 1, 1, 0]) == loss_of([1.0, 2.0, -4.0], SECOND)


@pytest.mark.parametrize("target", [[0.0, 0, 0, 1, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, 0, 0, 0], [0.0] * 8])
def test_where_no_region_is_right_nothing_is_learned(target: list[float]) -> None:
    assert loss_of([1.0, 2.0, -4.0], target) == 0


def test_other_questions_keep_everything() -> None:
    expected = (softplus(-1.0) + softplus(-2.0) + softplus(4.0)) / 3
    assert loss_of([1.0, 2.0, -4.0], SECOND, chooses=False) == pytest.approx(expected, abs=1e-6)


def test_a_single_region_is_no_choice() -> None:
    assert loss_of([1.0, 2.0, -4.0], [1.0, 1, 1, 0, 0, 0, 0, 0], regions=1) == 0


def test_questions_that_choose_weigh_as_much_as_all_others_together() -> None:
    keep = torch.tensor([[1.0, 2.0, -4.0]]).expand(4, -1)
    one, other = batch_of(SECOND, True), batch_of(SECOND, False)
    batch = batch_of(SECOND, True)
    batch.masks = torch.cat([one.masks, *[other.masks] * 3])
    assert one.candidates is not None
    batch.candidates = torch.cat([one.candidates, *[other.masks] * 3])
    batch.present = batch.masks.flatten(1).any(1)
    choice = Choice(keep, LABELS.expand(4, -1, -1), torch.ones(4, 3).bool())
    together = choice_loss(choice, CANDIDATES.expand(4, -1, -1), batch, batch.present).item()
    assert together == pytest.approx(loss_of([1, 2, -4], SECOND) + loss_of([1, 2, -4], SECOND, chooses=False), abs=1e-6)


def test_no_question_gives_zero_and_a_gradient_of_zeros() -> None:
    keep = torch.zeros(1, 3, requires_grad=True)
    batch = batch_of([0.0] * 8, False)
    for candidates in (batch.candidates, None):
        keep.grad, batch.candidates = None, candidates
        loss = choice_loss(Choice(keep, LABELS, torch.zeros(1, 3).bool()), CANDIDATES, batch, batch.present)
        loss.backward()
        assert loss == 0 and keep.grad is not None and not keep.grad.any()


def test_nothing_is_learned_where_nobody_knows_what_was_chosen_from() -> None:
    assert loss_of([1.0, 2.0, -4.0], SECOND, chooses=False, known=False) == 0


def test_a_target_that_is_known_in_part_may_be_another_region() -> None:
    assert loss_of([1.0, 2.0, -4.0], SECOND, wholly=False) == 0
    assert loss_of([1.0, 2.0, -4.0], SECOND, chooses=False, wholly=False) > 0
