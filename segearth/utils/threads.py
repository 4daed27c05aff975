"""Work in threads: reading the next while the last is in use, and several things side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 2  # each may hold a strip of a scene; with more, memory would grow with the machine's cores


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields the items; while one is in use, a thread makes the next one."""
    source = iter(items)
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, source, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, source, None)
            yield item


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Calls a function for each item, several at a time in threads, and returns the results in order.

    It saves time where the function spends its own in NumPy, GDAL or files, which let other threads run meanwhile.

    Args:
        function: Must not change what another call reads.
        items: One for each call; a single one is worked on without a thread.

    Raises:
        Exception: That of the first item whose call raises one, once the calls that have begun are done.
    """
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), MOST_THREADS)) as pool:
        return list(pool.map(function, items))
