from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.evaluation import batches as module
from segearth.evaluation.batches import in_batches
from segearth.structures import Question, Sample
from segearth.utils.threads import one_ahead


def sample(name, height=8, width=8, masks=0):
    questions = [Question("roofs", np.zeros((height, width), bool)) for _ in range(masks)]
    return Sample(str(name), np.zeros((height, width, 3), np.uint8), [*questions, Question("no mask")])


def own_size(height, width):
    return height, width


def names(batches):
    return [[s.image_id for s in batch] for batch in batches]


def test_a_batch_holds_images_of_one_frame_and_goes_out_when_it_is_full():
    sizes = {"a": (8, 8), "b": (8, 16), "c": (8, 8), "d": (16, 8), "e": (8, 16), "f": (8, 8)}
    samples = [sample(name, *size) for name, size in sizes.items()]
    assert names(in_batches(samples, own_size, 2)) == [["a", "c"], ["b", "e"], ["d"], ["f"]]
    assert names(in_batches(samples, lambda height, width: (1, 1), 4)) == [["a", "b", "c", "d"], ["e", "f"]]
    assert names(in_batches(samples, own_size, 1)) == [[name] for name in sizes]
    assert names(in_batches([], own_size, 3)) == []


@given(st.lists(st.integers(1, 4), max_size=40), st.integers(1, 6))
def test_every_image_is_in_one_batch_with_others_of_its_frame(widths, size):
    samples = [sample(i, 1, width) for i, width in enumerate(widths)]
    made = list(in_batches(samples, own_size, size))
    assert sorted(int(s.image_id) for batch in made for s in batch) == list(range(len(widths)))
    assert all(len({s.image.shape for s in batch}) == 1 and len(batch) <= size for batch in made)
    assert len(made) <= len(widths) / size + 4  # at most one batch of each frame is short


def test_no_image_is_read_before_it_is_needed():
    read = []
    made = in_batches((read.append(i) or sample(i) for i in range(9)), own_size, 3)
    assert len(next(made)) == 3
    assert read == [0, 1, 2]


def test_what_waits_is_bounded(monkeypatch):
    """An 8 x 8 image with two targets is 3 * 64 + 2 * 64 bytes: three of them may wait, four may not. The frame that
    holds most goes out first, and what is left waits on."""
    monkeypatch.setattr(module, "WAITING_BYTES", 3 * 320)
    samples = [sample(i, 8, 8, masks=2) for i in range(4)]
    others = [sample("wide", 8, 16, masks=2), sample("huge", 80, 80), sample("last", 8, 16)]
    made = names(in_batches(samples + others, own_size, 9))
    assert made == [["0", "1", "2", "3"], ["huge"], ["wide", "last"]]


def test_of_no_items_none_is_made():
    assert list(one_ahead([])) == []


def test_the_next_item_is_made_while_one_is_in_use():
    made, threads = [], set()

    def items():
        for i in range(4):
            threads.add(threading.current_thread())
            made.append(i)
            second.set() if i == 1 else None
            yield i

    second = threading.Event()
    source = one_ahead(items())
    assert next(source) == 0
    assert second.wait(timeout=10)  # made without being asked for
    assert list(source) == [1, 2, 3]
    assert made == [0, 1, 2, 3]
    assert threading.current_thread() not in threads


def test_no_more_than_one_is_made_ahead():
    made = []
    source = one_ahead(made.append(i) or [i] for i in range(9))
    next(source)
    source.close()  # waits for what is being made
    assert made == [0, 1]


def test_an_error_of_the_maker_reaches_the_user():
    def items():
        yield [1]
        raise ValueError("damaged")

    source = one_ahead(items())
    assert next(source) == [1]
    with pytest.raises(ValueError, match="damaged"):
        next(source)


def test_the_earlier_image_of_a_pair_counts_among_what_waits(monkeypatch):
    monkeypatch.setattr(module, "WAITING_BYTES", 3 * 192)  # three images of 8 x 8
    samples = [sample(name) for name in "abcd"]
    assert names(in_batches(samples, own_size, 8)) == [["a", "b", "c", "d"]]
    samples[0].before = samples[0].image
    assert names(in_batches(samples, own_size, 8)) == [["a", "b", "c"], ["d"]]
