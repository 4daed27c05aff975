"""Answer templates: what a vision-language model is told to write, and what perfect writing looks like.

A template has a name and a version, such as ``think2seg@1``. A model answers well only in the form that it was trained
on, and a reward is comparable only under one form, so **a version that exists is never changed**: another wording, key
or frame gets a new version beside it.

The words are this library's own. The forms follow Think2Seg-RS (https://arxiv.org/abs/2512.19302), RSGround-R1
(https://arxiv.org/abs/2601.21634) and GeoVLM-R1 (https://arxiv.org/abs/2509.25026); of the last two no prompt is
public, so theirs are a reconstruction.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segearth.errors import ConfigError, DatasetError, QuestionError, UnknownNameError
from segearth.prompting.answers import FENCE, FENCED_LANGUAGE, NOTHING, Instance, parse_answer
from segearth.prompting.frames import IMAGE_PIXELS, THOUSANDTHS, Frame
from segearth.structures import Task
from segearth.utils.text import is_whole_text

# A "<" that could begin a tag or a special token, as in </answer>, <|im_start|>, <image> or <<SYS>>; one before a
# space, a number or "=" is a comparison. Some tokenizers turn the wide and the small form into the plain one.
TAG_BEGIN = re.compile(r"[<＜﹤](?!\s|=|\d(?!x)|\Z)")
BRACKETED = re.compile(r"[\[［](/?[A-Z][A-Z0-9_]*)[\]］]")  # special tokens such as [INST] or [SEG]


@dataclass(frozen=True)
class AnswerTemplate:
    """The form of an answer: what the model is told of it (:meth:`ask`), and a perfect one (:meth:`write`).

    What the model wrote is read by :func:`segearth.prompting.answers.parse_answer`.

    Attributes:
        name: For example ``"think2seg"``.
        version: Counts from 1.
        instruction: What the model is told; ``{question}`` stands for the question, ``{frame}`` for ``frame.words``.
        form: ``"json"``: a list of objects; ``"corners"``: boxes as ``(x0,y0),(x1,y1)``; ``"text"``: words alone.
        frame: What the coordinates count. A copy with another one is made by ``dataclasses.replace``.
        tags: The tags of a right answer in their order: ``think`` and ``answer``, ``answer`` alone, or none.
        fenced: Whether the list must stand between three backticks, the first ones followed by ``json``.
        words: Whether words come before the list.
        box_key: Key of the box; ``None``: objects have none, as for all keys that follow.
        rotated_key: Key of the rotated box.
        positive_key: Key of the points inside of the thing.
        negative_key: Key of the points outside of it.
        label_key: Key of its name.
        images: How many images a question is about.
    """

    name: str
    version: int
    instruction: str
    form: Literal["json", "corners", "text"] = "json"
    frame: Frame = IMAGE_PIXELS
    tags: tuple[str, ...] = ("think", "answer")
    fenced: bool = True
    words: bool = False
    box_key: str | None = "bbox_2d"
    rotated_key: str | None = None
    positive_key: str | None = None
    negative_key: str | None = None
    label_key: str | None = None
    images: int = 1

    def __post_init__(self) -> None:
        if "{question}" not in self.instruction:
            raise ConfigError(f"the instruction of template {self.id} has no {{question}}; put it where questions go")
        if self.tags not in ((), ("answer",), ("think", "answer")):
            raise ConfigError(f"template {self.id} has tags {self.tags}; give (), ('answer',) or ('think', 'answer')")

    @property
    def id(self) -> str:
        """Name and version, such as ``"think2seg@1"``."""
        return f"{self.name}@{self.version}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of every object, in the order in which they are written."""
        keys = (self.box_key, self.rotated_key, self.positive_key, self.negative_key, self.label_key)
        return tuple(key for key in keys if key is not None)

    def ask(self, question: str, box: Sequence[float] | None = None) -> str:
        """Returns what the model is told, with a question in it.

        Args:
            question: As a user typed it; it is put in by :func:`as_data`.
            box: ``(x0, y0, x1, y1)`` of the region that is asked about, in the template's frame; it follows the
                question, such as ``What is here? [10, 20, 30, 40]``.

        Raises:
            QuestionError: The question is empty or no text.
        """
        asked = as_data(question)
        if box is not None:
            asked += f" {self._rounded(list(box))}"
            if "{frame}" not in self.instruction:  # else the model is not told what the numbers count
                asked += f" (coordinates are {self.frame.words})"
        return self.instruction.replace("{frame}", self.frame.words).replace("{question}", asked)

    def region(self, box: Sequence[float] | None, height: int, width: int) -> Sequence[float] | None:
        """Returns the region that a question is about as :meth:`ask` takes it; ``None`` for none.

        Args:
            box: ``(x0, y0, x1, y1)`` in pixels of the image.
            height: Of the image in pixels.
            width: Of the image in pixels.

        Raises:
            ImageError: As for :meth:`segearth.prompting.frames.Frame.size_for`.
        """
        if box is None:
            return None
        x0, y0, x1, y1 = box
        return self.frame.from_pixels(Instance(box=(x0, y0, x1, y1)), height, width).box

    def write(self, instances: Sequence[Instance] | None = None, thought: str = "", text: str = "") -> str:
        """Returns the perfect answer that says this; reading it gives the same instances.

        Args:
            instances: In the template's frame; rounded to its decimals. ``None`` where the template asks for words.
            thought: What stands between the thinking tags. In it and in ``text``, what looks like a tag is changed as
                by :func:`without_tags`.
            text: The answer in words, where the template asks for them.

        Raises:
            DatasetError: The template has no place for something given, something that it asks for is missing, or what
                was written could not be read again, such as a coordinate beyond 1e9.
        """
        thought, text = without_tags(thought).strip(), without_tags(text).strip()
        if bool(text) != (self.words or self.form == "text"):
            raise DatasetError(f"template {self.id} {'takes no text; leave it out' if text else 'needs a text'}")
        if (instances is None) != (self.form == "text"):
            raise DatasetError(
                f"template {self.id} {'needs instances, () if nothing is there' if instances is None else 'takes none'}"
            )
        if thought and "think" not in self.tags:
            raise DatasetError(f"template {self.id} has no place for a thought; leave it out")
        pieces = {"think": thought, "answer": self._answer(instances, text)}
        written = "\n".join(f"<{tag}>{pieces[tag]}</{tag}>" for tag in self.tags) or pieces["answer"]
        if problems := parse_answer(written, self).problems:
            raise DatasetError(f"an answer in the form {self.id} cannot be read again: {problems[0]}; mend the input")
        return written

    def _answer(self, instances: Sequence[Instance] | None, text: str) -> str:
        if instances is None:
            return text
        objects = [self._object(instance) for instance in instances]
        if self.form == "corners":
            lines = ["({},{}),({},{})".format(*thing[self.box_key]) for thing in objects]
            return "\n".join(lines) or NOTHING
        # Inside of a JSON text these two may be written as numbers, and then no name can end a tag or a fence.
        listed = json.dumps(objects, ensure_ascii=False).replace("<", "\\u003c").replace("`", "\\u0060")
        if not self.fenced:
            return listed
        words = f"{text}\n" if text else ""
        return f"{words}{FENCE}{FENCED_LANGUAGE}\n{listed}\n{FENCE}"

    def _object(self, instance: Instance) -> dict[Any, Any]:
        points = list(zip(instance.points, instance.point_labels, strict=True))
        given = [
            ("a box", self.box_key, instance.box),
            ("a rotated box", self.rotated_key, instance.rotated_box),
            ("points inside", self.positive_key, [point for point, label in points if label]),
            ("points outside", self.negative_key, [point for point, label in points if not label]),
            ("a label", self.label_key, instance.label),
        ]
        written: dict[Any, Any] = {}
        for what, key, value in given:
            missing = value is None or value == []
            if key is None and not missing:
                raise DatasetError(f"template {self.id} has no place for {what}; leave that out of the instances")
            if key is not None and missing and key != self.negative_key:
                raise DatasetError(f"template {self.id} needs {what} for every instance; add what is missing")
            if key is not None:
                written[key] = value if isinstance(value, str) else self._rounded(value)
        return written

    def _rounded(self, value: Any) -> Any:
        if not isinstance(value, (int, float)):
            return [self._rounded(item) for item in value]
        if not math.isfinite(value):
            raise DatasetError(f"an instance has the coordinate {value}; leave it out")
        return round(value, self.frame.decimals) if self.frame.decimals else round(value)


