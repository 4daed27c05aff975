"""Reading the next while the last is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields the items; while one is in use, a thread makes the next one."""
    source = iter(items)
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, source, None)
        while (item := following.result()) is not None:
            following = maker.submit(next, source, None)
            yield item
