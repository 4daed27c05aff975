from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.models.packing import pack, query_slots, token_layout


def test_slots() -> None:
    assert query_slots(torch.tensor([0, 0, 1, 1, 1])).tolist() == [0, 1, 0, 1, 2]


def test_pack_by_image() -> None:
    values = torch.arange(1.0, 4.0)[:, None]
    packed, place = pack(values, torch.tensor([0, 2, 2]), 3)
    assert packed[..., 0].tolist() == [[1, 0], [0, 0], [2, 3]]
    assert torch.equal(packed[place], values)


def test_two_questions_in_a_row() -> None:
    """Questions of 2 and 1 tokens about the first image, of 2 about the second, after a prompt of 1."""
    layout = token_layout([2, 1, 2], torch.tensor([0, 0, 1]), 2)
    assert layout.segment.tolist() == [[0, 0, 1], [2, 2, -1]]
    assert layout.offset.tolist() == [[0, 1, 0], [0, 1, 0]]
    first = layout.visible(1)[0].int().tolist()
    assert first == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=4).filter(any), st.integers(0, 3))
def test_packing_is_undone_and_keeps_questions_apart(images: list[list[int]], prompt: int) -> None:
    lengths = [n for image in images for n in image]
    index = torch.tensor([i for i, image in enumerate(images) for _ in image])
    layout = token_layout(lengths, index, len(images))
    values = torch.randn(len(lengths), max(lengths), 2)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    again = layout.unpack(layout.pack(values), (len(lengths), max(lengths)))
    assert torch.equal(again[real], values[real])
    assert not again[~real].any()
    visible = layout.visible(prompt)
    assert visible[..., :prompt].all()
    own = visible[..., prompt:]
    together = layout.segment[:, :, None] == layout.segment[:, None]
    assert not (own & ~together).any()
    assert torch.equal(own.sum(-1)[layout.segment >= 0], (layout.offset + 1)[layout.segment >= 0])
