"""The types of scoring: a row to score, a term of the reward, a preset of terms, and a row's score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from segearth.errors import ConfigError, UnknownNameError
from segearth.prompting.answers import Instance, ParsedAnswer
from segearth.rl.rewards.settings import ConsistencySettings
from segearth.rl.rewards.wording import Embed
from segearth.structures import Target

# From an image's key and the things to segment in it, in pixels, to one boolean mask (H, W) of all of them. Completions
# of one group come one after another with the same key, so that who keeps an image's features encodes it once.
MasksOf: TypeAlias = Callable[[str, tuple[Instance, ...]], Any]

PROVENANCES = ("code", "paper", "reconstruction")


@dataclass(frozen=True, slots=True)
class RewardRow:
    """One completion, taken apart, with what it is held against.

    Attributes:
        answer: Its coordinates are pixels of the image.
        target: What a right answer is; ``None`` where it is not known: then only its form is scored.
        size: ``(H, W)`` of the image.
        image_key: Names the image to the segmenter.
        wording: The right answer in words that goes with a target of boxes, such as a description of the scene.
        problem: Why the row cannot be scored, such as an image that does not open; all its terms get their floor.
    """

    answer: ParsedAnswer
    target: Target | None
    size: tuple[int, int]
    image_key: str = ""
    wording: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RewardTools:
    """What rewards are computed with that is no formula.

    Attributes:
        masks_of: Segments what an answer points at.
        embed: Turns texts into sentence embeddings.
    """

    masks_of: MasksOf | None = None
    embed: Embed | None = None


TermFunction: TypeAlias = Callable[[RewardRow, RewardTools], "float | None"]

_TOOLS = {
    "masks_of": "a function from (image key, instances in pixels) to their boolean mask (H, W), such as a segmenter's",
    "embed": "a function from n texts to their sentence embeddings (n, d), such as SentenceTransformer(…).encode",
}


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One part of a reward.

    Attributes:
        name: In tables and logs.
        function: From a row and the tools to a value, or to ``None`` where the term does not apply to such a row.
        weight: The term's factor in the sum.
        provenance: Where the formula comes from: ``"code"`` (public code), ``"paper"`` or ``"reconstruction"``.
        note: The formula in a few words.
        range: Least and greatest value. A row that cannot be scored gets the least.
        needs: Names of the tools (see :class:`RewardTools`) that the function uses.
    """

    name: str
    function: TermFunction
    weight: float
    provenance: str
    note: str
    range: tuple[float, float] = (0.0, 1.0)
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.provenance not in PROVENANCES:
            raise UnknownNameError("provenance", self.provenance, PROVENANCES)
        if not math.isfinite(self.weight):
            raise ConfigError(f"reward term {self.name!r} has the weight {self.weight}; give a finite number")


@dataclass(frozen=True, slots=True)
class RewardPreset:
    """A reward: a weighted sum of terms.

    Attributes:
        name: In tables and logs.
        terms: No two of one name.
        consistency: How groups whose answers scatter are trusted less, where the system does so: a factor on their
            advantages (:mod:`segearth.rl.groups`), since one on rewards would be cancelled.
    """

    name: str
    terms: tuple[RewardTerm, ...]
    consistency: ConsistencySettings | None = None

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"reward {self.name!r} has the terms {names}; give at least one, and each name once")

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest sum of a row to which every term applies."""
        ends = [sorted(term.weight * end for end in term.range) for term in self.terms]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def with_weights(self, weights: Mapping[str, float]) -> RewardPreset:
        """Returns the preset with other weights for the terms that are named; 0 keeps a term in the logs alone.

        Raises:
            UnknownNameError: The preset has no such term.
            ConfigError: A weight is not finite.
        """
        names = [term.name for term in self.terms]
        for name in weights:
            if name not in names:
                raise UnknownNameError(f"term of reward {self.name!r}", name, names)
        changed = (replace(term, weight=float(weights.get(term.name, term.weight))) for term in self.terms)
        return replace(self, terms=tuple(changed))

    def check_tools(self, tools: RewardTools) -> None:
        """Checks before a run that what the terms need is there; else every row would fail, one by one.

        Raises:
            ConfigError: A tool is missing; the message says what to pass.
        """
        for term in self.terms:
            for tool in term.needs:
                if getattr(tools, tool) is None:
                    raise ConfigError(
                        f"term {term.name!r} of reward {self.name!r} needs {tool}; pass {tool}={_TOOLS[tool]}"
                    )


@dataclass(frozen=True, slots=True)
class RowScore:
    """What a row is worth.

    Attributes:
        total: Weighted sum of the terms that apply; ``None`` where none does, which is not 0.
        terms: Value of each term before its weight; ``None`` where it does not apply.
        errors: Why a term could not be computed and has its floor; under ``"row"`` why the whole row could not.
        problems: What the parser mended or left out.
    """

    total: float | None
    terms: Mapping[str, float | None]
    errors: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
