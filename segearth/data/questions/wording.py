"""Puts claims into words: the question and a short answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage
from segearth.data.questions.claims import Claim, Referents
from segearth.data.questions.table import ClassWords, Table

BARE_SHARE = 0.5  # share of questions that are only a phrase, such as "the buildings", without a sentence around it
COMMANDS = ("Segment {x}.", "Find {x}.", "Show me {x}.", "Mark {x}.", "Highlight {x}.", "Outline {x}.", "Locate {x}.")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RANKS = {1: ("largest", "biggest"), 2: ("second largest", "second biggest"), -1: ("smallest",)}
SIDE_PHRASES = {
    "left": ("further left than {x}", "to the left of {x}"),
    "right": ("further right than {x}", "to the right of {x}"),
    "above": ("further up in the image than {x}", "above {x} in the image"),
    "below": ("further down in the image than {x}", "below {x} in the image"),
}
ANSWER_COUNTS_TO = 20  # answers state the number of objects up to this one


def question_text(claim: Claim, referents: Referents, table: Table, rng: np.random.Generator) -> str:
    """Returns the question of a claim in words, with a random phrasing."""
    if claim.need is not None:
        return _pick(claim.need.questions, rng)
    many = are_many(claim, referents, table)
    phrase = _phrase(claim, many, table, rng, whole=referents.within is None)
    if rng.random() < BARE_SHARE:
        return phrase
    if rng.random() < 0.25:
        if phrase.startswith(("all ", "every ")):
            return f"Show {phrase}."
        words = table.words(claim.categories[0])
        singular = not many or (words.mass and " and " not in words.singular)
        return f"Where {'is' if singular else 'are'} {phrase}?"
    return _pick(COMMANDS, rng).format(x=phrase)


def answer_text(claim: Claim, referents: Referents, annotated: AnnotatedImage, table: Table) -> str:
    """Returns the answer in words, such as "The 5 buildings.", "The road." or "There is no ship in this image."."""
    if claim.absent:
        return _absence_answer(claim, table)
    if claim.need is None and not claim.about_all:
        return _sentence(plain_phrase(claim, are_many(claim, referents, table), table))
    chosen = set(referents.ids)
    parts = []
    for name in claim.categories:
        items = [item for item in annotated.by_category.get(name, ()) if item.id in chosen]
        if items:
            exact = items[0].is_thing and name not in annotated.incomplete and not any(item.truncated for item in items)
            parts.append(_amount(table.words(name), len(items), exact, items[0].is_thing))
    return _sentence(" and ".join(parts) if len(parts) < 3 else ", ".join(parts[:-1]) + " and " + parts[-1])


def are_many(claim: Claim, referents: Referents, table: Table) -> bool:
    """Whether the target is named in the plural: it is not exactly one object, or cannot be counted."""
    return len(referents.ids) != 1 or table.words(claim.categories[0]).mass


def plain_phrase(claim: Claim, many: bool, table: Table) -> str:
    """Returns the phrase for a claim, with the first wording of each part: "the buildings with a tin roof"."""
    return _phrase(claim, many, table, None)


def _amount(words: ClassWords, number: int, exact: bool, thing: bool) -> str:
    if words.mass or (number == 1 and (exact or not thing)):
        return f"the {words.singular}"
    if exact and number <= ANSWER_COUNTS_TO:
        return f"the {number} {words.plural}"
    return f"the {words.plural}"


def _absence_answer(claim: Claim, table: Table) -> str:
    if claim.need is not None:
        names = [table.words(name).singular for name in claim.categories]
        return f"There is no {' or '.join(names)} in this image."
    noun = _with_attribute(claim, table.words(claim.categories[0]).singular, table, None)
    place = f"in the {claim.region} of this image" if claim.region else "in this image"
    return f"There is no {noun} {place}."


def _phrase(claim: Claim, many: bool, table: Table, rng: np.random.Generator | None, whole: bool = True) -> str:
    words = table.words(claim.categories[0])
    singular, plural = words.names[0] if rng is None else _name(words, rng)
    noun = _with_attribute(claim, plural if many else singular, table, rng)
    tail = ""
    if claim.relation is not None and claim.anchor is not None:
        anchor = plain_phrase(claim.anchor, not claim.anchor.about_individuals, table)
        if claim.relation == "closest":
            tail = _pick((" closest to ", " nearest to "), rng) + anchor
        elif claim.relation == "beside":
            tail = f" next to {anchor}"
        else:
            tail = " " + _pick(SIDE_PHRASES[claim.relation], rng).format(x=anchor)
    if claim.region is not None:
        tail += f" in the {claim.region}" + ("" if rng is not None and rng.random() < 0.4 else " of the image")
    if claim.rank is not None:
        return f"the {_pick(RANKS[claim.rank], rng)} {noun}{tail}"
    if claim.count is not None:
        return f"the {NUMBERS[claim.count]} {noun}{tail}"
    if rng is None or not many or claim.about_individuals:
        return f"the {noun}{tail}"
    plain = claim.region is None and claim.attribute is None
    openings = ["the ", "the ", "all ", "all the "]
    openings += [""] if plain else []
    openings += ["every "] if whole and not words.mass else []  # if stuff is cut at a region's edge, "every" is wrong
    opening = _pick(openings, rng)
    if opening == "every ":
        noun = _with_attribute(claim, singular, table, rng)
    return f"{opening}{noun}{tail}"


def _with_attribute(claim: Claim, noun: str, table: Table, rng: np.random.Generator | None) -> str:
    if claim.attribute is None:
        return noun
    key, value = claim.attribute
    return _pick(table.attributes[key].values[value], rng).format(noun=noun)


def _name(words: ClassWords, rng: np.random.Generator) -> tuple[str, str]:
    return words.names[0] if not words.synonyms or rng.random() < 0.6 else _pick(words.synonyms, rng)


def _pick(options: Sequence, rng: np.random.Generator | None):  # type: ignore[no-untyped-def,type-arg]
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
