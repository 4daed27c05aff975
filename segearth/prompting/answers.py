"""What a vision-language model wrote, taken apart: its thought, and the things it points at.

A point is ``(x, y)`` and a box ``(x0, y0, x1, y1)``, in whatever coordinate frame the model was asked to answer in;
:mod:`segearth.prompting.frames` brings them to the pixels of an image.

:func:`parse_answer` is the one reader: rewards, evaluation and use call it alike. It takes whatever can be understood
and says beside it whether the form was right, so that a reward can pay for form and no score depends on which of two
parsers was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segearth.prompting.coordinates import (
    Notes,
    is_container,
    read_box,
    read_label,
    read_points,
    read_rotated_box,
    shown,
)  # fmt: skip
from segearth.prompting.relaxed_json import read_strictly, read_values

if TYPE_CHECKING:
    from segearth.prompting.templates import AnswerTemplate

MOST_INSTANCES = 1000  # an image has fewer things that one would list; a segmenter is asked once for each

FENCE, FENCED_LANGUAGE = "```", "json"
NOTHING = "none"  # how an answer of corners says that nothing is there
TAG = re.compile(r"<\s{0,3}(/?)\s{0,3}(think|answer)\s{0,3}>", re.IGNORECASE)
_NUMBER = r"\s{0,3}([-+]?\d{1,20}(?:\.\d{1,20})?)\s{0,3}"
# Two corners as Qwen-VL writes them: (10,20),(30,40).
CORNERS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s{{0,3}},?\s{{0,3}}\({_NUMBER},{_NUMBER}\)")
OTHER_BOX_KEYS = ("bbox", "box")  # how models call a box that were asked for another key


@dataclass(frozen=True, slots=True)
class Instance:
    """One thing that an answer points at; at least one of ``box``, ``rotated_box`` and ``points`` is there.

    Attributes:
        box: ``(x0, y0, x1, y1)`` with ``x0 <= x1`` and ``y0 <= y1``; every value is finite.
        rotated_box: ``(x, y, width, height, degrees)``: centre, sides, and by how much it is turned clockwise.
        points: Points inside the thing, or outside of it where ``point_labels`` says so.
        point_labels: For each point 1 where it lies inside the thing, 0 where it lies outside.
        label: What the thing is called, where the answer says so.
    """

    box: tuple[float, float, float, float] | None = None
    rotated_box: tuple[float, float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A completion, taken apart. Reading never fails: what cannot be read is said in ``problems``.

    Attributes:
        text: The completion as the model wrote it.
        thought: What stands between the thinking tags; ``None`` where there are none.
        answer: What stands between the answer tags, or all that follows the thought where there are none.
        instances: The things it points at; an empty tuple says that nothing of the kind is there. ``None``: what should
            list them cannot be read as such a list, or the template asks for none.
        tags_are_right: Whether the completion has exactly the tags that its template asks for, in their order.
        json_is_right: Whether the list of things is written exactly as the template asks; ``True`` where it asks for
            none.
        problems: What was mended or left out, one short text each; empty for an answer in perfect form.
    """

    text: str
    thought: str | None
    answer: str
    instances: tuple[Instance, ...] | None
    tags_are_right: bool
    json_is_right: bool
    problems: tuple[str, ...] = ()


def parse_answer(text: str, template: AnswerTemplate) -> ParsedAnswer:
    """Takes a completion apart. Never fails, whatever the text is, and needs time in proportion to its length.

    How it is read, and noted in ``problems``, where the form is not what the template asks:

    ====================  ==============================================================================================
    repeated tags         the last complete pair counts, since a model that corrects itself does so later
    missing tags          what follows the thought is the answer; a thought that never ends has none
    missing fence         lists and objects are found wherever they stand; of several lists the last counts
    broken JSON           see :mod:`segearth.prompting.relaxed_json`; a number at the very end may be cut off: left out
    another structure     one object, bare boxes, nested lists and lists inside of objects are taken for what they mean
    reversed box          its corners are exchanged
    numbers as texts      ``"12"`` is 12
    huge numbers          cut at ±1e9
    no number             what needs it is left out: NaN, infinity, ``"left"``, ``true``
    too much              only the first 1000 things and the first 64 points of each are read
    ====================  ==============================================================================================

    A list with something in it of which nothing can be read is no empty list: ``instances`` is ``None``. So is that of
    a list that was begun and never written.

    Args:
        text: As the model wrote it.
        template: What it was asked for.
    """
    notes = Notes()
    thought, answer, tags_are_right = _split(text, template, notes)
    instances: tuple[Instance, ...] | None = None
    json_is_right = True
    if template.form == "json":
        instances, json_is_right = _read_json(answer, template, notes)
    elif template.form == "corners":
        instances, json_is_right = _read_corners(answer, template, notes)
    return ParsedAnswer(text, thought, answer, instances, tags_are_right, json_is_right, notes.as_tuple())


