"""Which questions a tile can answer by itself, and which need the whole scene.

"The red roofs" is answered tile by tile. "The largest building" is not: each tile has a largest building of its own.
Such a question is taken apart here into what a tile can find (the buildings) and what is settled afterwards among all
that was found (the largest of them), by geometry alone; :mod:`segearth.geo.settling` does that.

The grammar is small and English on purpose. What it does not understand it leaves whole: the question is then asked
tile by tile, or, where a word says that the answer depends on the whole scene, of the scene at reduced size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10
}  # fmt: skip
ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}
SIZES = {"largest": 1, "biggest": 1, "smallest": -1, "tiniest": -1}  # 1: by falling area, -1: by rising area

# Directions in pixels: x to the right, y down. Those of the compass are turned as the scene's grid is.
FRAME_DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "upper": (0, -1),
    "lower": (0, 1),
}
COMPASS = {
    "north": (0, -1), "south": (0, 1), "west": (-1, 0), "east": (1, 0),
    "northwest": (-1, -1), "northeast": (1, -1), "southwest": (-1, 1), "southeast": (1, 1),
}  # fmt: skip
SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}

_WHOLE_WORDS = re.compile(
    r"\b(most|only|majority|main|densest|longest|shortest|widest|narrowest|tallest|highest|lowest|brightest|darkest"
    r"|nearest|closest|farthest|furthest|largest|biggest|smallest|tiniest|between|overall|entire|whole"
    r"|(left|right|top|bottom|upper|lower|north|south|east|west)(ern)?most"
    r"|(left|right|upper|lower|northern|southern|eastern|western) (half|part|side|edge|quarter|corner)"
    r"|how much of)\b"
)
_OPENING = re.compile(
    r"^(please )?((can|could) you )?(segment|find|show( me)?|mark|highlight|outline|locate|select|extract|map|detect"
    r"|where (is|are)|(which|what) (is|are))\s+"
)
_SETTLED = (
    r"(?:the )?(?:nearest|closest|farthest|furthest|largest|biggest|smallest|within|in the|on the|north|south|east|west"
    r"|to the|second|third|fourth|fifth|[a-z-]+most|left|right|above|below|more than|less than)\b"
)
_WHICH = re.compile(
    r"^(?:which|how many) (?P<noun>[a-z -]+?)(?: (?:is|are|lies|lie|there))+ (?P<rest>" + _SETTLED + r".*)$"
)
_HOW_MANY = re.compile(r"^how many (?P<noun>.+?)(?: are there| can be seen| do you see| are visible)?$")
_SUPERLATIVE = re.compile(
    r"^(?:the )?(?P<which>(?:(?:" + "|".join(ORDINALS) + r") )?(?:" + "|".join(SIZES) + r")|[a-z-]+most)"
    r"(?: one)?(?: of all)?$"
)
_LENGTH = r"(?P<length>\d+(?:\.\d+)?)\s*(?P<unit>km|kilomet(?:re|er)s?|m|met(?:re|er)s?|px|pixels?)"
_OF_SCENE = r"(?:\s+(?:of|in) (?:the|this) (?:image|picture|scene|map|photo|area))?"
_REGION = re.compile(
    r"^(?P<noun>.+?) (?:in|within|inside|on) the (?:(?P<corner>(?:upper|lower|top|bottom) (?:left|right)|"
    r"north(?:ern|)[- ]?(?:east|west)(?:ern)?|south(?:ern|)[- ]?(?:east|west)(?:ern)?)"
    r"(?: (?:quarter|corner|quadrant|part))?"
    r"|(?P<half>left|right|upper|lower|top|bottom|north(?:ern)?|south(?:ern)?|east(?:ern)?|west(?:ern)?)"
    r"(?: (?:half|part|side))?|(?P<middle>middle|cent(?:re|er)))" + _OF_SCENE + r"$"
)
_OF_ALL = r"(?:(?: ones?)?(?= of (?:all )?the ) of(?: all)?)?"  # "the largest of all the ships" is the largest ship
_RANK = re.compile(
    r"^(?:(?P<number>\d+|" + "|".join(NUMBERS) + r") )?(?:(?P<ordinal>" + "|".join(ORDINALS) + r") )?"
    r"(?P<size>" + "|".join(SIZES) + r")" + _OF_ALL + r" (?P<noun>.+)$"
)
_MOST = re.compile(
    r"^(?P<way>left|right|top|bottom|upper|lower"
    r"|(?:(?:north|south)[- ]?)?(?:east|west)(?:ern)?|(?:north|south)(?:ern)?)"
    r"most" + _OF_ALL + r" (?P<noun>.+)$"
)
_NEAREST = (
    re.compile(
        r"^(?P<noun>.+?) (?:that (?:is|are) |which (?:is|are) )?(?P<word>nearest|closest)(?: to)? (?P<other>.+)$"
    ),
    re.compile(r"^(?P<word>nearest|closest) (?P<noun>.+?) to (?P<other>.+)$"),
    re.compile(r"^(?P<noun>.+?) (?:that (?:is|are) )?(?P<word>farthest|furthest)(?: away)? from (?P<other>.+)$"),
    re.compile(r"^(?P<word>farthest|furthest) (?P<noun>.+?) from (?P<other>.+)$"),
)
_WITHIN = re.compile(
    r"^(?P<noun>.+?) (?:that (?:is|are) )?(?P<word>within|closer than|less than|more than|farther than|further than) "
    + _LENGTH + r"(?: away)? (?:of|to|from) (?P<other>.+)$"
)  # fmt: skip
_SIDE = re.compile(
    r"^(?P<noun>.+?) (?:to the )?(?:(?P<side>left|right) of|(?P<vertical>above|below)"
    r"|(?P<compass>north(?:[- ]?(?:east|west))?|south(?:[- ]?(?:east|west))?|east|west) of) "
    r"(?P<other>the .+|a .+|an .+)$"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is settled among all that the tiles found.

    Attributes:
        kind: ``"region"`` (lies in a part of the scene), ``"most"`` (the one furthest in a direction), ``"size"`` (by
            area), ``"nearest"``, ``"farthest"``, ``"within"``, ``"beyond"`` (distance to other things) or ``"side"``
            (on one side of other things).
        box: Of a region, in shares of the scene's width and height; ``None`` where the region is one of the compass.
        direction: ``(x, y)`` in pixels, y down, or on the compass, where ``of_compass``.
        of_compass: Whether ``direction`` is one on the map rather than in the picture.
        rank: Of a size: 1 is the largest, 2 the second largest, -1 the smallest.
        number: How many are chosen.
        length: Of ``within`` and ``beyond``, in metres, or in pixels where ``in_pixels``.
        in_pixels: Whether ``length`` counts pixels.
        other: The question that finds the other things.
    """

    kind: str
    box: tuple[float, float, float, float] | None = None
    direction: tuple[float, float] = (0.0, 0.0)
    of_compass: bool = False
    rank: int = 1
    number: int = 1
    length: float = 0.0
    in_pixels: bool = False
    other: str = ""


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """How a scene goes about a question.

    Attributes:
        text: As asked.
        mode: ``"tile"`` (each tile answers for itself), ``"settle"`` (tiles find candidates, geometry chooses among
            them) or ``"whole"`` (the scene at reduced size is asked).
        reason: Why, in a sentence for the user.
        local: What tiles are asked: the question itself, or the one that finds candidates.
        conditions: What is settled, in this order.
    """

    text: str
    mode: str
    reason: str
    local: str
    conditions: tuple[Condition, ...] = field(default=())

    @property
    def asked_of_tiles(self) -> tuple[str, ...]:
        """Every question that tiles are asked for this one; none where the whole scene is asked."""
        if self.mode == "whole":
            return ()
        return tuple(dict.fromkeys([self.local, *(each.other for each in self.conditions if each.other)]))

    @property
    def is_count(self) -> bool:
        """Whether it asks for a number: that of the regions found answers it."""
        return self.text.lower().lstrip().startswith("how many")