def as_data(question: str) -> str:
    """Returns a question in a form in which no model takes it for anything but words.

    A question comes from anyone, and is put into a prompt that has tags and a tokenizer that knows special tokens. What
    looks like one is changed as by :func:`without_tags`. Line breaks and other white space become single spaces, so
    that no line of it looks like another speaker's turn.

    Args:
        question: As typed.

    Raises:
        QuestionError: It is empty, no text, or has halves of characters in it.
    """
    if not isinstance(question, str) or not question.strip():
        raise QuestionError(f"a question is {question!r}; give a text with at least one word")
    if not is_whole_text(question):
        raise QuestionError(f"the question {question!r} has halves of characters in it; decode its bytes as UTF-8")
    return without_tags(" ".join(question.split()))


def without_tags(text: str) -> str:
    """Returns a text in which nothing can be taken for a tag or a special token: ``<image>`` becomes ``‹image>``.

    What such a word says stays readable. ``[INST]`` becomes ``(INST)``; ``a < 5`` stays.
    """
    return BRACKETED.sub(r"(\1)", TAG_BEGIN.sub("‹", text))


_THINK = "First reason about it between <think> and </think>. "
_LIST = "Then write, between <answer> and </answer>, a JSON list in a ```json fence with one object for each: "
_WORDS = "Then write your answer between <answer> and </answer>"
_FRAME = "Coordinates are {frame}. "
_EMPTY = "If there is none, write the empty list []."
_GEOVLM = Frame.resized(448, 448)
_THINK2SEG = Frame.resized(840, 840)  # a multiple of 28, so Qwen2.5-VL's own resize changes nothing

