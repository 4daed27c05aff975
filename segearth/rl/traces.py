"""Reasoning traces to learn writing from, made from annotations: where to look, what is there, which it is.

RSGround-R1 (arXiv 2601.21634) begins with such traces, which name places. How they are made is not public: what stands
here is a reconstruction. A trace is a template that is filled with facts, so nothing in it is guessed, and each is
checked as it is written: the boxes of its answer are those of the target, and every box quoted on the way is one of an
annotated thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage
from segearth.errors import ConfigError, TraceError
from segearth.prompting.answers import Instance, parse_answer
from segearth.prompting.templates import AnswerTemplate
from segearth.structures import Boxes, Question, Region, Regions, connected_regions

THOUGHTS = ("full", "cells")
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
MOST_LISTED = 12  # candidates or chosen things; a longer list teaches counting and fills the answer
QUOTED = re.compile(r"\[(-?[\d.]+), (-?[\d.]+), (-?[\d.]+), (-?[\d.]+)\]")
# What of a question tells the chosen things from others of their class, by the kinds of the question builder.
DECIDES = {
    "attribute": "what it is made of", "position": "its place", "size": "its size", "neighbour": "what is beside it",
    "count": "which are counted", "reasoning": "what serves the need",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    """An annotated thing as a trace tells of it.

    Attributes:
        name: Its class; empty where it is not known.
        instance: Its box, and two points inside of it, in pixels of the image.
    """

    name: str
    instance: Instance


@dataclass(frozen=True, slots=True)
class Trace:
    """What is said about one question, before it is written in the form of a template.

    Attributes:
        question: As asked.
        size: ``(H, W)`` of the image.
        chosen: What answers the question; empty: nothing of the kind is there.
        candidates: Everything of the chosen things' classes, themselves included.
        decides: What tells the chosen ones from the others, in words; empty where all are meant.
    """

    question: str
    size: tuple[int, int]
    chosen: tuple[Thing, ...]
    candidates: tuple[Thing, ...]
    decides: str = ""


def grid_cell(box: Sequence[float], height: int, width: int) -> str:
    """Names the cell, of three rows by three columns, in which the centre of a box lies.

    Example:
        >>> grid_cell((60, 0, 90, 30), 90, 90), grid_cell((30, 30, 60, 60), 90, 90)
        ('upper right', 'middle centre')
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row, column = (min(max(int(3 * share), 0), 2) for share in (y / height, x / width))
    return f"{ROWS[row]} {COLUMNS[column]}"


def trace_of(question: Question, size: tuple[int, int], annotated: AnnotatedImage | None = None) -> Trace:
    """Gathers what a trace says about a question.

    Args:
        question: With a target of regions or boxes.
        size: ``(H, W)`` of its image.
        annotated: What is in the image; ``None``: the target is all that is known, so it is the only candidate.

    Raises:
        TraceError: The target is of another kind, its things cannot be told, or they are too many to list.
    """
    target = question.target
    if isinstance(target, Boxes):
        if any(len(values) != 4 for values in target.values):
            raise TraceError(f"question {question.text!r} has rotated boxes, of which no trace is made; leave it out")
        chosen = [Thing("", Instance(box=(x0, y0, x1, y1))) for x0, y0, x1, y1 in target.values]
        candidates, decides = chosen, ""
    elif not isinstance(target, Regions):
        raise TraceError(f"question {question.text!r} has no regions or boxes; traces are of questions that have")
    elif annotated is None:
        regions = connected_regions(target.mask) if target.regions is None else target.regions
        candidates = chosen = [Thing("", _instance(region)) for region in regions]
        decides = ""
    else:
        chosen, candidates = _told_apart(question, target, annotated)
        decides = DECIDES.get(question.kind, "") if len(candidates) > len(chosen) else ""
    if max(len(chosen), len(candidates)) > MOST_LISTED:
        raise TraceError(f"question {question.text!r} has {len(candidates)} candidates, more than {MOST_LISTED}")
    return Trace(question.text, size, tuple(chosen), tuple(candidates), decides)


def written(trace: Trace, template: AnswerTemplate, thought: str = "full") -> str:
    """Writes a trace as the perfect answer in the form of a template, and checks it.

    Args:
        trace: From :func:`trace_of`.
        template: Asks for boxes.
        thought: ``"full"``, or ``"cells"``: the grid cells alone, which models of a few layers can learn to write.

    Raises:
        TraceError: What was written is not what the trace says.
        DatasetError: The template has no place for something.
        ConfigError: There is no such thought.
    """
    if thought not in THOUGHTS:
        raise ConfigError(f"thought is {thought!r}; give one of {', '.join(THOUGHTS)}")
    words = "" if "think" not in template.tags else _cells(trace) if thought == "cells" else _full(trace, template)
    instances = [_for_template(thing, template, trace.size) for thing in trace.chosen]
    labels = ", ".join(dict.fromkeys(thing.name for thing in trace.chosen if thing.name)) or trace.question
    answer = template.write(instances, words, labels if template.words else "")
    check(answer, trace, template)
    return answer


