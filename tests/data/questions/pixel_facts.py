"""Reads what a question says from its words alone, and checks it on the masks with NumPy alone.

Shares nothing with the code under test but the image's data and the table of words. Distances are measured between all
pairs of pixels, places as shares of pixels: slow, and so plain that it can be believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.table import Table, load_table
from segearth.structures import Question

TABLE = load_table()
PLACES = r"(?:left|right|upper|lower) half|(?:upper|lower) (?:left|right) (?:quarter|corner)|middle"
RANKS = {"largest": 1, "biggest": 1, "second largest": 2, "second biggest": 2, "smallest": -1}
COUNTS = {name: k for k, name in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine"), 2)}
RELATIONS = {
    "closest to": "closest",
    "nearest to": "closest",
    "next to": "beside",
    "further left than": "left",
    "to the left of": "left",
    "further right than": "right",
    "to the right of": "right",
    "further up in the image than": "above",
    "above": "above",
    "further down in the image than": "below",
    "below": "below",
}


@dataclass(frozen=True)
class Said:
    """What a noun phrase says; ``numbers`` holds the grammatical numbers its noun may have (aircraft: both)."""

    category: str
    numbers: frozenset[str]
    attribute: tuple[str, str] | None = None
    opening: str = ""
    place: str | None = None
    rank: int | None = None
    count: int | None = None
    relation: str | None = None
    anchor: Said | None = None


@cache
def nouns(table: Table = TABLE) -> dict[str, tuple[str, tuple[str, str] | None, frozenset[str]]]:
    """Every noun with every attribute's phrase around it, to its class, attribute and grammatical numbers."""
    phrases: dict[tuple[str, str, tuple[str, str] | None], set[str]] = {}
    for category, words in table.classes.items():
        for pair in ((words.singular, words.plural), *words.synonyms):
            for number, noun in zip(("singular", "plural"), pair, strict=True):
                phrases.setdefault((noun, category, None), set()).add(number)
                for key, attribute in table.attributes.items():
                    for value, templates in attribute.values.items():
                        for template in templates:
                            text = template.replace("{noun}", noun)
                            phrases.setdefault((text, category, (key, value)), set()).add(number)
    out = {text: (category, fact, frozenset(numbers)) for (text, category, fact), numbers in phrases.items()}
    assert len(out) == len(phrases), "two classes or attributes share a phrase"
    return out


def read(text: str) -> tuple[Said, str]:
    """Splits a question into what it says and its verb: "is", "are", or "" where it has none."""
    command = re.fullmatch(r"(?:Segment|Find|Show me|Show|Mark|Highlight|Outline|Locate) (.+)\.", text)
    where = re.fullmatch(r"Where (is|are) (.+)\?", text)
    if where:
        return read_phrase(where[2]), where[1]
    phrase = command[1] if command else text
    assert not re.search(r"[.?]$", phrase), f"no way to begin a question: {text}"
    return read_phrase(phrase), ""


def read_phrase(phrase: str) -> Said:
    """Reads a noun phrase; raises ``AssertionError`` for one that no person would take for English of this kind."""
    found = re.fullmatch(rf"(.+?) ({'|'.join(RELATIONS)}) (the .+)", phrase)
    anchor = relation = place = None
    if found:
        phrase, relation, rest = found[1], found[2], found[3]
        anchor = read_phrase(rest.removesuffix(" in the image") if relation in ("above", "below") else rest)
    if found := re.fullmatch(rf"(.+) in the ({PLACES})( of the image)?", phrase):
        phrase, place = found[1], found[2]
    opening = re.match(r"all the |all |every |the |", phrase)[0]
    noun = phrase[len(opening) :]
    first = re.match(rf"({'|'.join(sorted((*RANKS, *COUNTS), key=len, reverse=True))}) ", noun)
    rank, count = (RANKS.get(first[1]), COUNTS.get(first[1])) if first else (None, None)
    noun = noun[first.end() :] if first else noun
    assert noun in nouns(), f"not a noun: {noun!r}"
    category, attribute, numbers = nouns()[noun]
    meant = RELATIONS[relation] if relation else None
    return Said(category, numbers, attribute, opening.strip(), place, rank, count, meant, anchor)


def full(annotated: AnnotatedImage, item: AnnotatedObject) -> np.ndarray:
    """An object's mask at the frame's size."""
    out = np.zeros((annotated.height, annotated.width), bool)
    x0, y0, x1, y1 = item.box
    out[y0:y1, x0:x1] = item.mask
    return out


