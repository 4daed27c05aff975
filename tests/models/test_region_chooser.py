"""Choosing among the regions of a mask."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ConfigError
from segearth.models.build import build_model
from segearth.models.region_chooser import FACTS, RANKS, START, RegionChooser, find_regions
from segearth.models.word_heads import WORD_DIM
from segearth.zoo.lookup import model_config

THREE = """
    aa......
    aa...bb.
    aa......
    ........
    .......c
"""


def drawn(text: str, high: float = 3.0, low: float = -3.0) -> torch.Tensor:
    """Returns logits ``(1, h, w)``: high at letters, low at dots."""
    rows = [line.strip() for line in text.split()]
    return torch.tensor([[[low if letter == "." else high for letter in row] for row in rows]])


def choosing(**facts: float) -> RegionChooser:
    """Returns a chooser that weighs facts by their number, whatever the words."""
    chooser = RegionChooser()
    last = chooser.mlp[-1]
    with torch.no_grad():
        last.bias[-1] = -START - 1
        for name, weight in facts.items():
            last.bias[int(name.strip("_"))] = weight
    return chooser


WORDS = torch.zeros(1, WORD_DIM)


def test_regions_are_numbered_by_size() -> None:
    regions = find_regions(drawn(THREE))
    assert regions.real.tolist() == [[True] * 3]
    labels = regions.labels[0]
    assert labels[0, 0] == 0 and labels[1, 5] == 1 and labels[4, 7] == 2
    assert labels[0, 2] == 0 and labels[0, 7] == 1 and labels[4, 6] == 2  # between regions: the nearest one


def test_facts() -> None:
    facts = find_regions(drawn(THREE)).facts[0]
    assert facts[:, :RANKS].tolist() == torch.eye(3).tolist()
    assert facts[:, RANKS].tolist() == [0, 0, 1]  # the last by size
    share, beside, logit, across, down, edge, alone = facts[:, RANKS + 1 :].unbind(1)
    torch.testing.assert_close(share, torch.tensor([math.log(n / 40) / 5 + 1 for n in (6, 2, 1)]))
    torch.testing.assert_close(beside, torch.tensor([math.log(n / 6) / 2 for n in (6, 2, 1)]))
    torch.testing.assert_close(logit, torch.full((3,), 0.6))
    torch.testing.assert_close(across, torch.tensor([2 / 8 - 1, 12 / 8 - 1, 15 / 8 - 1]))
    torch.testing.assert_close(down, torch.tensor([3 / 5 - 1, 3 / 5 - 1, 9 / 5 - 1]))
    assert edge.tolist() == [1, 0, 1]
    torch.testing.assert_close(alone, torch.full((3,), 1 / 3))


def test_a_logit_of_zero_is_outside() -> None:
    assert find_regions(drawn(THREE, low=0.0)).real.sum() == 3


def test_a_speck_is_not_the_smallest_thing() -> None:
    logits = -torch.ones(1, 20, 20)
    logits[0, :10, :10], logits[0, 15:, 15:], logits[0, 0, 19] = 1, 1, 1
    assert find_regions(logits).facts[0, :, RANKS].tolist() == [0, 1, 0]


def test_masks_of_a_batch_have_their_own_regions() -> None:
    both = torch.cat([drawn(THREE), -torch.ones(1, 5, 8), torch.ones(1, 5, 8)])
    regions = find_regions(both)
    assert regions.real.sum(1).tolist() == [3, 0, 1]
    assert regions.facts.shape == (3, 3, FACTS) and not regions.facts[1].any()
    torch.testing.assert_close(regions.facts[0], find_regions(both[:1]).facts[0])
    assert find_regions(both[:0]).labels.shape == (0, 5, 8)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_regions_are_the_connected_components(seed: int, share: float) -> None:
    positive = np.random.default_rng(seed).random((13, 17)) < share
    regions = find_regions(torch.from_numpy(np.where(positive, 1.0, -1.0))[None])
    labels, real = regions.labels[0].numpy(), int(regions.real.sum())
    count, expected = cv2.connectedComponents(positive.astype(np.uint8), connectivity=8)
    assert real == count - 1
    pairs = set(zip(labels[positive].tolist(), expected[positive].tolist(), strict=True))
    assert len(pairs) == real  # one to one
    areas = np.bincount(labels[positive], minlength=real)
    assert (np.diff(areas) <= 0).all()
    assert labels.max(initial=0) < max(real, 1)


def test_a_new_chooser_keeps_everything() -> None:
    logits = drawn(THREE)
    chosen, choice = RegionChooser()(logits, torch.randn(1, WORD_DIM))
    torch.testing.assert_close(chosen, logits)
    assert choice.keep.tolist() == [[START] * 3]


def test_the_second_largest_alone() -> None:
    chosen, choice = choosing(_1=9)(drawn(THREE), WORDS)
    assert choice.keep.tolist() == [[-1, 8, -1]]
    assert (chosen > 0).nonzero().tolist() == [[0, 1, 5], [0, 1, 6]]
    assert (chosen <= drawn(THREE)).all()


@pytest.mark.parametrize("high", [3.0, 0.01])
def test_where_no_region_is_asked_for_the_likeliest_stays_as_it_is(high: float) -> None:
    logits = drawn(THREE, high)
    chosen, choice = choosing(_1=0.5)(logits, WORDS)
    assert choice.keep.tolist() == [[-1, -0.5, -1]]
    assert ((chosen > 0) == (find_regions(logits).labels == 1) & (logits > 0)).all()
    torch.testing.assert_close(chosen[0, 1, 5:7], torch.full((2,), high))


def test_what_is_left_out_is_left_out_surely() -> None:
    """Faint probabilities of a large region would add up to more than a small one that is kept."""
    chosen, _ = choosing(_1=9)(drawn(THREE), WORDS)  # the others have a sum of -1
    assert (chosen[0, :, :2] < -3).all()


def test_a_letterboxed_model_does_not_choose() -> None:
    with pytest.raises(ConfigError, match="fit to resize"):
        build_model(model_config({"name": "segearth_debug", "region_chooser": True,
                                  "image_transform": {"fit": "letterbox"}}))  # fmt: skip


def test_words_decide() -> None:
    chooser = choosing()
    with torch.no_grad():
        chooser.mlp[-1].weight.normal_()
    words = torch.randn(2, WORD_DIM)
    both = drawn(THREE).expand(2, -1, -1)
    keep = chooser(both, words)[1].keep
    assert not torch.allclose(keep[0], keep[1])
    torch.testing.assert_close(chooser(both.flip(0), words.flip(0))[1].keep, keep.flip(0))


def test_a_single_region_stays() -> None:
    logits = drawn("aa..\naa..")
    chosen, _ = choosing()(logits, WORDS)
    assert torch.equal(chosen, logits)


def test_gradients_reach_words_and_logits_but_not_the_regions() -> None:
    chooser, words = choosing(_1=9), WORDS.clone().requires_grad_()
    with torch.no_grad():
        chooser.mlp[-1].weight.normal_()
    logits = drawn(THREE).requires_grad_()
    chosen, _ = chooser(logits, words)
    chosen.sum().backward()
    assert words.grad is not None and words.grad.abs().sum() > 0
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad >= 0).all() and (logits.grad <= 1).all()  # of a soft minimum, whatever the regions


def test_half_precision() -> None:
    chosen, _ = choosing(_1=9).bfloat16()(drawn(THREE).bfloat16(), WORDS.bfloat16())
    assert chosen.dtype == torch.bfloat16
    assert (chosen > 0).sum() == 2
