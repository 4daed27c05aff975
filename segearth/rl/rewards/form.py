"""Whether an answer has the form that was asked for; each 0 or 1."""

from __future__ import annotations

from segearth.prompting.answers import ParsedAnswer


def json_form(answer: ParsedAnswer) -> float:
    """Returns 1 where the list of things is written exactly as the template asks, or it asks for none; else 0."""
    return float(answer.json_is_right)


def tags_form(answer: ParsedAnswer) -> float:
    """Returns 1 where the thinking and answer tags are those of the template, in their order, else 0."""
    return float(answer.tags_are_right)


def whole_form(answer: ParsedAnswer) -> float:
    """Returns 1 where both the tags and the list of things, where one is asked for, are right; else 0."""
    return float(answer.tags_are_right and answer.json_is_right)
