"""Prompt templates: all text that is put around a question.

A model answers well only with the template that it was trained with, so the template's name is stored with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from segearth.errors import UnknownNameError
from segearth.structures import Task

ANSWER = "{answer}"


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed pieces of text around the image, the question and the answer. Each piece is tokenized by itself.

    A prompt is: ``before_image`` · image tokens · ``before_description[task]`` · ``description`` with the question ·
    ``[SEG]`` · ``before_reply`` · ``reply[task]`` · end of text. The mask's query is the average over description and
    ``[SEG]``, so what follows them cannot change the mask.

    Attributes:
        before_image: Text before the image.
        before_description: Text between image and description, by task.
        description: Format of the description; ``{question}`` stands for the question.
        before_reply: Text between ``[SEG]`` and the reply.
        reply: What the model is taught to say, by task; the piece ``"{answer}"`` stands for the answer.
        seg_after_answer: Whether ``[SEG]`` also ends the answer.
    """

    before_image: str
    before_description: dict[Task, str]
    description: str = " {question}"
    before_reply: str = ""
    reply: dict[Task, tuple[str, ...]] = field(default_factory=lambda: {"referring": (ANSWER,), "reasoning": (ANSWER,)})
    seg_after_answer: bool = False

    def opening(self, task: Task) -> tuple[str, ...]:
        """Returns the reply's pieces before the answer, or none if the reply holds no answer."""
        pieces = self.reply[task]
        return pieces[: pieces.index(ANSWER)] if ANSWER in pieces else ()


TEMPLATES: dict[str, PromptTemplate] = {
    # As short as possible, since every token of a fixed sentence takes time and carries no information.
    "plain": PromptTemplate(
        before_image="",
        before_description={"referring": "refer:", "reasoning": "reason:"},
    ),
    # The prompt that the published SegEarth-R1 (arXiv 2504.09644) was trained with, including its spaces and mistakes.
    # Where its conversation has `<seg>`, its tokenization inserts nothing, so that "It is ." remains.
    "segearth_r1": PromptTemplate(
        before_image=(
            "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
            "content that the user provides, and assist the user with a variety of tasks using natural language.\n"
            "<</SYS>>\n\nThis is an image "
        ),
        before_description={
            "referring": ", Please doing Referring Segmentation according to the following instruction:\n",
            "reasoning": ", Please doing Reasoning Segmentation according to the following instruction:\n",
        },
        before_reply=" [/INST]",
        reply={
            "referring": (" \nSure. It is ", ".  "),
            "reasoning": (" Sure, It is ", ". \n", ANSWER, ". "),
        },
        seg_after_answer=True,
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