def check(answer: str, trace: Trace, template: AnswerTemplate) -> None:
    """Checks a written trace against what it was made of.

    Raises:
        TraceError: It cannot be read, a box of its answer is not one of the target (or one of those is missing), or it
            quotes a box that no candidate has.
    """
    read = parse_answer(answer, template)
    if read.problems or read.instances is None:
        raise TraceError(f"the trace of {trace.question!r} cannot be read: {', '.join(read.problems) or 'no list'}")
    right = sorted(_quoted(thing, template, trace.size) for thing in trace.chosen)
    given = sorted(tuple(float(value) for value in each.box or ()) for each in read.instances)
    if right != given:
        raise TraceError(f"the trace of {trace.question!r} ends with {given}, but the target is {right}")
    known = {_quoted(thing, template, trace.size) for thing in trace.candidates}
    for quoted in QUOTED.findall(read.thought or ""):
        if tuple(map(float, quoted)) not in known:
            raise TraceError(f"the trace of {trace.question!r} quotes the box {quoted}, which nothing in the image has")


def _full(trace: Trace, template: AnswerTemplate) -> str:
    if not trace.chosen:
        return "I look at every part of the image. Nothing of the kind is there."
    by_name: dict[str, list[Thing]] = {}
    for thing in trace.candidates:
        by_name.setdefault(thing.name, []).append(thing)
    listed = [
        f"{name[:1].upper() + name[1:] or 'Candidates'}: {_boxes(things, template, trace.size)}."
        for name, things in by_name.items()
    ]
    left = _boxes(trace.chosen, template, trace.size)
    choice = f"{trace.decides[:1].upper() + trace.decides[1:]} decides: {left}." if trace.decides else ""
    return " ".join([f"I look at the {_cells(trace)}.", *listed, choice]).strip()


def _cells(trace: Trace) -> str:
    boxes = [thing.instance.box for thing in trace.chosen if thing.instance.box is not None]
    return ", ".join(dict.fromkeys(grid_cell(box, *trace.size) for box in boxes)) or "nowhere"


def _boxes(things: Sequence[Thing], template: AnswerTemplate, size: tuple[int, int]) -> str:
    decimals = template.frame.decimals
    rows = [_quoted(thing, template, size) for thing in things]
    return ", ".join(f"[{', '.join(f'{value:.{decimals}f}' for value in row)}]" for row in rows)


def _quoted(thing: Thing, template: AnswerTemplate, size: tuple[int, int]) -> tuple[float, ...]:
    """A thing's box as it is written: in the frame, rounded."""
    box = template.frame.from_pixels(thing.instance, *size).box or ()
    return tuple(float(round(value, template.frame.decimals)) for value in box)


def _for_template(thing: Thing, template: AnswerTemplate, size: tuple[int, int]) -> Instance:
    """The parts of a thing that a template has a place for, in its frame."""
    if template.box_key is None or template.rotated_key or template.negative_key:
        raise TraceError(f"answers of {template.id} are not upright boxes, of which traces are made")
    whole = thing.instance
    if template.positive_key is None:
        whole = Instance(box=whole.box)
    elif not whole.points:
        raise TraceError(f"{template.id} asks for points, which a target of boxes has none of; give regions")
    framed = template.frame.from_pixels(whole, *size)
    label = (thing.name or "target") if template.label_key else None
    return Instance(box=framed.box, points=framed.points, point_labels=framed.point_labels, label=label)


def _told_apart(question: Question, target: Regions, annotated: AnnotatedImage) -> tuple[list[Thing], list[Thing]]:
    """Finds which annotated things a target is made of, and everything else of their classes."""
    chosen, covered = [], np.zeros_like(target.mask, bool)
    for item in annotated.objects:
        x0, y0, x1, y1 = item.box
        if item.area and target.mask[y0:y1, x0:x1][item.mask].all():
            chosen.append(item)
            covered[y0:y1, x0:x1] |= item.mask
    if not np.array_equal(covered, target.mask.astype(bool)):
        raise TraceError(f"the target of {question.text!r} is not made of annotated things, such as a half of a field")
    classes = {item.category for item in chosen}
    of_them = [item for item in annotated.objects if item.category in classes and item.area]
    told = {id(item): Thing(item.category, _instance(Region(item.mask, *item.box[:2]))) for item in of_them}
    return [told[id(item)] for item in chosen], list(told.values())


def _instance(region: Region) -> Instance:
    """Box and two points of a region: its deepest pixel, and the pixel inside that is farthest from that."""
    import cv2

    whole = Region.cut_from(region.mask)  # a bitmap may have empty borders
    x0, y0 = region.x0 + whole.x0, region.y0 + whole.y0
    depth = cv2.distanceTransform(np.pad(whole.mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    rows, columns = np.nonzero(depth >= min(2.0, float(depth.max())))  # not on the edge, where there is a choice
    far = int(((rows - y) ** 2 + (columns - x) ** 2).argmax())
    points = ((x0 + x + 0.5, y0 + y + 0.5), (x0 + columns[far] + 0.5, y0 + rows[far] + 0.5))
    height, width = whole.mask.shape
    box = (float(x0), float(y0), float(x0 + width), float(y0 + height))
    return Instance(box=box, points=tuple((float(px), float(py)) for px, py in points), point_labels=(1, 1))