def place_of(annotated: AnnotatedImage, item: AnnotatedObject, place: str) -> bool | None:
    """Whether an object lies in a named part of the frame; ``None`` if people could differ."""
    ys, xs = np.nonzero(full(annotated, item))
    x, y = (xs + 0.5) / annotated.width, (ys + 0.5) / annotated.height

    def share_and_centre(reach: float) -> tuple[float, bool]:
        low, high = (0.5 - reach, 0.5 + reach) if place == "middle" else (-np.inf, np.inf)
        columns = (1 - reach, np.inf) if "right" in place else (-np.inf, reach) if "left" in place else (low, high)
        rows = (1 - reach, np.inf) if "lower" in place else (-np.inf, reach) if "upper" in place else (low, high)
        inside = (x >= columns[0]) & (x <= columns[1]) & (y >= rows[0]) & (y <= rows[1])
        centre = columns[0] <= x.mean() <= columns[1] and rows[0] <= y.mean() <= rows[1]
        return float(inside.mean()), bool(centre)

    pixel = 1 / min(annotated.width, annotated.height)
    half, inner, outer = {"middle": (0.25, 0.14, 0.3)}.get(place, (0.5, 0.36 if "corner" in place else 0.47, 0.53))
    share, _ = share_and_centre(half)
    if share >= 0.8 - 1e-9 and share_and_centre(inner + pixel)[1]:
        return True
    if share <= 0.2 + 1e-9 and not share_and_centre(outer - pixel)[1]:
        return False
    return None


