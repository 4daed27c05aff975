from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.models.packing import pack, plan_rows, query_slots


def test_slots() -> None:
    assert query_slots(torch.tensor([0, 0, 1, 1, 1])).tolist() == [0, 1, 0, 1, 2]


def test_pack_by_image() -> None:
    values = torch.arange(1.0, 4.0)[:, None]
    packed, index = pack(values, torch.tensor([0, 2, 2]), 3)
    assert packed[..., 0].tolist() == [[1, 0], [0, 0], [2, 3]]
    assert torch.equal(packed[index], values)


def test_all_of_packed_rows_goes_to_the_device_of_the_values() -> None:
    """The meta device holds no numbers; an index left on the host would make a real one wait."""
    index = torch.tensor([0, 0, 1])
    packed, slots = pack(torch.zeros(3, 4, device="meta"), index, 2)
    assert packed.shape == (2, 2, 4)
    assert {tensor.device.type for tensor in (packed, *slots)} == {"meta"}
    rows = plan_rows([3, 3, 2], [("a", 1), ("b", 2), ("a", 1)], index, 2, 2)
    moved = vars(rows.to("meta"))
    assert moved.keys() == vars(rows).keys()
    for name, value in vars(rows).items():
        for own, there in zip(*((v if isinstance(v, tuple) else (v,)) for v in (value, moved[name])), strict=True):
            if isinstance(own, torch.Tensor):
                assert (there.device.type, there.shape) == ("meta", own.shape), name
            else:
                assert there == own, name


def test_a_tree_in_a_row() -> None:
    """Two questions of 3 tokens about the first image and one of 2 about the second, after a prompt of 2; the first and
    the last open alike, with one token."""
    rows = plan_rows([3, 3, 2], [("a", 1), ("b", 2), ("a", 1)], torch.tensor([0, 0, 1]), 2, 2)
    assert rows.segment.tolist() == [[0, 0, 1, 2, 2, 3, 3, 4], [0, 0, 1, 2, 2, 5, -1, -1]]
    assert rows.position.tolist() == [[0, 1, 2, 2, 3, 3, 4, 4], [0, 1, 2, 2, 3, 3, 2, 2]]
    assert rows.visible()[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 0, 0, 1],
    ]
    rest = plan_rows([3, 3, 2], [("a", 1), ("b", 2), ("a", 1)], torch.tensor([0, 0, 1]), 2, 2, {"b": 2})
    assert rest.start == 4  # the opening that is in the cache lies before the new one
    assert rest.openings == {"b": 2, "a": 1}
    assert rest.position[0, rest.start :].tolist() == [2, 3, 4, 4]


Asked = tuple[int, int, int]  # image, opening, tokens of its own


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=8),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.integers(0, 3),
    st.none() | st.sets(st.integers(0, 2)),
)
def test_each_token_sees_what_it_would_see_alone(
    asked: list[Asked], sizes: list[int], prompt: int, cached: set[int] | None
) -> None:
    """Whatever is shared or cached: each of a question's tokens sees the whole prompt, then its own, in order."""
    asked = sorted(asked)
    names = ["a", "b", "c"]
    openings = [(names[i], sizes[i]) for _, i, _ in asked]
    lengths = [sizes[i] + own for _, i, own in asked]
    known = None if cached is None else {names[i]: sizes[i] for i in sorted(cached)}
    rows = plan_rows(lengths, openings, torch.tensor([image for image, _, _ in asked]), 4, prompt, known)
    # What is read is known by its number: opening and place, or question and place.
    values = torch.tensor(
        [[(i if t < sizes[i] else 3 + q) * 100 + t for t in range(max(lengths))] for q, (_, i, _) in enumerate(asked)]
    )[..., None]
    read = rows.pack(values)
    start = max(prompt, rows.start)
    unread = torch.tensor([names.index(name) * 100 + t for name, size in (known or {}).items() for t in range(size)])
    row = torch.cat([unread.long().expand(4, -1)[..., None], read], 1)
    again = rows.unpack(row, (len(asked), max(lengths)))
    visible = rows.visible()
    assert visible.shape[1:] == (row.shape[1] + prompt - rows.start, row.shape[1] + prompt)
    for q, ((image, _, _), length) in enumerate(zip(asked, lengths, strict=True)):
        assert torch.equal(again[q, :length], values[q, :length])
        assert not again[q, length:].any()
        for t in range(length):
            column = int(rows.column[(rows.question == q) & (rows.token == t)])
            assert rows.position[image, column] == prompt + t
            if column < start:
                continue  # in the cache: not read again
            seen = visible[image, column - rows.start]
            assert seen[:prompt].all()
            assert row[image, seen[prompt:], 0].tolist() == values[q, : t + 1, 0].tolist()
    for image in range(4):  # the prompt itself, where it is read, sees no question
        if rows.start == 0:
            assert torch.equal(visible[image, :prompt, :prompt], torch.ones(prompt, prompt, dtype=torch.bool).tril())
            assert not visible[image, :prompt, prompt:].any()
