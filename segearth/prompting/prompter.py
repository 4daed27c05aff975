"""Asks a vision-language model where something is, and reads what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segearth.errors import ConfigError, QuestionError, UnknownNameError
from segearth.preprocessing.images import as_rgb
from segearth.preprocessing.resampling import resized
from segearth.prompting.answers import ParsedAnswer, parse_answer
from segearth.prompting.frames import Frame
from segearth.prompting.messages import Message, messages_for
from segearth.prompting.opening import explained, open_pretrained, quiet
from segearth.prompting.templates import AnswerTemplate, answer_template
from segearth.segmenter import ImageInput, one_each
from segearth.structures import Task
from segearth.utils.hub import find_source

DEFAULT_TEMPLATE = "think2seg@1"
PROMPTS_AT_ONCE = 8
TASKS_THAT_POINT = ("referring", "reasoning", "detection", "grounding")  # any template that lists things serves them


class Prompter:
    """Asks any vision-language model of transformers in the words of a template, and reads its answers.

    Attributes:
        model: In eval mode.
        processor: Its processor.
        template: In whose words it asks; a model answers well in the form that it was trained with.
        by_task: Templates of some tasks that go before it.
        side: Of the square that images are resized to, where it is not the template's own.
    """

    def __init__(
        self, model: Any, processor: Any, template: AnswerTemplate | str = DEFAULT_TEMPLATE,
        by_task: Mapping[Task, AnswerTemplate | str] | None = None, max_new_tokens: int = 1024,
        side: int | None = None, temperature: float = 0.0, batch_size: int = PROMPTS_AT_ONCE,
    ) -> None:  # fmt: skip
        """Takes a model.

        Args:
            model: ``Qwen2_5_VLForConditionalGeneration`` or another of ``AutoModelForImageTextToText``, where it shall
                run.
            processor: From ``AutoProcessor``.
            template: Or its name, see :func:`segearth.prompting.templates.answer_template`.
            by_task: Templates for further tasks, such as captions, or for some in place of ``template``.
            max_new_tokens: Where an answer is cut off.
            side: Side in pixels of the square that images are resized to, in place of the template's own frame, for
                models that see smaller ones. Its answers must count pixels.
            temperature: 0 takes the likeliest token each time; above, tokens are drawn, as in training.
            batch_size: How many questions are answered together.

        Raises:
            UnknownNameError: No such template.
            ConfigError: ``side`` is given and the answers do not count pixels.
        """
        self.model, self.processor, self.side = model.eval(), processor, side
        self.template = framed(template, side)
        self.by_task = {task: framed(own, side) for task, own in (by_task or {}).items()}
        self.max_new_tokens, self.temperature, self.batch_size = max_new_tokens, temperature, batch_size

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **options: Any
    ) -> Prompter:
        """Opens model and processor from a folder or a hub id.

        Args:
            source: As for :func:`segearth.utils.hub.find_source`, such as ``"Qwen/Qwen2.5-VL-3B-Instruct"``.
            device: Where to run.
            dtype: Of the weights.
            options: Of the class: template, max_new_tokens, side, …

        Raises:
            CheckpointError: Nothing is there, or no vision-language model.
        """
        what = "vision-language model"
        model = open_pretrained(source, lambda _: "AutoModelForImageTextToText", what, dtype=dtype).to(device)
        from transformers import AutoProcessor

        with explained(source, what), quiet():
            processor = AutoProcessor.from_pretrained(str(find_source(source, what)))
        return cls(model, processor, **options)

    def template_for(self, task: Task) -> AnswerTemplate:
        """Returns the template in whose words a task is asked.

        Raises:
            UnknownNameError: There is none.
        """
        if task in self.by_task:
            return self.by_task[task]
        if task not in TASKS_THAT_POINT or self.template.form == "text":
            own = TASKS_THAT_POINT if self.template.form != "text" else ()
            raise UnknownNameError("task of the prompter", task, {*own, *self.by_task})
        return self.template

    def messages(
        self, image: np.ndarray, question: str, task: Task = "referring", before: np.ndarray | None = None,
        box: Sequence[float] | None = None,
    ) -> list[Message]:  # fmt: skip
        """Returns the turns that are put to the model, in the form that processors and trl take.

        Args:
            image: ``uint8`` RGB ``(H, W, 3)``.
            question: As the user typed it. What could end its turn or stand for an image is changed, see
                :func:`segearth.prompting.templates.as_data`.
            task: What is asked for.
            before: The earlier image of a pair; left out where the task's template asks about one image.
            box: Of the region that is asked about, in pixels of the image; it is written in the template's frame.

        Raises:
            QuestionError: The question is empty, or the template asks about a pair and there is none.
            UnknownNameError: There is no template for the task.
        """
        template = self.template_for(task)
        if template.images == 2 and before is None:
            raise QuestionError(
                f"template {template.id} of task {task!r} asks about two images and one is set; set the earlier one "
                "too: set_image(image, before=…)"
            )
        place = template.region(box, *image.shape[:2])
        pair = [before, image] if template.images == 2 else [image]
        return messages_for(template, question, [shown_as(one, template) for one in pair if one is not None], box=place)

    def ask(
        self, images: Sequence[ImageInput], questions: Sequence[str], tasks: Sequence[Task] | Task = "referring",
        before: Sequence[ImageInput | None] | None = None, boxes: Sequence[Sequence[float] | None] | None = None,
    ) -> list[ParsedAnswer]:  # fmt: skip
        """Asks one question about each image, or pair of images.

        Args:
            images: As many as questions; one image may be given several times.
            questions: As typed.
            tasks: What is asked for, for all or for each.
            before: For each the earlier image of a pair, or ``None``.
            boxes: For each the region that is asked about, or ``None``.

        Returns:
            The answers, whose instances are in pixels of their images, not cut at the borders.

        Raises:
            ImageError: An image cannot be used.
            QuestionError: A question is empty, or asks about a pair where there is none.
            UnknownNameError: There is no template for a task.
            SegEarthError: There are not as many images, tasks, earlier images or boxes as questions.
        """
        arrays = one_each([as_rgb(image) for image in images], len(questions), "images")
        each = one_each(tasks, len(questions), "tasks")
        earlier = one_each(before, len(questions), "earlier images")
        pairs = [None if one is None else as_rgb(one) for one in earlier]
        places = one_each(boxes, len(questions), "boxes")
        asked = [self.messages(*one) for one in zip(arrays, questions, each, pairs, places, strict=True)]
        return [
            self.read(text, array.shape[0], array.shape[1], task)
            for text, array, task in zip(self.generate(asked), arrays, each, strict=True)
        ]

    def read(self, text: str, height: int, width: int, task: Task = "referring") -> ParsedAnswer:
        """Takes a completion apart and brings what it points at to the pixels of an image. It never fails.

        Args:
            text: The completion.
            height: Of the image in pixels.
            width: Of the image in pixels.
            task: In whose template it was asked for.
        """
        template = self.template_for(task)
        parsed = parse_answer(text, template)
        if parsed.instances is None:
            return parsed
        frame = template.frame
        return replace(parsed, instances=tuple(frame.to_pixels(one, height, width) for one in parsed.instances))

    @torch.inference_mode()
    def generate(self, conversations: Sequence[list[Message]]) -> list[str]:
        """Lets the model go on with conversations, a few at a time.

        Args:
            conversations: From :meth:`messages`.

        Returns:
            What it writes in each, without marks of the chat.
        """
        written: list[str] = []
        for start in range(0, len(conversations), self.batch_size):
            written += self._continued(conversations[start : start + self.batch_size])
        return written

    def _continued(self, conversations: Sequence[list[Message]]) -> list[str]:
        texts = [
            self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            for turns in conversations
        ]
        images = [
            [part["image"] for turn in turns for part in turn["content"] if part["type"] == "image"]
            for turns in conversations
        ]
        # Padded on the left, so that each answer follows its own question and not the padding of a shorter one.
        inputs = self.processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokenizer, sampled = self.processor.tokenizer, self.temperature > 0
        # An image's token in an answer stands for no image and would be taken for one.
        image_token = getattr(self.model.config, "image_token_id", None)
        tokens = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=sampled, pad_token_id=tokenizer.pad_token_id,
            temperature=self.temperature if sampled else None, top_p=None, top_k=None,
            suppress_tokens=None if image_token is None else [image_token],
        )  # fmt: skip
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def shown_as(image: np.ndarray, template: AnswerTemplate) -> Any:
    """Returns an image as a template's model is shown it: a PIL image of the size whose pixels the answers count.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        template: Its frame says the size.
    """
    from PIL import Image

    if template.frame.in_pixels:
        image = resized(image, *template.frame.size_for(image.shape[0], image.shape[1]))
    return Image.fromarray(image)


def framed(template: AnswerTemplate | str, side: int | None) -> AnswerTemplate:
    """Returns a template by name, with the pixels of a square of another side as its frame where one is given.

    Raises:
        UnknownNameError: No such template.
        ConfigError: ``side`` is given and the answers do not count pixels, or the template is about two images.
    """
    found = answer_template(template) if isinstance(template, str) else template
    if side is None:
        return found
    if not found.frame.in_pixels:
        raise ConfigError(f"answers of {found.id} do not count pixels, whatever the side; leave side={side} out")
    return replace(found, frame=Frame.resized(side, side))
