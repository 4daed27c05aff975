from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segearth.config import LossConfig
from segearth.errors import ConfigError
from segearth.losses.boxes import box_loss, boxes_around
from segearth.losses.criterion import LOSS_NAMES, Criterion, Losses, point_bce, point_dice, text_loss
from segearth.model_types import Batch, Choice, EncodedText, MaskOutput


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
    output = MaskOutput(torch.zeros(3, 4, 4), logits)
    losses = Criterion(LossConfig(num_points=4))(output, batch)
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


def test_each_question_is_weighed_by_its_own_images_padding() -> None:
    """Two images padded on opposite sides; logits are right on the image alone, so only the padding could cost."""
    torch.manual_seed(0)
    left = torch.zeros(32, 32, dtype=torch.bool)
    left[:, :16] = True
    valid = torch.stack([left, ~left])
    for index in (torch.tensor([0, 1, 1]), torch.tensor([1])):  # nobody asks about the first image
        masks = torch.ones(len(index), 32, 32)
        batch = replace(batch_of(masks, valid), image_index=index)
        shown = F.interpolate(valid[index, None].float(), (64, 64))[:, 0] > 0.5
        logits = torch.where(shown, 20.0, -20.0)
        bce, dice = Criterion(LossConfig(num_points=512)).mask_losses([logits], batch)
        assert bce < 2  # half a cell at each edge; 10 and more where padding is supervised
        swapped, _ = Criterion(LossConfig(num_points=512)).mask_losses([-logits], batch)
        assert swapped > 17
        assert dice < 0.1