def has_attribute(item: AnnotatedObject, fact: tuple[str, str]) -> bool | None:
    """Whether an object has an attribute's value; ``None`` where it is not known or a mixture."""
    actual = item.attributes.get(fact[0])
    return None if actual is None or actual == "mixed" else actual == fact[1]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the closest two pixels of two masks."""
    p, q = np.argwhere(a).astype(float), np.argwhere(b).astype(float)
    return float(min(np.sqrt(((q - point) ** 2).sum(axis=1)).min() for point in p))


def side_of(item: np.ndarray, anchor: np.ndarray, side: str) -> bool | None:
    """Whether a mask lies wholly on one side of another, or plainly not."""
    axis = 1 if side in ("left", "right") else 0
    p, q = np.nonzero(item)[axis], np.nonzero(anchor)[axis]
    sign = 1 if side in ("left", "above") else -1
    p, q = sign * p, sign * q
    if p.max() < q.min():
        return True
    return False if p.mean() >= (q.min() + q.max()) / 2 else None


def meant(annotated: AnnotatedImage, said: Said) -> list[AnnotatedObject]:
    """The objects a phrase is true of; raises ``AssertionError`` where that is not clear."""
    pool = [item for item in annotated.objects if item.category == said.category]
    anchor = [] if said.anchor is None else meant(annotated, said.anchor)
    around = np.any([full(annotated, item) for item in anchor], axis=0) if anchor else None
    diagonal = np.hypot(annotated.width, annotated.height)
    sure = []
    for item in pool:
        if any(item is other for other in anchor):
            continue
        verdicts: list[bool | None] = []
        if said.attribute:
            verdicts.append(has_attribute(item, said.attribute))
        if said.place:
            verdicts.append(place_of(annotated, item, said.place))
        if said.relation == "beside" and around is not None:
            gap = distance(full(annotated, item), around) / diagonal
            # The code's own distances are up to 2 % short or long.
            verdicts.append(True if gap <= 0.015 * 1.02 else False if gap >= 0.06 * 0.98 else None)
        elif said.relation in ("left", "right", "above", "below") and around is not None:
            verdicts.append(side_of(full(annotated, item), around, said.relation))
        if False in verdicts:
            continue
        assert None not in verdicts, f"object {item.id} ({item.category}) is neither clearly meant nor clearly not"
        sure.append(item)
    if said.relation == "closest" and around is not None:
        assert len(sure) > 1, "the closest of one"
        gaps = sorted((distance(full(annotated, item), around), item.id) for item in sure)
        first, second = gaps[0][0], gaps[1][0]
        clear = second >= 1.4 * 0.98 * first and second - first >= 0.03 * diagonal - 0.02 * second
        assert clear, "two are about as close"
        sure = [item for item in sure if item.id == gaps[0][1]]
    if said.rank is not None:
        sure = ranked(annotated, sure, said.rank)
    return sure


def ranked(annotated: AnnotatedImage, pool: list[AnnotatedObject], rank: int) -> list[AnnotatedObject]:
    """The largest, second largest or smallest of some objects, if nobody can doubt which it is."""
    sizes = sorted((int(full(annotated, item).sum()), item.id) for item in pool)
    sizes = sizes[::-1] if rank > 0 else sizes
    assert len(sizes) >= (2 if rank == 1 else 3), "a superlative of too few"
    for (a, _), (b, _) in list(pairwise(sizes))[: abs(rank)]:
        assert max(a, b) >= 1.3 * min(a, b), "two are about as large"
    (found,) = (item for item in pool if item.id == sizes[abs(rank) - 1][1])
    edge = full(annotated, found)
    if rank < 0:
        assert not (edge[0].any() or edge[-1].any() or edge[:, 0].any() or edge[:, -1].any()), "it may be cut off"
    return [found]


def check(annotated: AnnotatedImage, question: Question) -> None:
    """Raises ``AssertionError`` unless a question is English, true of the image, clear, and has the right mask."""
    assert question.mask is not None and question.answer
    need = next((n for n in TABLE.needs if question.text in n.questions), None)
    assert question.task == ("referring" if need is None else "reasoning")
    if need is not None:
        return check_need(annotated, question, need.classes, need.conflicts)
    said, verb = read(question.text)
    if question.kind == "absent":
        return check_absence(annotated, question, said)
    pool = [item for item in annotated.objects if item.category == said.category]
    assert pool, "asked for what is not there"
    others = {item.category for item in annotated.objects}
    assert not others & set(TABLE.classes[said.category].ambiguous), "the name might mean another class in view"
    plain = said == Said(said.category, said.numbers, opening=said.opening)
    assert plain or said.category not in annotated.incomplete, "a place, number or fact of a class that misses objects"
    assert plain == (question.kind == "class")
    if all(item.is_thing for item in pool):
        expected, number = check_things(annotated, said, plain)
    else:
        expected, number = check_stuff(annotated, said, pool)
    number_agrees(said, verb, number)
    assert np.array_equal(question.mask, expected)
    assert expected.sum() >= 0.0005 * expected.size, "too small to be found"
    if plain:
        answer = amount(annotated, said.category, pool)
        assert question.answer == answer[0].upper() + answer[1:] + "."
    else:
        told = read_phrase(question.answer[0].lower() + question.answer[1:].removesuffix("."))
        assert replace(told, opening="", numbers=said.numbers) == replace(said, opening="")
        number_agrees(told, "", number)


def check_things(annotated: AnnotatedImage, said: Said, plain: bool) -> tuple[np.ndarray, int]:
    """The union of the objects a phrase is true of, and their number."""
    found = meant(annotated, said)
    assert found, "true of nothing, and not asked as an absence"
    assert said.count in (None, len(found))
    sizes = [int(full(annotated, item).sum()) for item in found]
    least = max(24, 0.001 * annotated.width * annotated.height)
    if said.count is not None:
        assert min(sizes) >= least / 2 and not any(item.truncated for item in found), "a number of slivers"
    elif len(found) == 1 and not plain:
        assert sizes[0] >= least and not found[0].truncated, "only a sliver of it is in view"
    return np.any([full(annotated, item) for item in found], axis=0), len(found)


def check_stuff(annotated: AnnotatedImage, said: Said, pool: list[AnnotatedObject]) -> tuple[np.ndarray, int]:
    """The union of stuff, cut at the place's line, and the number of its pieces."""
    assert not (said.rank or said.count or said.relation or said.attribute)
    whole = np.any([full(annotated, item) for item in pool], axis=0)
    if not said.place:
        return whole, len(pool)
    rows, columns = np.indices(whole.shape)
    rows, columns = (rows + 0.5) / annotated.height, (columns + 0.5) / annotated.width
    inside = columns > 0.5 if "right" in said.place else columns < 0.5 if "left" in said.place else columns > 0
    inside &= rows > 0.5 if "lower" in said.place else rows < 0.5 if "upper" in said.place else rows > 0
    parts = [int((full(annotated, item) & inside).sum()) for item in pool]
    rest = sum(int((full(annotated, item) & ~inside).sum()) for item in pool)
    assert sum(parts) >= 0.001 * whole.size <= rest, "hardly any of it, or nearly all"
    assert said.opening != "every", "what is cut at a line is not every one"
    return whole & inside, sum(part > 0 for part in parts)


