"""Prompt templates. The only place with prompt text; a template belongs to the weights trained with it."""

from __future__ import annotations

from dataclasses import dataclass

from segearth.errors import UnknownNameError
from segearth.structures import Task


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed pieces around the image, the question and the answer.

    A prompt is: ``before_image`` · image tokens · ``before_description[task]`` · ``description`` with the question ·
    ``[SEG]`` · ``before_answer`` · answer · ``after_answer``. Only description and ``[SEG]`` are pooled to the query,
    and what follows them cannot change the mask.

    Attributes:
        before_image: Text before the image.
        before_description: Text between image and description, by task.
        description: Format of the description; ``{question}`` stands for the question.
        before_answer: Text between ``[SEG]`` and the answer.
        after_answer: Text after the answer; the end-of-text token follows.
    """

    before_image: str
    before_description: dict[Task, str]
    description: str = " {question}"
    before_answer: str = ""
    after_answer: str = ""


TEMPLATES: dict[str, PromptTemplate] = {
    # Short: every token of a fixed sentence costs time and tells nothing.
    "plain": PromptTemplate(
        before_image="",
        before_description={"referring": "refer:", "reasoning": "reason:"},
    ),
}


def get_template(name: str) -> PromptTemplate:
    """Returns a template by name.

    Raises:
        UnknownNameError: No such template.
    """
    if name not in TEMPLATES:
        raise UnknownNameError("prompt template", name, TEMPLATES)
    return TEMPLATES[name]
