"""Builds the questions of an image, from proposed claims to worded questions, and keeps their kinds in balance."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.claims import Claim, Margins, Referents, Verifier, opposites
from segearth.data.questions.held_out import is_held_out
from segearth.data.questions.propose import PROPOSERS
from segearth.data.questions.table import Table, load_table
from segearth.data.questions.wording import answer_text, question_text
from segearth.errors import ConfigError, nearest_names
from segearth.structures import Question, Task

# If an image offers nothing for some kinds of question, the others take their share, but none takes more than this many
# times its own. Otherwise all questions of an image with few objects would be of one kind.
MOST_OF_SHARE = 2.5
# The kind of questions about absent things. There are always many of these to ask, so their number is tied to that of
# the other questions.
ABSENT = "absent"

DEFAULT_MIX: dict[str, float] = {
    "class": 0.35,
    "reasoning": 0.25,
    "position": 0.09,
    "count": 0.03,
    "size": 0.05,
    "neighbour": 0.05,
    "attribute": 0.05,
    "absent": 0.13,
}


@dataclass(frozen=True)
class BuilderSettings:
    """Which questions to build, and how many.

    Attributes:
        max_questions: The most questions of one image.
        mix: From each kind of question to its share; a kind that is left out is not asked. If an image offers nothing
            for a kind, the others take its share.
        twins: How often, from 0 to 1, a question about a place, a side or a size is followed by its opposite. The two
            differ in one word in most cases, and have different targets in the same image.
        paraphrases: How many times the same claim may be asked of one image, in different words.
        margins: How clear a case must be.
        held_out: Whether combinations of attributes with places and sizes that the table lists under ``never_with`` are
            asked. ``False`` for training; ``True`` for questions that test what was never trained.
    """

    max_questions: int = 8
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    twins: float = 0.0
    paraphrases: int = 2
    margins: Margins = field(default_factory=Margins)
    held_out: bool = False


class Expression(NamedTuple):
    """A question in words with the claim behind it and the objects it asks for, before its mask is drawn."""

    text: str
    kind: str
    answer: str
    claim: Claim
    referents: Referents

    @property
    def task(self) -> Task:
        """``"reasoning"`` if the question names a need, ``"referring"`` if it names the thing itself."""
        return "reasoning" if self.claim.need is not None else "referring"

    def question(self, annotated: AnnotatedImage) -> Question:
        """Returns the question with its mask at the size of the annotation's frame."""
        mask = annotated.union_mask(self.referents.ids, self.referents.within)
        valid = annotated.known_area(self.claim.mentioned)
        chosen_from = self.referents.candidates
        candidates = annotated.union_mask(chosen_from) if chosen_from else mask
        return Question(self.text, mask, self.answer, self.task, self.kind, valid=valid, candidates=candidates)