def test_losses_are_summed_over_depths_and_averaged_over_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points in the middle of cells, so that every value is known."""
    cells = (torch.arange(4) + 0.5) / 4
    grid = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), -1).view(1, 16, 2)
    monkeypatch.setattr("segearth.losses.criterion.uncertain_points", lambda flat, *_: grid.repeat(len(flat), 1, 1))
    masks = torch.zeros(2, 4, 4)
    masks[0, :2] = 1.0
    masks[1, 0, 0] = 0.25  # a quarter of a cell
    first, last = torch.zeros(2, 4, 4), torch.full((2, 4, 4), -2.0)
    last[0, :2] = 3.0
    bce, dice = Criterion(LossConfig(num_points=16)).mask_losses([first, last], batch_of(masks))

    def cost(logit: float, target: float) -> float:
        return math.log1p(math.exp(-abs(logit))) + max(logit, 0) - logit * target

    log2 = math.log(2)
    right = (cost(3, 1) + cost(-2, 0)) / 2
    small = (cost(-2, 0.25) + 15 * cost(-2, 0)) / 16
    assert bce.item() == pytest.approx((log2 + right) / 2 + (log2 + small) / 2, rel=1e-5)

    def one_minus(overlap: float, both: float) -> float:
        return 1 - (2 * overlap + 1) / (both + 1)

    p3, p2 = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(2))
    expected = one_minus(4, 8 + 8) + one_minus(8 * p3, 8 * p3 + 8 * p2 + 8)
    expected += one_minus(0.125, 8 + 0.25) + one_minus(0.25 * p2, 16 * p2 + 0.25)
    assert dice.item() == pytest.approx(expected / 2, rel=1e-5)


def test_what_is_read_of_every_cell_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense losses: targets at the size of the logits, and only cells that are known as a whole."""
    given: list[tuple[object, ...]] = []

    def record(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        given.append(arguments)
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr("segearth.losses.criterion.dense_losses", record)
    masks = torch.zeros(2, 8, 16)
    masks[0, :2, :3] = 1.0
    batch = batch_of(masks)
    predictions = [torch.randn(2, 4, 8) for _ in range(3)]
    config = LossConfig(sampling="dense", small_targets=0.3)
    Criterion(config).mask_losses(predictions, batch)
    logits, targets, seen, counted, small = given.pop()
    assert torch.equal(logits, torch.stack(predictions, 1)) and seen is None and small == 0.3
    assert targets.shape == (2, 4, 8) and targets[0, 0].tolist() == [1.0, 0.5] + [0.0] * 6
    assert counted.tolist() == [True, True]
    batch.valid = torch.ones(1, 8, 16, dtype=torch.bool)
    batch.valid[:, :, 13:] = False  # half of a cell, and all of the next
    batch.known = torch.ones(2, 8, 16, dtype=torch.bool)
    batch.known[1, 0, 0] = False
    Criterion(replace(config, absent_masks=False)).mask_losses(predictions, batch)
    _, _, seen, counted, _ = given.pop()
    assert seen.dtype == torch.float32 and counted.tolist() == [True, False]  # the second is absent
    expected = torch.ones(2, 4, 8)
    expected[:, :, 6:] = 0
    expected[1, 0, 0] = 0
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("sampling", ["points", "dense"])
def test_where_a_target_is_not_known_nothing_is_learned(sampling: str) -> None:
    """Wrong outside what is known of each question, right inside; with padding and without."""
    torch.manual_seed(0)
    known = torch.zeros(2, 32, 32, dtype=torch.bool)
    known[0, :, :16], known[1, :16] = True, True
    batch = replace(batch_of(torch.ones(2, 32, 32)), known=known)
    criterion = Criterion(LossConfig(num_points=512, sampling=sampling))
    for valid in (None, torch.ones(1, 32, 32, dtype=torch.bool)):
        batch.valid = valid
        logits = torch.where(known, 20.0, -20.0).requires_grad_()
        bce, _ = criterion.mask_losses([logits], batch)
        assert bce < 1  # points at the edge of the frame, or of what is known, read a neighbour, too
        bce.backward()
        assert logits.grad is not None and not logits.grad[~known & ~_beside(known)].any()
        assert float(criterion.mask_losses([-logits.detach()], batch)[0]) > 15
        batch.known = torch.zeros_like(known)
        assert float(criterion.mask_losses([logits.detach()], batch)[0]) == 0
        batch.known = known
    batch.known, batch.valid = None, torch.zeros(1, 32, 32, dtype=torch.bool)
    assert float(criterion.mask_losses([logits.detach()], batch)[0]) == 0


def _beside(known: torch.Tensor) -> torch.Tensor:
    """Cells that touch a known one: a point between two cells reads both."""
    return F.max_pool2d(known[:, None].float(), 3, 1, 1)[:, 0] > 0


def test_the_mask_of_what_is_absent_can_be_left_to_presence() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(2, 32, 32)
    masks[0] = 1.0
    logits = torch.full((2, 32, 32), 20.0)  # right of the first, wrong of the absent one
    for sampling in ("points", "dense"):
        config = LossConfig(num_points=512, sampling=sampling)
        assert float(Criterion(config).mask_losses([logits], batch_of(masks))[0]) > 8
        assert float(Criterion(replace(config, absent_masks=False)).mask_losses([logits], batch_of(masks))[0]) < 2
    with pytest.raises(ConfigError, match=r"loss\.sampling is 'point'; use points or dense"):
        Criterion(LossConfig(sampling="point"))


def test_weighted_points_are_averaged_along_the_last_axis() -> None:
    logits = torch.tensor([[[0.0, 30.0], [0.0, 0.0], [-30.0, 0.0]]] * 2)  # (2, 3, 2)
    target, weight = torch.ones(2, 3, 2), torch.ones(2, 3, 2)
    weight[:, :, 1] = torch.tensor([0.0, 1.0, 0.0])
    found = point_bce(logits, target, weight)
    assert found.shape == (2, 3)
    assert found[1].tolist() == pytest.approx([math.log(2), math.log(2), 30.0])


def test_points_are_drawn_as_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def points(flat: torch.Tensor, *how: object) -> torch.Tensor:
        asked.append((tuple(flat.shape), *how))
        return torch.rand(len(flat), 6, 2)

    monkeypatch.setattr("segearth.losses.criterion.uncertain_points", points)
    config = LossConfig(num_points=6, oversample_ratio=2.5, importance_ratio=0.5)
    Criterion(config).mask_losses([torch.zeros(2, 4, 8)] * 3, batch_of(torch.zeros(2, 4, 8)))
    assert asked == [((6, 4, 8), 6, 2.5, 0.5)]


def test_the_total_is_weighted() -> None:
    torch.manual_seed(0)
    config = LossConfig(bce=2.0, dice=3.0, presence=5.0, text=7.0, boxes=11.0, num_points=16)
    batch = batch_of((torch.rand(2, 8, 8) > 0.5).float())
    labels = torch.tensor([[-100, 2, -100], [-100, -100, -100]])
    batch.text = labelled(labels)
    output = MaskOutput(torch.randn(2, 4, 4), torch.randn(2), [torch.randn(2, 4, 4)], boxes=torch.randn(2, 2, 6))
    output.token_logits = torch.randn(1, 4)

    def losses(config: LossConfig, output: MaskOutput = output) -> Losses:
        torch.manual_seed(1)
        return Criterion(config)(output, batch)

    found = losses(config)
    parts = [found.bce, found.dice, found.presence, found.text, found.boxes]
    assert all(part > 0 for part in parts)
    expected = sum(weight * part for weight, part in zip((2, 3, 5, 7, 11), parts, strict=True))
    assert found.total.item() == pytest.approx(float(expected), rel=1e-6)
    torch.manual_seed(1)
    bce, dice = Criterion(config).mask_losses([*output.auxiliary, output.mask_logits], batch)
    assert (found.bce, found.dice) == (bce, dice)
    assert found.text == text_loss(output.token_logits, batch.text)
    for silent in (losses(replace(config, text=0.0)), losses(config, replace(output, token_logits=None))):
        assert silent.text == 0
        assert silent.total.item() == pytest.approx(float(expected - 7 * found.text), rel=1e-6)
    assert losses(replace(config, boxes=0.0)).boxes == 0
    batch.known = torch.ones(2, 8, 8, dtype=torch.bool)
    batch.known[1, 0, 0] = False  # how far the second target reaches nobody knows
    assert output.boxes is not None
    first = box_loss(output.boxes[:1], batch.masks[:1], torch.tensor([True]))
    assert losses(config).boxes.item() == pytest.approx(first.item())
    batch.known = None
    batch.placeholder = True
    nothing = losses(config)
    assert [nothing.total, nothing.bce, nothing.dice, nothing.presence, nothing.text, nothing.boxes] == [0.0] * 6


def test_half_precision_is_not_summed_in_half_precision() -> None:
    batch = batch_of(torch.ones(1, 4, 4))
    batch.text = labelled(torch.tensor([[-100, 2, 1]]))
    output = MaskOutput(torch.randn(1, 4, 4).bfloat16(), torch.randn(1).bfloat16())
    output.token_logits = torch.randn(2, 4).bfloat16()
    losses = Criterion(LossConfig(num_points=4))(output, batch)
    assert {getattr(losses, name).dtype for name in ("total", "bce", "dice", "presence", "text")} == {torch.float32}


def labelled(labels: torch.Tensor) -> EncodedText:
    nothing = torch.zeros_like(labels)
    return EncodedText(nothing, [labels.shape[1]] * len(labels), nothing.bool(), labels, (labels != -100).nonzero())


def test_text_loss_is_the_mean_over_labelled_tokens() -> None:
    logits = torch.zeros(2, 4)
    logits[0, 2] = 50.0  # the first labelled token is known to be 2, the second is undecided among four
    assert text_loss(logits[:1], labelled(torch.tensor([[-100, 2, -100]]))).item() == pytest.approx(0.0, abs=1e-5)
    assert text_loss(logits, labelled(torch.tensor([[-100, 2, 1]]))).item() == pytest.approx(math.log(4) / 2)


def test_text_loss_without_labels_is_zero_and_keeps_its_graph() -> None:
    """Under ZeRO a process whose output head has no gradient to give keeps the others waiting."""
    logits = torch.randn(1, 4, requires_grad=True)
    loss = text_loss(logits, labelled(torch.full((1, 3), -100)))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


class TestChoice:
    """What comes before the choice is compared with all candidates, what comes after it with the target."""

    target = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    everything = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    config = LossConfig(sampling="dense", boxes=1.0, choice=1.0)

    def losses(self, before: torch.Tensor, after: torch.Tensor, boxes: torch.Tensor, chooses: bool = True) -> Losses:
        def logits(mask: torch.Tensor) -> torch.Tensor:
            return mask * 40 - 20

        batch = replace(batch_of(self.target), candidates=self.everything * chooses)
        choice = Choice(torch.tensor([[9.0, -9.0]]), torch.tensor([[[0, 0], [1, 1]]]), torch.ones(1, 2).bool())
        output = MaskOutput(logits(after), torch.tensor([9.0]), [logits(before)] * 2, boxes=boxes)
        output.candidate_logits, output.choice = logits(before), choice
        return Criterion(self.config)(output, batch)

    def test_a_perfect_answer_costs_nothing(self) -> None:
        box = boxes_around(self.everything)[:, None].expand(-1, 3, -1)
        losses = self.losses(self.everything, self.target, box)
        assert losses.bce < 1e-6 and losses.dice < 1e-3 and losses.choice < 1e-3 and losses.boxes < 1e-6

    @pytest.mark.parametrize(("before", "after"), [("target", "target"), ("everything", "everything")])
    def test_each_side_of_the_choice_counts(self, before: str, after: str) -> None:
        box = boxes_around(self.everything)[:, None].expand(-1, 3, -1)
        losses = self.losses(getattr(self, before), getattr(self, after), box)
        wrong = 3 if before == "target" else 1  # two predictions and the candidates, or the final one
        assert losses.bce.item() == pytest.approx(wrong * 20 / 4, rel=1e-3)

    def test_boxes_hold_all_candidates(self) -> None:
        box = boxes_around(self.target)[:, None].expand(-1, 3, -1)
        assert self.losses(self.everything, self.target, box).boxes > 0.1

    def test_without_candidates_both_are_the_target(self) -> None:
        box = boxes_around(self.target)[:, None].expand(-1, 3, -1)
        losses = self.losses(self.target, self.target, box, chooses=False)
        assert losses.bce < 1e-6 and losses.boxes < 1e-6


def test_each_loss_has_a_weight_of_its_name() -> None:
    weights = vars(LossConfig())
    assert LOSS_NAMES == ("bce", "dice", "presence", "text", "classes", "boxes", "choice")
    assert all(isinstance(weights[name], float) for name in LOSS_NAMES)
