from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from segearth.prompting.answers import Instance, ParsedAnswer


@pytest.fixture
def pointing() -> Callable[..., ParsedAnswer]:
    """Makes an answer that points at boxes; ``None`` for a list that could not be read."""

    def make(boxes: Sequence[Sequence[float]] | None, tags: bool = True, json: bool = True) -> ParsedAnswer:
        instances = None if boxes is None else tuple(Instance(box=tuple(map(float, box))) for box in boxes)
        return ParsedAnswer("", "thought", "", instances, tags, json)

    return make


@pytest.fixture
def saying() -> Callable[..., ParsedAnswer]:
    """Makes an answer in words."""

    def make(words: str, tags: bool = True) -> ParsedAnswer:
        return ParsedAnswer(words, "thought", words, None, tags, True)

    return make
