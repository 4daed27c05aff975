"""Builds questions for an image: proposes, verifies, words, and keeps the kinds in balance."""

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

# Where other kinds run out, a kind may take its share this many times, so that a poor image is not all one kind.
MOST_OF_SHARE = 2.5
ABSENT = "absent"  # the kind that is asked in proportion to the others, whatever an image holds

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
    """What to ask, and how much.

    Attributes:
        max_questions: Most questions of one image.
        mix: Kind to share of the questions; a kind left out is not asked. Kinds that an image has nothing for leave
            their share to the others.
        twins: How often a question about a place, a side or a size is followed by the one that says the opposite:
            mostly the same words but one, and another target in the same image.
        paraphrases: How often the same meaning may be asked of one image in different words.
        margins: How clear a case must be.
        held_out: Whether to ask, too, for attributes together with places and sizes that the table's ``never_with``
            holds out: right for questions that nothing is trained on.
    """

    max_questions: int = 8
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    twins: float = 0.0
    paraphrases: int = 2
    margins: Margins = field(default_factory=Margins)
    held_out: bool = False


class Expression(NamedTuple):
    """A question with its meaning: what :meth:`ExpressionBuilder.expressions` gives, before a mask is drawn."""

    text: str
    kind: str
    answer: str
    claim: Claim
    referents: Referents

    @property
    def task(self) -> Task:
        """``"reasoning"`` if the need is named rather than the thing."""
        return "reasoning" if self.claim.need is not None else "referring"

    def question(self, annotated: AnnotatedImage) -> Question:
        """Draws the mask."""
        mask = annotated.union_mask(self.referents.ids, self.referents.within)
        valid = annotated.known_area(self.claim.mentioned)
        return Question(self.text, mask, self.answer, self.task, self.kind, valid=valid)


class ExpressionBuilder:
    """Makes questions that are true of an image; equal annotations, settings and generators give equal questions."""

    def __init__(self, table: Table | None = None, settings: BuilderSettings | None = None) -> None:
        """Prepares a builder.

        Args:
            table: Words and needs; default the built-in table.
            settings: Default :class:`BuilderSettings`.

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
        most, absences = self.settings.max_questions, self._share_of_absences()
        if absences == 1:
            return self._of_what_is_not(verifier, [], most, rng)
        found = self._of_what_is_there(verifier, most, rng)
        if len(found) == most:
            wanted = int(rng.binomial(most, absences))
        else:  # a poor image gets as few absences as it has other questions; where nothing is in view, one
            fair = len(found) * absences / (1 - absences) + rng.random()
            wanted = min(int(fair) if found else int(absences > 0), most)
        return found[: most - wanted] + self._of_what_is_not(verifier, found, wanted, rng)

    def classes(self, annotated: AnnotatedImage, rng: np.random.Generator, most_absent: int) -> list[Expression]:
        """Returns every class that is there, and some that are known not to be, each under one of its names.

        Args:
            annotated: What is annotated.
            rng: Decides the names, and which absent classes.
            most_absent: Most of these.
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

    def _of_what_is_there(self, verifier: Verifier, most: int, rng: np.random.Generator) -> list[Expression]:
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
            in_other_words = copy.deepcopy(rng) if self.settings.twins else rng
            self._take(self._worded(kind, *found, verifier, rng), out)
            if self.settings.twins and len(out) < most and rng.random() < self.settings.twins:
                self._take_twin(kind, found[0], verifier, out, in_other_words)
        return out

    def _take_twin(
        self, kind: str, claim: Claim, verifier: Verifier, out: list[Expression], rng: np.random.Generator
    ) -> None:
        """Asks the opposite of a claim too, where it holds as well and is about something else.

        Drawn from a copy of the generator that worded the claim, it mostly has the same words but one.
        """
        for _, twin in opposites(claim):
            referents = None if self._is_kept_back(twin) else verifier.referents(twin)
            if referents is not None and referents != verifier.referents(claim):
                self._take(self._worded(kind, twin, referents, verifier, rng), out)
                return

    def _take(self, expression: Expression, out: list[Expression]) -> None:
        """Adds a question unless its words, or its meaning often enough, were asked before."""
        asked_before = sum(e.claim == expression.claim and e.kind == expression.kind for e in out)
        if asked_before < self.settings.paraphrases and expression.text not in {e.text for e in out}:
            out.append(expression)

    def _of_what_is_not(
        self, verifier: Verifier, there: Sequence[Expression], most: int, rng: np.random.Generator
    ) -> list[Expression]:
        """Asks for what is not there, as often by a need as is done for what is there.

        Were most needs asked of a poor image unmet, a model would learn that the answer to a need is nothing.
        """
        tasks = Counter(there[int(rng.integers(len(there)))].task if there else "referring" for _ in range(most))
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

    def _share_of_absences(self) -> float:
        whole = sum(self.settings.mix.values())
        return self.settings.mix.get(ABSENT, 0.0) / whole if whole else 0.0

    def _most(self, kind: str) -> int:
        return max(1, round(MOST_OF_SHARE * self.settings.mix[kind] * self.settings.max_questions))

    def _is_kept_back(self, claim: Claim) -> bool:
        return not self.settings.held_out and is_held_out(claim, self.table)

    def _stream(self, kind: str, verifier: Verifier, rng: np.random.Generator) -> Iterator[tuple[Claim, Referents]]:
        for _ in range(self.settings.paraphrases):
            seen: set[Claim] = set()
            for claim in PROPOSERS[kind](verifier.annotated, verifier.table, rng):
                if self._is_kept_back(claim):
                    continue
                referents = verifier.referents(claim) if claim not in seen else None
                seen.add(claim)
                if referents is not None:
                    yield claim, referents
