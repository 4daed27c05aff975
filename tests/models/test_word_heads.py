"""Boxes outside of which masks end."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.models.mask_decoder import MaskDecoder
from segearth.models.word_heads import WORD_DIM, BagOfWords, BoxGate, gate

LEFT_HALF = [-2.0, -2.0, 0.0, 2.0, 100.0, 100.0]
LOWER_RIGHT = [0.0, 0.0, 2.0, 2.0, 100.0, 100.0]


@pytest.mark.parametrize(
    ("box", "shown"),
    [
        (LEFT_HALF, [[1, 1, 0, 0], [1, 1, 0, 0]]),
        (LOWER_RIGHT, [[0, 0, 0, 0], [0, 0, 1, 1]]),
        ([-0.5, -2.0, 0.5, 2.0, 100.0, 100.0], [[0, 1, 1, 0], [0, 1, 1, 0]]),
    ],
)
def test_a_mask_ends_at_its_box(box: list[float], shown: list[list[int]]) -> None:
    logits = torch.full((2, 4), 3.0)
    logits[1, 2] = -1.0  # what is not named is not shown, box or not
    expected = torch.tensor(shown, dtype=torch.bool)
    expected[1, 2] = False
    assert torch.equal(gate(logits, torch.tensor(box)) > 0, expected)


def test_by_hand() -> None:
    """One cell in the middle of the image: its evidence is 1, 2 from either side and 3 from above and below."""
    found = gate(torch.ones(1, 1), torch.tensor([-1.0, -1.0, 1.0, 1.0, 2.0, 3.0]))
    assert found.item() == pytest.approx(-math.log(math.exp(-1) + 2 * math.exp(-2) + 2 * math.exp(-3)), abs=1e-6)


@given(
    st.floats(-20, 20), st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.floats(1, 50), st.floats(1, 50)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_least_evidence_decides(logit: float, edges: list[float], across: float, down: float) -> None:
    left, top, right, bottom = edges
    box = torch.tensor([*edges, across, down], dtype=torch.float64)
    found = gate(torch.full((3, 5), logit, dtype=torch.float64), box)
    for row in range(3):
        for column in range(5):
            x, y = (column + 0.5) / 5 * 2 - 1, (row + 0.5) / 3 * 2 - 1
            least = min(logit, across * (x - left), across * (right - x), down * (y - top), down * (bottom - y))
            assert least - math.log(5) - 1e-4 <= found[row, column] <= least + 1e-4


def test_a_new_box_is_the_whole_image_and_learns() -> None:
    torch.manual_seed(0)
    boxes = BoxGate(8)
    query, words = torch.randn(3, 8), torch.randn(3, WORD_DIM)
    logits = torch.randn(3, 6, 6)
    found = gate(logits, boxes(query, words))
    assert 0 < (found - logits).abs().max() < 0.3
    found[:, :, 4:].sum().backward()  # evidence of the cells on the right
    moved = boxes.mlp[-1].bias.grad
    assert moved[2] > moved[0].abs() > 0  # of the four edges the right one first


@torch.no_grad()
def test_the_decoder_asks_the_box_for_every_mask_and_for_where_to_look() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(dim=8, num_layers=3, num_heads=2, ffn_dim=8, box_gate=BoxGate(8)).eval()
    assert decoder.box_gate is not None
    features, levels = torch.randn(1, 8, 16, 8), [torch.randn(1, 8, 16 // step, 8 // step) for step in (8, 4, 2)]
    image, query, index = decoder.prepare_image(features, levels), torch.randn(2, 8), torch.tensor([0, 0])
    words = torch.randn(2, WORD_DIM)
    plain = decoder(query, index, image, auxiliary=True, words=words)
    last = decoder.box_gate.mlp[-1]
    last.bias.copy_(torch.tensor([0.0, 0.0, -1.5, 0.0, 3.0, 3.0]))  # the left half, sharply
    found = decoder(query, index, image, auxiliary=True, words=words)
    for before, after in zip([*plain.auxiliary, plain.mask_logits], [*found.auxiliary, found.mask_logits], strict=True):
        assert (after[..., 4:] < 0).all() and (before[..., 4:] > 0).any()
    first = decoder._visible(decoder._predict(query[None], words[None]), image, 2).view(2, 8, 4)
    assert not first[..., 2:].any() and first.any()
    assert not torch.equal(plain.presence_logits, found.presence_logits)  # it has looked elsewhere
    assert plain.boxes is not None and plain.boxes.shape == (2, 4, 6)  # of each prediction


def test_words_alone_can_draw_a_box() -> None:
    """Of a description, not of the prompt around it; and each question is given its own."""
    torch.manual_seed(0)
    bag, boxes = BagOfWords(5), BoxGate(8)
    torch.nn.init.normal_(boxes.mlp[-1].weight)
    tokens, asked = torch.tensor([[4, 1, 2], [4, 3, 2]]), torch.tensor([[False, True, True]] * 2)
    words = bag.add_up(tokens, asked)
    assert torch.allclose(words, bag.weight[[1, 3]] + bag.weight[2], atol=1e-6)
    query = torch.zeros(2, 8)
    left, right = boxes(query, words)
    assert (left - right).abs().max() > 0.05