def amount(annotated: AnnotatedImage, category: str, items: list[AnnotatedObject]) -> str:
    """How an answer names all objects of a class: with their number where that is known, as it is for few of them."""
    words = TABLE.classes[category]
    counted = items[0].is_thing and category not in annotated.incomplete and not any(item.truncated for item in items)
    if words.mass:
        return f"the {words.singular}"
    if not items[0].is_thing:
        return f"the {words.singular if len(items) == 1 else words.plural}"
    if not counted or len(items) > 20:
        return f"the {words.plural}"
    return f"the {words.singular}" if len(items) == 1 else f"the {len(items)} {words.plural}"


def number_agrees(said: Said, verb: str, number: int) -> None:
    """One object is called by a singular, several by a plural, and the verb agrees."""
    words = TABLE.classes[said.category]
    if not words.mass:
        singular = number == 1 or said.opening == "every"
        assert ("singular" if singular else "plural") in said.numbers, f"{said} of {number}"
    if verb:
        plural = " and " in words.singular if words.mass else number != 1
        assert verb == ("are" if plural else "is")


def check_absence(annotated: AnnotatedImage, question: Question, said: Said) -> None:
    """Nothing of the kind is in view, or in the place, and nothing that could be taken for it."""
    assert not question.mask.any()
    noun = TABLE.classes[said.category].singular
    if said.attribute:
        noun = TABLE.attributes[said.attribute[0]].values[said.attribute[1]][0].replace("{noun}", noun)
    place = f"in the {said.place} of this image" if said.place else "in this image"
    assert question.answer == f"There is no {noun} {place}."
    assert said.rank is said.count is said.relation is None
    assert "plural" in said.numbers or said.opening == "every"
    pool = [item for item in annotated.objects if item.category == said.category]
    for item in pool:
        if item.is_thing:
            verdicts = [place_of(annotated, item, said.place)] if said.place else []
            verdicts += [has_attribute(item, said.attribute)] if said.attribute else []
            assert False in verdicts
        else:
            assert said.place and place_is_free(annotated, item, said.place)
    lookalikes = set(TABLE.classes[said.category].confusable)
    for item in annotated.objects:
        if item.category in lookalikes:
            assert said.place and place_is_free(annotated, item, said.place)
    known = said.category in annotated.vocabulary - annotated.incomplete - annotated.unresolved
    assert known or said.category in annotated.known_absent


def place_is_free(annotated: AnnotatedImage, item: AnnotatedObject, place: str) -> bool:
    """Whether no pixel of an object is in a part of the frame, nor within a pixel's rounding of 3 % around it."""
    assert place != "middle" or not item.is_thing
    ys, xs = np.nonzero(full(annotated, item))
    x, y = xs + 0.5, ys + 0.5
    reach_x, reach_y = 0.53 * annotated.width - 1, 0.53 * annotated.height - 1
    inside = x > annotated.width - reach_x if "right" in place else x < reach_x if "left" in place else x >= 0
    inside &= y > annotated.height - reach_y if "lower" in place else y < reach_y if "upper" in place else y >= 0
    return not inside.any()


def check_need(
    annotated: AnnotatedImage, question: Question, classes: tuple[str, ...], conflicts: tuple[str, ...]
) -> None:
    """A need is met by all of its classes, each of which is annotated, and by nothing that makes it doubtful."""
    in_view = {item.category for item in annotated.objects}
    assert not set(conflicts) & (in_view | annotated.possible)
    found = [item for item in annotated.objects if item.category in classes]
    assert bool(found) == (question.kind == "reasoning")
    expected = np.zeros((annotated.height, annotated.width), bool)
    for item in found:
        expected |= full(annotated, item)
    assert np.array_equal(question.mask, expected)
    looked_for = annotated.vocabulary | annotated.known_absent
    covered = {other for name in annotated.vocabulary if name in TABLE.classes for other in TABLE.classes[name].covers}
    assert all(name in looked_for or name in covered for name in classes)
    if found:
        by_class = [[item for item in found if item.category == name] for name in classes]
        parts = [amount(annotated, items[0].category, items) for items in by_class if items]
        text = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
        assert question.answer == text[0].upper() + text[1:] + "."
        return
    for name in set(classes) & looked_for:
        assert name in annotated.known_absent or name not in annotated.incomplete | annotated.unresolved
        assert not in_view & (set(TABLE.classes[name].confusable) - set(classes))
    names = " or ".join(TABLE.classes[name].singular for name in classes if name in looked_for)
    assert question.answer == f"There is no {names} in this image."
