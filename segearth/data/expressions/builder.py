"""Builds questions for a scene: proposes, verifies, words, and keeps the kinds in balance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from segearth.data.expressions.claims import Claim, Margins, Referents, Verifier
from segearth.data.expressions.propose import PROPOSERS
from segearth.data.expressions.table import Table, load_table
from segearth.data.expressions.wording import answer_text, question_text
from segearth.data.scene import Scene
from segearth.errors import ConfigError, nearest_names
from segearth.structures import Question, Task

# Where other kinds run out, a kind may take its share this many times, so that a poor scene is not all absences.
MOST_OF_SHARE = 2.5

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
        max_questions: Most questions of one scene.
        mix: Kind to share of the questions; a kind left out is not asked. Kinds that a scene has nothing for leave
            their share to the others.
        paraphrases: How often the same meaning may be asked of one scene in different words.
        margins: How clear a case must be.
    """

    max_questions: int = 8
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    paraphrases: int = 2
    margins: Margins = field(default_factory=Margins)


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

    def question(self, scene: Scene) -> Question:
        """Draws the mask."""
        mask = scene.union_mask(self.referents.ids, self.referents.within)
        valid = scene.known_area(self.claim.mentioned)
        return Question(self.text, mask, self.answer, self.task, self.kind, valid=valid)


class ExpressionBuilder:
    """Makes questions that are true of a scene; equal scenes, settings and generators give equal questions."""

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

    def build(self, scene: Scene, rng: np.random.Generator) -> list[Question]:
        """Returns up to ``max_questions`` questions with their masks at the scene's size."""
        return [expression.question(scene) for expression in self.expressions(scene, rng)]

    def expressions(self, scene: Scene, rng: np.random.Generator) -> list[Expression]:
        """Returns up to ``max_questions`` verified questions without masks."""
        verifier = Verifier(scene, self.table, self.settings.margins)
        streams = {kind: self._stream(kind, verifier, rng) for kind, share in self.settings.mix.items() if share > 0}
        texts: set[str] = set()
        out: list[Expression] = []
        while streams and len(out) < self.settings.max_questions:
            kinds = list(streams)
            weights = np.array([self.settings.mix[kind] for kind in kinds])
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
            found = next(streams[kind], None)
            if found is None or sum(e.kind == kind for e in out) >= self._most(kind):
                del streams[kind]
                continue
            claim, referents = found
            text = question_text(claim, referents, self.table, rng)
            if text not in texts:
                texts.add(text)
                out.append(Expression(text, kind, answer_text(claim, referents, scene, self.table), claim, referents))
        return out

    def _most(self, kind: str) -> int:
        return max(1, round(MOST_OF_SHARE * self.settings.mix[kind] * self.settings.max_questions))

    def _stream(self, kind: str, verifier: Verifier, rng: np.random.Generator) -> Iterator[tuple[Claim, Referents]]:
        for _ in range(self.settings.paraphrases):
            seen: set[Claim] = set()
            for claim in PROPOSERS[kind](verifier.scene, verifier.table, rng):
                referents = verifier.referents(claim) if claim not in seen else None
                seen.add(claim)
                if referents is not None:
                    yield claim, referents
