"""Which images come when: every epoch whole and in its own order, ranks apart, any step without those before it."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.data.feed.sampling import Frame, StepSampler

SQUARE, WIDE, TALL = (64, 64), (32, 64), (64, 32)


def drawn(
    frames: list[Frame], steps: tuple[int, int], passes: int = 1, micro: int = 2, rank: int = 0, world: int = 1,
    seed: int = 0,
) -> list[list[tuple[int, int]]]:  # fmt: skip
    sampler = StepSampler(frames, passes * micro, micro, *steps, rank, world, seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


def test_every_epoch_is_whole_and_has_an_order_of_its_own() -> None:
    keys = list(chain(*drawn([SQUARE] * 7, (0, 14))))
    epochs = [[i for epoch, i in keys if epoch == e] for e in range(4)]
    assert [epoch for epoch, _ in keys] == [e for e in range(4) for _ in range(7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert keys != list(chain(*drawn([SQUARE] * 7, (0, 14), seed=1)))


def test_images_meet_their_like_and_all_are_seen_equally_often() -> None:
    frames = [SQUARE, WIDE, SQUARE, TALL, SQUARE, WIDE]
    batches = drawn(frames, (0, 6), micro=3)
    assert all(len({frames[i] for _, i in batch}) == 1 for batch in batches)
    assert Counter(i for _, i in chain(*batches)) == dict.fromkeys(range(6), 3)
    # Each stream is due halfway through its share of the time; no stream is seen to its end before another begins.
    assert [frames[batch[0][1]] for batch in batches] == [SQUARE, WIDE, TALL, SQUARE, WIDE, SQUARE]
    again = drawn(frames, (0, 12), micro=3)[6:]
    assert [frames[batch[0][1]] for batch in again] == [frames[batch[0][1]] for batch in batches]
    assert Counter(key for batch in (*batches, *again) for key in batch).most_common(1)[0][1] == 1  # no view twice


def test_a_rare_frame_repeats_its_images_in_other_views() -> None:
    frames = [SQUARE] * 9 + [TALL]
    (alone,) = [batch for batch in drawn(frames, (0, 10), micro=4) if batch[0][1] == 9]
    assert alone == [(0, 9), (1, 9), (2, 9), (3, 9)]


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.sampled_from([SQUARE, WIDE, TALL, (64, 96)]), min_size=1, max_size=12),
    micro=st.integers(1, 4),
    world=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    first=st.integers(0, 30),
    seed=st.integers(0, 3),
)
def test_a_run_can_go_on_anywhere_and_processes_share_each_step(
    frames: list[Frame], micro: int, world: int, accumulation: int, first: int, seed: int
) -> None:
    passes, end = world * accumulation, first + 2
    whole = drawn(frames, (0, end), passes, micro, seed=seed)
    ranks = [drawn(frames, (first, end), passes, micro, rank, world, seed) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {2 * accumulation}  # nobody waits for a step that others lack
    for step in range(2):
        mine = [batches[step * accumulation : (step + 1) * accumulation] for batches in ranks]
        expected = whole[(first + step) * passes : (first + step + 1) * passes]
        assert sorted(map(tuple, chain(*mine))) == sorted(map(tuple, expected))  # apart, and together all
    keys = list(chain(*whole))
    assert len(set(keys)) == len(keys)  # no two processes and no two steps see the same view
    for i in range(len(frames)):  # epoch after epoch, none left out
        epochs = [epoch for epoch, image in keys if image == i]
        assert sorted(epochs) == list(range(len(epochs)))


def test_processes_run_equal_frames_side_by_side() -> None:
    frames = [SQUARE, WIDE] * 4
    ranks = [drawn(frames, (0, 4), passes=4, micro=1, rank=rank, world=2) for rank in range(2)]
    for one, two in zip(*ranks, strict=True):
        assert frames[one[0][1]] == frames[two[0][1]]
        assert one != two


@pytest.mark.parametrize("count", [1, 5])
def test_a_stream_keeps_its_order_whatever_else_is_there(count: int) -> None:
    alone = [key for batch in drawn([SQUARE] * 5, (0, 5), micro=1) for key in batch]
    mixed = [key for batch in drawn([SQUARE] * 5 + [WIDE] * count, (0, 5 + count), micro=1) for key in batch]
    assert [key for key in mixed if key[1] < 5] == alone


def test_streams_of_equal_size_take_turns_and_have_orders_of_their_own() -> None:
    """Enough of them that a sort which is not stable would deal turns otherwise on another machine."""
    frames = [SQUARE, WIDE, TALL] * 40
    keys = [batch[0] for batch in drawn(frames, (0, 120), micro=1)]
    assert [frames[i] for _, i in keys] == [WIDE, TALL, SQUARE] * 40
    orders = {frame: tuple(i // 3 for _, i in keys if frames[i] == frame) for frame in (SQUARE, WIDE, TALL)}
    assert len(set(orders.values())) == 3
