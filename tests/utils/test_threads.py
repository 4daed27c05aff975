"""Work in threads."""

from __future__ import annotations

import threading

import pytest

from segearth.utils.threads import MOST_THREADS, side_by_side


def test_results_come_in_order() -> None:
    assert side_by_side(lambda n: n * n, range(9)) == [n * n for n in range(9)]
    assert side_by_side(lambda n: n, []) == []


def test_one_item_is_worked_on_here() -> None:
    assert side_by_side(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_two_items_are_worked_on_at_the_same_time() -> None:
    met = threading.Barrier(2)
    side_by_side(lambda _: met.wait(timeout=10), range(2))  # each waits for the other


def test_no_more_threads_than_allowed() -> None:
    assert len(set(side_by_side(lambda _: threading.get_ident(), range(1000)))) <= MOST_THREADS


def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 / n, [1, 0, 2])
