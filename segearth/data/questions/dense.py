"""Builds every question that can be asked of an image, and finds the pairs that differ in a single word.

The usual few questions per image hold too few of the rare kinds to tell two models apart. And their scores say little
about whether a model reads each word. If two questions differ in one word and ask for different objects, a model that
does not read this word gives the same answer to both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.builder import Expression
from segearth.data.questions.claims import Claim, Margins, Verifier, opposites
from segearth.data.questions.propose import PROPOSERS
from segearth.data.questions.table import Table
from segearth.data.questions.wording import answer_text, question_text

DENSE_KINDS = ("class", "position", "size", "neighbour", "count", "attribute")


def every_expression(
    annotated: AnnotatedImage,
    table: Table,
    rng: np.random.Generator,
    kinds: Sequence[str] = DENSE_KINDS,
    margins: Margins | None = None,
) -> list[Expression]:
    """Returns every claim of some kinds that holds in an image, each in one wording.

    Args:
        annotated: The image's annotation.
        table: Words and needs.
        rng: Decides the wordings, and which counts are tried.
        kinds: Keys of :data:`~segearth.data.questions.propose.PROPOSERS`.
        margins: How clear a case must be.
    """
    verifier = Verifier(annotated, table, margins or Margins())
    found: dict[tuple[Claim, str], Expression] = {}
    for kind in kinds:
        for claim in PROPOSERS[kind](annotated, table, rng):
            referents = None if (claim, kind) in found else verifier.referents(claim)
            if referents is not None:
                text = question_text(claim, referents, table, rng)
                answer = answer_text(claim, referents, annotated, table)
                found[claim, kind] = Expression(text, kind, answer, claim, referents)
    return sorted(found.values(), key=lambda each: (kinds.index(each.kind), each.claim.categories))


def minimal_pairs(expressions: Sequence[Expression]) -> Iterator[tuple[str, int, int]]:
    """Finds the pairs of questions that differ in one word and have different targets.

    Yields:
        The kind of word (``"side"``, ``"size"`` or ``"class"``) and the indices of the two in ``expressions``.
    """
    index_of = {each.claim: number for number, each in enumerate(expressions)}
    for number, each in enumerate(expressions):
        for what, claim in _twins(each.claim, [other.claim for other in expressions]):
            other = index_of.get(claim)
            if other is not None and number < other and expressions[other].referents != each.referents:
                yield what, number, other


def _twins(claim: Claim, others: Sequence[Claim]) -> Iterator[tuple[str, Claim]]:
    """Yields the claims that differ from ``claim`` in one word, with the kind of word."""
    yield from opposites(claim)
    if claim == Claim(claim.categories):
        yield from (("class", other) for other in others if other == Claim(other.categories) != claim)