def understand(text: str, mode: str = "auto") -> SceneQuestion:
    """Decides how a scene goes about a question.

    Args:
        text: A question or expression in English.
        mode: ``"auto"`` decides; ``"tile"`` and ``"whole"`` are taken as they are.

    Example:
        >>> question = understand("the largest building in the left half of the image")
        >>> question.mode, question.local, [condition.kind for condition in question.conditions]
        ('settle', 'the buildings', ['region', 'size'])
    """
    if mode == "tile":
        return SceneQuestion(text, "tile", "asked tile by tile, as told", text)
    if mode == "whole":
        return SceneQuestion(text, "whole", "asked of the whole scene at reduced size, as told", text)
    phrase = _bare(text)
    noun, conditions = _taken_apart(phrase)
    # What is left may itself depend on the whole, or be no thing at all: then the grammar has not understood.
    if conditions and not _WHOLE_WORDS.search(noun) and not noun.startswith("of "):
        local = _all_of(noun)
        what = " and ".join(_in_words(condition) for condition in conditions)
        return SceneQuestion(
            text, "settle", f"tiles look for {local!r}; {what} is settled on the whole scene", local, conditions
        )
    if found := _WHOLE_WORDS.search(phrase):
        reason = f"{found.group()!r} depends on the whole scene, which is asked at reduced size: small things are lost"
        return SceneQuestion(text, "whole", reason, text)
    alone = SceneQuestion(text, "tile", "nothing in it depends on more than a tile shows", text)
    return replace(alone, local=_all_of(noun)) if alone.is_count else alone


def _bare(text: str) -> str:
    """Takes off what only makes a sentence of it: of "Where is the ship?" the ship is left."""
    phrase = _OPENING.sub("", " ".join(text.lower().split()).strip(" .?!"), count=1)
    if match := _WHICH.match(phrase):
        if superlative := _SUPERLATIVE.match(match["rest"]):
            return f"{superlative['which']} {match['noun']}"
        return f"{match['noun']} {match['rest']}"
    if match := _HOW_MANY.match(phrase):
        return match["noun"]
    return phrase