def words_of(answer: str) -> str:
    """Returns an answer without its fenced lists: the description, where a template asks for both.

    Args:
        answer: As in :class:`ParsedAnswer`.
    """
    return " ".join(part.strip() for part in answer.split(FENCE)[::2]).strip()


def _split(text: str, template: AnswerTemplate, notes: Notes) -> tuple[str | None, str, bool]:
    """Returns thought, answer, and whether the tags are right."""
    tags = list(TAG.finditer(text))
    kinds = [tag[1] + tag[2].lower() for tag in tags]
    think_end = _last(tags, kinds, "/think")
    answer_begin, answer_end = _answer_span(tags, kinds)
    thought = None
    if "think" in kinds:
        begin = tags[kinds.index("think")].end()
        # The first tag after it that can end a thought: its own, or the answer's where its own was forgotten.
        ends = [tag.start() for tag, kind in zip(tags, kinds, strict=True) if kind != "think" and tag.start() >= begin]
        thought = text[begin : ends[0] if ends else len(text)].strip()
    elif think_end is not None:  # some chat templates write the opening tag themselves
        thought = text[: think_end.start()].strip()
    if answer_begin is None:
        if think_end is not None:
            answer_begin = think_end.end()
        else:
            answer_begin = len(text) if "think" in kinds and answer_end is None else 0
    answer = text[answer_begin:answer_end].strip()
    right = _tags_are_right(text, tags, template.tags)
    if not right:
        wanted = "".join(f"<{tag}></{tag}>" for tag in template.tags) or "no tags"
        notes.add(f"the tags are not {wanted} with nothing around them")
    return thought, answer, right


def _answer_span(tags: list[re.Match[str]], kinds: list[str]) -> tuple[int | None, int | None]:
    """Returns where the answer begins and ends; ``None`` where no tag says so."""
    pairs, begin = [], None
    for tag, kind in zip(tags, kinds, strict=True):
        if kind == "answer":
            begin = tag.end()
        elif kind == "/answer" and begin is not None:
            pairs.append((begin, tag.start()))
            begin = None
    if pairs:
        return pairs[-1]
    if begin is not None:  # never closed
        return begin, None
    closing = _last(tags, kinds, "/answer")
    return None, None if closing is None else closing.start()


def _last(tags: list[re.Match[str]], kinds: list[str], kind: str) -> re.Match[str] | None:
    return next((tag for tag, own in zip(reversed(tags), reversed(kinds), strict=True) if own == kind), None)


def _tags_are_right(text: str, tags: list[re.Match[str]], wanted: tuple[str, ...]) -> bool:
    expected = [written for tag in wanted for written in (f"<{tag}>", f"</{tag}>")]
    if [tag[0] for tag in tags] != expected:
        return False
    if not tags:
        return True
    # Before the first tag, between a closing and the next opening one, and after the last there is only white space.
    borders = [0, *(place for tag in tags for place in tag.span()), len(text)]
    return not any(text[borders[i] : borders[i + 1]].strip() for i in range(0, len(borders), 4))


def _read_json(answer: str, template: AnswerTemplate, notes: Notes) -> tuple[tuple[Instance, ...] | None, bool]:
    before = notes.count
    payload = _payload(answer, template, notes)
    try:
        values, ends = [read_strictly(payload)], True
    except ValueError as error:
        found = read_values(payload)
        values, ends = found.values, found.ends
        notes.add(f"no valid JSON, mended: {error}"[:200] if values else "no list of things")
        for problem in found.problems:
            notes.add(problem)
    instances = _instances(values, ends, template, notes) if values else None
    if instances is None and (corners := list(CORNERS.finditer(answer))):
        notes.add("boxes (x0,y0),(x1,y1) in place of a JSON list")
        instances = _of_corners(corners, notes)
    return instances, notes.count == before


def _payload(answer: str, template: AnswerTemplate, notes: Notes) -> str:
    """Returns what should be the JSON list: the content of the last fence that can hold one, or the whole answer."""
    parts = answer.split(FENCE)
    fenced = [part for part in parts[1::2] if "[" in part or "{" in part]
    if template.fenced:
        if len(parts) != 3 or not parts[1].startswith(FENCED_LANGUAGE) or parts[2].strip():
            notes.add(f"the list does not stand in one fence {FENCE}{FENCED_LANGUAGE} … {FENCE} at the end")
        elif parts[0].strip() and not template.words:
            notes.add("there is more in the answer than the list")
    elif fenced:
        notes.add("the list stands in a fence")
    if not fenced:
        return answer
    inside = fenced[-1].lstrip()
    return inside[len(FENCED_LANGUAGE) :] if inside[: len(FENCED_LANGUAGE)].lower() == FENCED_LANGUAGE else inside


