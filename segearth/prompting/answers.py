"""What a vision-language model wrote, taken apart: its thought, and the things it points at.

A point is ``(x, y)`` and a box ``(x0, y0, x1, y1)``, in whatever coordinate frame the model was asked to answer in;
:mod:`segearth.prompting.frames` brings them to the pixels of an image.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        answer: What stands between the answer tags, or the whole completion where there are none.
        instances: The things it points at; an empty tuple says that nothing of the kind is there. ``None``: what should
            list them cannot be read as such a list, or the template asks for none.
        tags_are_right: Whether the completion has exactly the tags that its template asks for, in their order.
        json_is_right: Whether the list of things is written exactly as the template asks.
        problems: What was mended or left out, one short text each; empty for an answer in perfect form.
    """

    text: str
    thought: str | None
    answer: str
    instances: tuple[Instance, ...] | None
    tags_are_right: bool
    json_is_right: bool
    problems: tuple[str, ...] = ()