def _taken_apart(phrase: str) -> tuple[str, tuple[Condition, ...]]:
    """Returns what tiles look for, and what is left to settle; no condition where the grammar finds none."""
    noun = _without_article(phrase)
    if match := _RANK.match(noun):
        inner, conditions = _taken_apart(match["noun"])
        number = _number(match["number"])
        rank = SIZES[match["size"]] * ORDINALS.get(match["ordinal"] or "first", 1)
        return inner, (*conditions, Condition("size", rank=rank, number=number))
    if match := _MOST.match(noun):
        inner, conditions = _taken_apart(match["noun"])
        direction, of_compass = _direction(match["way"])
        return inner, (*conditions, Condition("most", direction=direction, of_compass=of_compass))
    for pattern in _NEAREST:
        if match := pattern.match(noun):
            inner, conditions = _taken_apart(match["noun"])
            kind = "nearest" if match["word"] in ("nearest", "closest") else "farthest"
            return inner, (*conditions, Condition(kind, other=_other(match["other"])))
    if match := _WITHIN.match(noun):
        inner, conditions = _taken_apart(match["noun"])
        kind = "within" if match["word"] in ("within", "closer than", "less than") else "beyond"
        unit = match["unit"]
        length = float(match["length"]) * (1000 if unit.startswith("k") else 1)
        other = _other(match["other"])
        return inner, (*conditions, Condition(kind, length=length, in_pixels=unit.startswith("p"), other=other))
    if match := _REGION.match(noun):
        inner, conditions = _taken_apart(match["noun"])
        return inner, (*conditions, _region(match["corner"], match["half"]))
    if match := _SIDE.match(noun):
        inner, conditions = _taken_apart(match["noun"])
        side = match["side"] or match["vertical"]
        direction = SIDES[side] if side else COMPASS[_compass_name(match["compass"])]
        other = _other(match["other"])
        return inner, (*conditions, Condition("side", direction=direction, of_compass=side is None, other=other))
    return noun, ()


def _region(corner: str | None, half: str | None) -> Condition:
    if corner is None and half is None:
        return Condition("region", box=(0.25, 0.25, 0.75, 0.75))
    way = corner or half or ""
    if any(word in way for word in ("north", "south", "east", "west")):
        return Condition("region", direction=COMPASS[_compass_name(way)], of_compass=True)
    x = (0.0, 0.5) if "left" in way else (0.5, 1.0) if "right" in way else (0.0, 1.0)
    y = (
        (0.0, 0.5)
        if way.split()[0] in ("upper", "top")
        else (0.5, 1.0)
        if way.split()[0] in ("lower", "bottom")
        else (0.0, 1.0)
    )
    return Condition("region", box=(x[0], y[0], x[1], y[1]))


def _direction(way: str) -> tuple[tuple[float, float], bool]:
    if way in FRAME_DIRECTIONS:
        return FRAME_DIRECTIONS[way], False
    return COMPASS[_compass_name(way)], True


def _compass_name(way: str) -> str:
    return way.replace("ern", "").replace("-", "").replace(" ", "")


def _other(phrase: str) -> str:
    return f"the {_without_article(phrase)}"


def _number(word: str | None) -> int:
    return 1 if word is None else NUMBERS.get(word) or max(int(word), 1)


def _without_article(phrase: str) -> str:
    return re.sub(r"^(?:all of the|all the|all|every|each|the|a|an) ", "", phrase.strip())


def _all_of(noun: str) -> str:
    """Asks for all things of a kind: "building" becomes "the buildings"; what follows a preposition stays as it is."""
    head, space, tail = noun, "", ""
    if match := re.match(
        r"^(.+?)( (?:with|of|that|which|in|on|at|near|next|beside|along|under|over|made|and|or|without|having) .*)$",
        noun,
    ):
        head, space, tail = match[1], "", match[2]
    return f"the {_plural(head)}{space}{tail}"


def _plural(noun: str) -> str:
    word = noun.split()[-1] if noun else ""
    if word.endswith("s") or word in _MASS:
        return noun
    if re.search(r"[^aeiou]y$", word):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(ch|sh|x|z)$", word) else "s")


_MASS = frozenset(
    {"grass", "water", "vegetation", "forest", "lawn", "land", "sand", "soil", "snow", "sea", "river", "coast"}
)


def _in_words(condition: Condition) -> str:
    return {
        "region": "which of them lie in that part",
        "most": "which of them lies furthest that way",
        "size": "which of them is that by size",
        "nearest": f"which of them is nearest to {condition.other!r}",
        "farthest": f"which of them is farthest from {condition.other!r}",
        "within": f"which of them are that near to {condition.other!r}",
        "beyond": f"which of them are that far from {condition.other!r}",
        "side": f"which of them lie on that side of {condition.other!r}",
    }[condition.kind]