class ExpressionBuilder:
    """Makes questions that are true of an image.

    With equal annotations, settings and random generators the questions are equal.
    """

    def __init__(self, table: Table | None = None, settings: BuilderSettings | None = None) -> None:
        """Prepares a builder.

        Args:
            table: Words and needs; default the built-in table.
            settings: Which questions to build; default ``BuilderSettings()``.

        Raises:
            ConfigError: ``settings.mix`` names a kind that does not exist.
        """
        self.table = table if table is not None else load_table()
        self.settings = settings if settings is not None else BuilderSettings()
        for kind in self.settings.mix:
            if kind not in PROPOSERS:
                raise ConfigError(f"mix: unknown kind {kind!r}{nearest_names(kind, sorted(PROPOSERS))}")

    def build(self, annotated: AnnotatedImage, rng: np.random.Generator) -> list[Question]:
        """Returns up to ``max_questions`` questions with their masks at the image's size."""
        return [expression.question(annotated) for expression in self.expressions(annotated, rng)]

    def expressions(self, annotated: AnnotatedImage, rng: np.random.Generator) -> list[Expression]:
        """Returns up to ``max_questions`` verified questions without masks."""
        verifier = Verifier(annotated, self.table, self.settings.margins)
        most, absent_share = self.settings.max_questions, self._absent_share()
        if absent_share == 1:
            return self._absent_expressions(verifier, [], most, rng)
        found = self._present_expressions(verifier, most, rng)
        if len(found) == most:
            wanted = int(rng.binomial(most, absent_share))
        else:
            # With few other questions there are few about absent things too, so that their share stays the same. An
            # image that nothing else can be asked about gets one.
            in_proportion = len(found) * absent_share / (1 - absent_share) + rng.random()
            wanted = min(int(in_proportion) if found else int(absent_share > 0), most)
        return found[: most - wanted] + self._absent_expressions(verifier, found, wanted, rng)

    def classes(self, annotated: AnnotatedImage, rng: np.random.Generator, most_absent: int) -> list[Expression]:
        """Returns every class that is in the image, and some that are known to be absent.

        Args:
            annotated: The image's annotation.
            rng: Decides the names, and which absent classes are given.
            most_absent: The most absent classes.

        Returns:
            One expression for each class. Its text is one of the class's names, in the plural, without a sentence.
        """
        verifier = Verifier(annotated, self.table, self.settings.margins)
        missing = sorted((annotated.vocabulary | annotated.known_absent) - annotated.by_category.keys())
        claims = [Claim((name,)) for name in annotated.by_category]
        claims += [Claim((missing[k],), absent=True) for k in rng.permutation(len(missing))[:most_absent]]
        found = []
        for claim in claims:
            referents = verifier.referents(claim)
            if referents is not None:
                names = self.table.words(claim.categories[0]).names
                plural = names[int(rng.integers(len(names)))][1]
                found.append(Expression(plural, ABSENT if claim.absent else "class", "", claim, referents))
        return found

    def _present_expressions(self, verifier: Verifier, most: int, rng: np.random.Generator) -> list[Expression]:
        """Asks for things that are in the image; the kind of each question is drawn by its share."""
        shares = {kind: share for kind, share in self.settings.mix.items() if share > 0 and kind != ABSENT}
        streams = {kind: self._stream(kind, verifier, rng) for kind in shares}
        out: list[Expression] = []
        while streams and len(out) < most:
            weights = np.array([shares[kind] for kind in streams])
            kind = list(streams)[int(rng.choice(len(streams), p=weights / weights.sum()))]
            found = next(streams[kind], None)
            if found is None or sum(e.kind == kind for e in out) >= self._most(kind):
                del streams[kind]
                continue
            # The twin is worded with a copy of the generator, so that it draws the same words.
            twin_rng = copy.deepcopy(rng) if self.settings.twins else rng
            self._take(self._worded(kind, *found, verifier, rng), out)
            if self.settings.twins and len(out) < most and rng.random() < self.settings.twins:
                self._take_twin(kind, found[0], verifier, out, twin_rng)
        return out

    def _take_twin(
        self, kind: str, claim: Claim, verifier: Verifier, out: list[Expression], rng: np.random.Generator
    ) -> None:
        """Adds the question with the opposite claim, if that holds too and asks for other objects."""
        for _, twin in opposites(claim):
            referents = None if self._is_kept_back(twin) else verifier.referents(twin)
            if referents is not None and referents != verifier.referents(claim):
                self._take(self._worded(kind, twin, referents, verifier, rng), out)
                return

    def _take(self, expression: Expression, out: list[Expression]) -> None:
        """Adds a question, unless its text was asked before or its claim as often as ``paraphrases`` allows."""
        asked_before = sum(e.claim == expression.claim and e.kind == expression.kind for e in out)
        if asked_before < self.settings.paraphrases and expression.text not in {e.text for e in out}:
            out.append(expression)

    def _absent_expressions(
        self, verifier: Verifier, present: Sequence[Expression], most: int, rng: np.random.Generator
    ) -> list[Expression]:
        """Asks for absent things, with the same share of needs as among the questions about things that are present.

        If most needs that are asked of an image were unmet, a model would learn that a need has an empty mask.
        """
        tasks = Counter(present[int(rng.integers(len(present)))].task if present else "referring" for _ in range(most))
        out: list[Expression] = []
        for claim, referents in self._stream(ABSENT, verifier, rng) if most else ():
            found = self._worded(ABSENT, claim, referents, verifier, rng)
            if tasks[found.task] and found.text not in {e.text for e in out}:
                out.append(found)
                tasks[found.task] -= 1
            if len(out) == most:
                break
        return out

    def _worded(
        self, kind: str, claim: Claim, referents: Referents, verifier: Verifier, rng: np.random.Generator
    ) -> Expression:
        text = question_text(claim, referents, self.table, rng)
        return Expression(text, kind, answer_text(claim, referents, verifier.annotated, self.table), claim, referents)

    def _absent_share(self) -> float:
        total = sum(self.settings.mix.values())
        return self.settings.mix.get(ABSENT, 0.0) / total if total else 0.0

    def _most(self, kind: str) -> int:
        return max(1, round(MOST_OF_SHARE * self.settings.mix[kind] * self.settings.max_questions))

    def _is_kept_back(self, claim: Claim) -> bool:
        return not self.settings.held_out and is_held_out(claim, self.table)

    def _stream(self, kind: str, verifier: Verifier, rng: np.random.Generator) -> Iterator[tuple[Claim, Referents]]:
        """Yields the claims of a kind that hold in the image, all of them once for each paraphrase."""
        for _ in range(self.settings.paraphrases):
            seen: set[Claim] = set()
            for claim in PROPOSERS[kind](verifier.annotated, verifier.table, rng):
                if self._is_kept_back(claim):
                    continue
                referents = verifier.referents(claim) if claim not in seen else None
                seen.add(claim)
                if referents is not None:
                    yield claim, referents