def _read_corners(answer: str, template: AnswerTemplate, notes: Notes) -> tuple[tuple[Instance, ...] | None, bool]:
    before = notes.count
    if answer == NOTHING:
        return (), True
    corners = list(CORNERS.finditer(answer))
    if corners:
        if CORNERS.sub("", answer).strip(" \n,"):
            notes.add("there is more in the answer than the boxes")
        return _of_corners(corners, notes), notes.count == before
    notes.add("no boxes (x0,y0),(x1,y1)")
    if answer.lower().strip(" .") == NOTHING:
        return (), False
    found = read_values(answer)
    return _instances(found.values, found.ends, template, notes) if found.values else None, False


def _of_corners(corners: list[re.Match[str]], notes: Notes) -> tuple[Instance, ...] | None:
    if len(corners) > MOST_INSTANCES:
        notes.add(f"{len(corners)} boxes: those after the first {MOST_INSTANCES} are left out")
    boxes = [
        read_box([float(number) for number in match.groups()], f"thing {count}", notes)
        for count, match in enumerate(corners[:MOST_INSTANCES], 1)
    ]
    return tuple(Instance(box=box) for box in boxes if box is not None) or None


def _instances(values: list[Any], ends: bool, template: AnswerTemplate, notes: Notes) -> tuple[Instance, ...] | None:
    """Returns the things that the values found in an answer are meant as; ``None`` if they say nothing.

    Args:
        values: What was found, at least one.
        ends: Whether the last of it is closed.
        template: What was asked for.
        notes: Where problems go.
    """
    lists = [value for value in values if isinstance(value, list) and (not value or any(map(is_container, value)))]
    if lists:
        things = lists[-1]
        if len(values) > 1:
            notes.add(f"{len(values)} lists or objects: the last list counts")
        if not things and (ends or things is not values[-1]):
            return ()
    else:
        things = [value for value in values if isinstance(value, dict) or _is_bare_box(value)]
        notes.add("things that stand in no list" if things else "no list of things")
    instances = []
    for count, thing in enumerate(_things(things, template, notes), 1):
        if count > MOST_INSTANCES:
            notes.add(f"more than {MOST_INSTANCES} things: the rest is left out")
            break
        instance = _instance(thing, template, f"thing {count}", notes)
        if instance is not None:
            instances.append(instance)
    return tuple(instances) or None


def _things(things: list[Any], template: AnswerTemplate, notes: Notes) -> Iterator[dict[str, Any]]:
    """Yields the objects of a list, however nested. Keeps its place itself: nesting may be too deep for Python."""
    keys = _place_keys(template)
    open_lists = [iter(things)]
    while open_lists:
        for thing in open_lists[-1]:
            if isinstance(thing, dict) and (
                any(key in thing for key in keys) or not any(map(is_container, thing.values()))
            ):
                yield thing
            elif _is_bare_box(thing):
                notes.add("a bare list of numbers in place of an object")
                key = template.rotated_key if len(thing) == 5 else template.box_key
                yield {key or OTHER_BOX_KEYS[0]: thing}
            elif is_container(thing):
                notes.add("a list or object around things")
                open_lists.append(iter(thing.values() if isinstance(thing, dict) else thing))
                break
            else:
                notes.add(f"{shown(thing)} in place of an object: left out")
        else:
            open_lists.pop()


def _is_bare_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (4, 5) and not any(map(is_container, value))


def _place_keys(template: AnswerTemplate) -> tuple[str, ...]:
    keys = (template.box_key, template.rotated_key, template.positive_key, template.negative_key)
    return (*filter(None, keys), *OTHER_BOX_KEYS)


def _instance(thing: dict[str, Any], template: AnswerTemplate, where: str, notes: Notes) -> Instance | None:
    """Returns one thing; ``None`` if nothing in it says where it is."""
    for key in template.keys:
        if key not in thing:
            notes.add(f"{where} has no {key}")
    box_key = next((key for key in (template.box_key, *OTHER_BOX_KEYS) if key in thing), None)
    box = None if box_key is None else read_box(thing[box_key], where, notes)
    rotated = None
    if template.rotated_key in thing:
        rotated = read_rotated_box(thing[template.rotated_key], where, notes)
    positive, negative = (
        read_points(thing[key], where, notes) if key in thing else ()
        for key in (template.positive_key, template.negative_key)
    )
    label = read_label(thing.get(template.label_key or "label"), where, notes)
    if box is None and rotated is None and not positive:
        notes.add(f"{where} says nowhere where it is: left out")
        return None
    return Instance(box, rotated, positive + negative, (1,) * len(positive) + (0,) * len(negative), label)