# A version that exists is never changed: models were trained with it. tests/prompting/test_templates.py knows each.
_ALL = (
    AnswerTemplate(
        "think2seg", 1, "Find in this aerial image every thing that is asked for: {question}\n" + _THINK + _LIST
        + '{"bbox_2d": [x0, y0, x1, y1], "positive_points": [[x, y], [x, y]]}, its box and two points on it. '
        + _FRAME + _EMPTY,
        frame=_THINK2SEG, positive_key="positive_points",
    ),
    # The variant with points outside, which the paper found unstable in training.
    AnswerTemplate(
        "think2seg_negatives", 1, "Find in this aerial image every thing that is asked for: {question}\n" + _THINK
        + _LIST + '{"bbox_2d": [x0, y0, x1, y1], "positive_points": [[x, y], [x, y]], "negative_points": [[x, y]]}, '
        + "its box, two points on it, and points beside it, or an empty list of them. " + _FRAME + _EMPTY,
        frame=_THINK2SEG, positive_key="positive_points", negative_key="negative_points",
    ),
    AnswerTemplate(
        "rsground", 1, "Where in this aerial image is what this expression refers to? {question}\n" + _THINK
        + "Say in it whereabouts the thing is and how it lies to other things. " + _LIST
        + '{"bbox_2d": [x0, y0, x1, y1]}. ' + _FRAME + _EMPTY,
        frame=Frame.smart(),
    ),
    AnswerTemplate(
        "geovlm", 1, "Detect in this aerial image every object that is asked for: {question}\n" + _THINK + _LIST
        + '{"bbox_2d": [x0, y0, x1, y1], "label": "name"}. ' + _FRAME + _EMPTY,
        frame=_GEOVLM, label_key="label",
    ),
    AnswerTemplate(
        "geovlm_rotated", 1, "Detect in this aerial image every object that is asked for: {question}\n" + _THINK + _LIST
        + '{"rbox_2d": [x, y, width, height, degrees], "label": "name"}: the centre of a box that is turned as the '
        + "object is, its sides, and by how much it is turned clockwise. " + _FRAME + _EMPTY,
        frame=_GEOVLM, box_key=None, rotated_key="rbox_2d", label_key="label",
    ),
    AnswerTemplate(
        "geovlm_description", 1, "Describe in this aerial image what is asked for: {question}\n" + _THINK
        + "Then write, between <answer> and </answer>, the description and after it a JSON list in a ```json fence "
        + 'with one object for each thing that you describe: {"bbox_2d": [x0, y0, x1, y1], "label": "name"}. '
        + _FRAME + _EMPTY,
        frame=_GEOVLM, words=True, label_key="label",
    ),
    AnswerTemplate(
        "geovlm_classification", 1, "{question}\n" + _THINK + _WORDS + ": the name of the one class that fits.",
        form="text", frame=_GEOVLM,
    ),
    AnswerTemplate(
        "geovlm_multilabel", 1, "{question}\n" + _THINK + _WORDS
        + ": the names of all classes that are there, and of no other, with commas between them.",
        form="text", frame=_GEOVLM,
    ),
    AnswerTemplate(
        "geovlm_temporal", 1, "Two images show one place, the earlier one first. {question}\n" + _THINK + _WORDS
        + ": the name of the one class that fits.",
        form="text", frame=_GEOVLM, images=2,
    ),
    AnswerTemplate(
        "geovlm_caption", 1, "{question}\n" + _THINK + _WORDS + ": one or a few sentences.",
        form="text", frame=_GEOVLM,
    ),
    AnswerTemplate(
        "geovlm_region_caption", 1, "{question}\nCoordinates are {frame}. " + _THINK + _WORDS
        + ": one sentence about this region.",
        form="text", frame=_GEOVLM,
    ),
    AnswerTemplate(
        "geovlm_change_caption", 1, "Two images show one place, the earlier one first. {question}\n" + _THINK + _WORDS
        + ": one or a few sentences about what has changed, or that nothing has.",
        form="text", frame=_GEOVLM, images=2,
    ),
    AnswerTemplate(
        "geovlm_vqa", 1, "{question}\n" + _THINK + _WORDS + ": a word or a short phrase.",
        form="text", frame=_GEOVLM,
    ),
    # Few words to read: for models of a few layers, which learn the form from traces and not from being told.
    AnswerTemplate("brief", 1, "{question}"),
    # What the Qwen models write of themselves, for use without training: https://arxiv.org/abs/2409.12191 (Qwen2-VL),
    # https://arxiv.org/abs/2502.13923 (Qwen2.5-VL), https://github.com/QwenLM/Qwen3-VL (cookbooks, 2d_grounding).
    AnswerTemplate(
        "qwen2_vl", 1, "Find every thing that is asked for: {question}\nWrite its box as (x0,y0),(x1,y1), one box a "
        "line. " + _FRAME + "If there is none, write none.",
        form="corners", frame=THOUSANDTHS, tags=(), fenced=False,
    ),
    AnswerTemplate(
        "qwen2_5_vl", 1, "Find every thing that is asked for: {question}\nWrite a JSON list in a ```json fence with "
        'one object for each: {"bbox_2d": [x0, y0, x1, y1], "label": "name"}. ' + _FRAME + _EMPTY,
        frame=Frame.smart(), tags=(), label_key="label",
    ),
    AnswerTemplate(
        "qwen3_vl", 1, "Find every thing that is asked for: {question}\nWrite a JSON list in a ```json fence with "
        'one object for each: {"bbox_2d": [x0, y0, x1, y1], "label": "name"}. ' + _FRAME + _EMPTY,
        frame=THOUSANDTHS, tags=(), label_key="label",
    ),
)  # fmt: skip
ANSWER_TEMPLATES: dict[str, AnswerTemplate] = {template.id: template for template in _ALL}

# The tasks of GeoVLM-R1 and the templates in which they are asked.
GEOVLM_TASKS: dict[Task, str] = {
    "classification": "geovlm_classification@1", "multi_label": "geovlm_multilabel@1",
    "temporal_classification": "geovlm_temporal@1", "detection": "geovlm@1", "grounding": "geovlm@1",
    "grounding_description": "geovlm_description@1", "caption": "geovlm_caption@1",
    "region_caption": "geovlm_region_caption@1", "change_caption": "geovlm_change_caption@1", "vqa": "geovlm_vqa@1",
}  # fmt: skip


def answer_template(id: str) -> AnswerTemplate:
    """Returns a template by name and version, such as ``"think2seg@1"``.

    Raises:
        UnknownNameError: No such template. A name without a version is not enough: the newest version may change.
    """
    if id not in ANSWER_TEMPLATES:
        raise UnknownNameError("answer template", id, ANSWER_TEMPLATES)
    return ANSWER_TEMPLATES[id]
