from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.config import LossConfig
from segearth.losses.criterion import Criterion, point_bce, point_dice, text_loss
from segearth.structures import Batch, EncodedText, MaskOutput, QueryEmbeddings


def batch_of(masks: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    nothing = torch.zeros(len(masks), 1, dtype=torch.long)
    text = EncodedText(nothing, [1] * len(masks), nothing.bool(), nothing - 100, torch.zeros(0, 2, dtype=torch.long))
    index = torch.zeros(len(masks), dtype=torch.long)
    return Batch(torch.zeros(1, 3, 4, 4), text, index, masks, masks.flatten(1).any(1), valid, [])


def test_bce_by_hand() -> None:
    # Logit 0 costs log 2 whatever the target; a sure and right logit costs nearly nothing.
    logits = torch.tensor([[0.0, 0.0, 30.0, -30.0]])
    target = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert point_bce(logits, target).item() == pytest.approx(math.log(2) / 2)
    weight = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert point_bce(logits, target, weight).item() == pytest.approx(math.log(2))


def test_dice_by_hand() -> None:
    # p = 1/2 at four points, two of them target: 1 - (2 * 1 + 1) / (2 + 2 + 1) = 0.4
    assert point_dice(torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 0.0, 0.0]])).item() == pytest.approx(0.4)
    # An empty target and an empty prediction agree.
    assert point_dice(torch.full((1, 4), -50.0), torch.zeros(1, 4)).item() == pytest.approx(0.0)


@given(st.lists(st.tuples(st.floats(-20, 20), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30))
def test_dice_lies_between_zero_and_one(points: list[tuple[float, float]]) -> None:
    logits, target = (torch.tensor([column]) for column in zip(*points, strict=True))
    assert 0 <= point_dice(logits, target).item() <= 1


def test_empty_targets_give_finite_gradients() -> None:
    logits = torch.randn(2, 8, 8, requires_grad=True)
    bce, dice = Criterion(LossConfig(num_points=16)).mask_losses([logits, logits], batch_of(torch.zeros(2, 32, 32)))
    (bce + dice).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_presence_is_a_fact_of_the_annotation() -> None:
    """Targets too small for their frame: there is a ship, though its mask is all background by now."""
    logits = torch.tensor([2.0, -3.0, 0.5])
    batch = batch_of(torch.zeros(3, 8, 8))
    batch.present = torch.tensor([True, False, True])
    queries = QueryEmbeddings(torch.zeros(3, 4), batch.image_index)
    output = MaskOutput(torch.zeros(3, 4, 4), logits)
    losses = Criterion(LossConfig(num_points=4))(output, queries, batch, Head())  # type: ignore[arg-type]
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)) + math.log1p(math.exp(-0.5))) / 3
    assert losses.presence.item() == pytest.approx(by_hand, rel=1e-5)


def test_padding_is_not_supervised() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(1, 32, 32)
    masks[:, :, :16] = 1
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    valid[:, :, :14] = True
    logits = torch.full((1, 8, 8), 20.0)  # right on the image, wrong on the padding
    criterion = Criterion(LossConfig(num_points=256))
    # Half a pixel at the frame's edge reads as half a target, hence not zero.
    assert float(criterion.mask_losses([logits], batch_of(masks, valid))[0]) < 2
    assert float(criterion.mask_losses([logits], batch_of(masks))[0]) > 4


class Head:
    """A language model whose logits are its hidden states."""

    def token_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def labelled(labels: torch.Tensor) -> EncodedText:
    nothing = torch.zeros_like(labels)
    return EncodedText(nothing, [labels.shape[1]] * len(labels), nothing.bool(), labels, (labels != -100).nonzero())


def test_text_loss_predicts_the_next_token() -> None:
    hidden = torch.zeros(1, 3, 4)
    hidden[0, 0, 2] = 50.0  # position 0 says token 2 comes next
    labels = torch.tensor([[-100, 2, -100]])
    assert text_loss(hidden, labelled(labels), Head()).item() == pytest.approx(0.0, abs=1e-5)  # type: ignore[arg-type]
    labels = torch.tensor([[-100, 2, 1]])  # position 1 is undecided among four
    assert text_loss(hidden, labelled(labels), Head()).item() == pytest.approx(math.log(4) / 2)  # type: ignore[arg-type]
    assert text_loss(hidden, labelled(torch.full((1, 3), -100)), Head()).item() == 0.0  # type: ignore[arg-type]
